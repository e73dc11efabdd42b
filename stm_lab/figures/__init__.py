"""Pure functions from numbers to matplotlib figures. No pyplot: nothing global is touched, and no figure lingers.

A mixer has one colour everywhere, of Okabe and Ito's palette that colour-blind readers tell apart; controls are dashed.
Values come as rows (dictionaries, as a run records them) or arrays, and are left as they are.
"""

from stm_lab.figures.attack import (
    accuracy_by_epsilon,
    image_under_attack,
    loss_by_steps,
    loss_surfaces,
    perturbations,
)
from stm_lab.figures.byhand import cost_shares, map_panels, number_grids, switched_off
from stm_lab.figures.corruption import (
    corruption_answers,
    corruption_dots,
    corruption_heat,
    corruption_sheet,
    severity_curves,
)
from stm_lab.figures.cost import (
    cost_against_cost,
    cost_by_part,
    macs_over_size,
    relative_costs,
    shares_by_role,
    throughput_repeats,
)
from stm_lab.figures.deform import point_paths, sampled_value, sampling_by_stage, sampling_points
from stm_lab.figures.designs import design_corners, design_fields, design_levels, design_parts, design_steps
from stm_lab.figures.halo import halo_blocks
from stm_lab.figures.images import image_grid
from stm_lab.figures.invariance import (
    bent_axis,
    consistency_curves,
    feature_drift,
    invariance_curves,
    protocols_compared,
    steady_and_right,
)
from stm_lab.figures.kernels import kernel_applied, mixer_cards
from stm_lab.figures.mixing import inductive_biases, leans, mixing_distances, mixing_matrices, mixing_over_image
from stm_lab.figures.own import fetched, mixer_bench
from stm_lab.figures.paper import (
    accuracy_bubbles,
    accuracy_over_costs,
    contrasts,
    detection_over_classification,
    orders,
    pareto,
    rank_agreement,
)
from stm_lab.figures.receptive import (
    accuracy_over_area,
    area_ratios,
    radial_profiles,
    receptive_field_over_image,
    receptive_fields,
    receptive_grid,
)
from stm_lab.figures.reduction import accuracy_by_reduction, query_map, reduction_steps
from stm_lab.figures.results import of
from stm_lab.figures.scores import accuracy_by_mistake, accuracy_dots
from stm_lab.figures.seeds import (
    difference_so_far,
    interval_by_seeds,
    leaders_by_seed,
    lucky_leads,
    paired_scores,
    seeds_needed,
    shares_by_seeds,
)
from stm_lab.figures.style import MIXER_COLOURS, colours
from stm_lab.figures.trace import shape_trace
from stm_lab.figures.training import compared_curves, learning_rates, run_curves, training_curves
from stm_lab.figures.views import views_compared
from stm_lab.figures.windows import window_steps

__all__ = [
    "MIXER_COLOURS",
    "accuracy_bubbles",
    "accuracy_by_epsilon",
    "accuracy_by_mistake",
    "accuracy_by_reduction",
    "accuracy_dots",
    "accuracy_over_area",
    "accuracy_over_costs",
    "area_ratios",
    "bent_axis",
    "colours",
    "compared_curves",
    "consistency_curves",
    "contrasts",
    "corruption_answers",
    "corruption_dots",
    "corruption_heat",
    "corruption_sheet",
    "cost_against_cost",
    "cost_by_part",
    "cost_shares",
    "design_corners",
    "design_fields",
    "design_levels",
    "design_parts",
    "design_steps",
    "detection_over_classification",
    "difference_so_far",
    "feature_drift",
    "fetched",
    "halo_blocks",
    "image_grid",
    "image_under_attack",
    "inductive_biases",
    "interval_by_seeds",
    "invariance_curves",
    "kernel_applied",
    "leaders_by_seed",
    "leans",
    "learning_rates",
    "loss_by_steps",
    "loss_surfaces",
    "lucky_leads",
    "macs_over_size",
    "map_panels",
    "mixer_bench",
    "mixer_cards",
    "mixing_distances",
    "mixing_matrices",
    "mixing_over_image",
    "number_grids",
    "of",
    "orders",
    "paired_scores",
    "pareto",
    "perturbations",
    "point_paths",
    "protocols_compared",
    "query_map",
    "radial_profiles",
    "rank_agreement",
    "receptive_field_over_image",
    "receptive_fields",
    "receptive_grid",
    "reduction_steps",
    "relative_costs",
    "run_curves",
    "sampled_value",
    "sampling_by_stage",
    "sampling_points",
    "seeds_needed",
    "severity_curves",
    "shape_trace",
    "shares_by_role",
    "shares_by_seeds",
    "steady_and_right",
    "switched_off",
    "throughput_repeats",
    "training_curves",
    "views_compared",
    "window_steps",
]
