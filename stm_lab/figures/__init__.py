"""Pure functions from numbers to matplotlib figures. No pyplot: nothing global is touched, and no figure stays open.

A mixer has one colour everywhere, of Okabe and Ito's palette that colour-blind readers tell apart; controls are dashed.
Values come as rows (dictionaries, as a run records them) or arrays, and are not changed. `lines` and `scatter` draw
plain numbers; `of` draws a measure's result. Every figure has an alternative text, and refuses empty input and rows
that lack a key (UserError). Figures that one notebook alone draws stand in its companion.
"""

from stm_lab.figures.cost import cost_by_part, cost_shares, front, pareto, shares_by_role, throughput_repeats
from stm_lab.figures.draw import line_panels, lines, scatter
from stm_lab.figures.maps import (
    image_grid,
    inductive_biases,
    map_panels,
    mixer_cards,
    mixing_matrices,
    mixing_over_image,
    number_grids,
    receptive_fields,
)
from stm_lab.figures.results import of
from stm_lab.figures.scores import (
    accuracy_by_epsilon,
    accuracy_by_mistake,
    accuracy_dots,
    compared_curves,
    consistency_curves,
    run_curves,
    severity_curves,
    training_curves,
)
from stm_lab.figures.style import MIXER_COLOURS, colours, curves_of, described
from stm_lab.figures.tasks import task_curves, task_table

__all__ = [
    "MIXER_COLOURS", "accuracy_by_epsilon", "accuracy_by_mistake", "accuracy_dots", "colours", "compared_curves",
    "consistency_curves", "cost_by_part", "cost_shares", "curves_of", "described", "front", "image_grid",
    "inductive_biases", "line_panels", "lines", "map_panels", "mixer_cards", "mixing_matrices", "mixing_over_image",
    "number_grids", "of", "pareto", "receptive_fields", "run_curves", "scatter", "severity_curves", "shares_by_role",
    "task_curves", "task_table", "throughput_repeats", "training_curves",
]  # fmt: skip
