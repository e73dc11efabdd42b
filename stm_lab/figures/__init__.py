"""Pure functions from numbers to matplotlib figures. No pyplot: nothing global is touched, and no figure stays open.

A mixer has one colour everywhere, of Okabe and Ito's palette that colour-blind readers tell apart; controls are dashed.
Values come as rows (dictionaries, as a run records them) or arrays, and are not changed. `lines` and `scatter` draw
plain numbers; `of` draws a measure's result. Every figure has an alternative text, and refuses empty input and rows
that lack a key (UserError).
"""

from stm_lab.figures.attack import accuracy_by_epsilon, image_under_attack
from stm_lab.figures.corruption import corruption_answers, corruption_dots, corruption_heat, severity_curves
from stm_lab.figures.cost import cost_by_part, cost_shares, front, pareto, shares_by_role, throughput_repeats
from stm_lab.figures.draw import line_panels, lines, scatter
from stm_lab.figures.invariance import consistency_curves, invariance_curves, protocols_compared, views_compared
from stm_lab.figures.mixing import inductive_biases, leans, mixing_distances, mixing_matrices, mixing_over_image
from stm_lab.figures.operators import image_grid, map_panels, mixer_bench, mixer_cards, number_grids
from stm_lab.figures.receptive import (  # fmt: skip
    area_ratios,
    design_fields,
    radial_profiles,
    receptive_field_over_image,
    receptive_fields,
    receptive_grid,
)
from stm_lab.figures.results import of
from stm_lab.figures.scores import accuracy_by_mistake, accuracy_dots, intervals, switched_off  # fmt: skip
from stm_lab.figures.style import MIXER_COLOURS, colours, curves_of, described
from stm_lab.figures.training import compared_curves, run_curves, training_curves

__all__ = [
    "MIXER_COLOURS", "accuracy_by_epsilon", "accuracy_by_mistake", "accuracy_dots", "area_ratios", "colours",
    "compared_curves", "consistency_curves", "corruption_answers", "corruption_dots", "corruption_heat",
    "cost_by_part", "cost_shares", "curves_of", "described", "design_fields", "front", "image_grid",
    "image_under_attack", "inductive_biases", "intervals", "invariance_curves", "leans", "line_panels", "lines",
    "map_panels", "mixer_bench", "mixer_cards", "mixing_distances", "mixing_matrices",
    "mixing_over_image", "number_grids", "of", "pareto", "protocols_compared", "radial_profiles",
    "receptive_field_over_image", "receptive_fields", "receptive_grid", "run_curves",
    "scatter", "severity_curves", "shares_by_role", "switched_off",
    "throughput_repeats", "training_curves", "views_compared",
]  # fmt: skip
