"""A whole network by hand: its design step by step, and the shapes in it from stem to head. All is counted, not run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure

from stm_lab import designs, figures, measure
from stm_lab.designs import SCALES, list_scales
from stm_lab.explore.shell import Explorer, State
from stm_lab.mixers import list_mixers
from stm_lab.models import build_model
from stm_lab.util.errors import UserError, check_known

_DEFAULT = ("swin", "convnext", "pvt", "pvt_v2", "halo", "dcn_v3")
_COUNTS = ("parameters", "macs")
# The fields of a design that the cost of a part depends on: it is counted once for all networks that share them.
_DEPENDS = {
    "stem": ("stem",),
    "mixers": ("depths", "options"),
    "MLPs": ("depths", "mlp_ratios"),
    "downsampling": ("downsample",),
    "head": ("head",),
    "rest": ("depths", "branches", "layer_scale", "stage_norms"),  # norms, scales
}
_OPENED = ("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head")


def design_steps(
    mixers: Sequence[str] = _DEFAULT, *, scale: str = "tiny", image_size: int | None = None
) -> Explorer:
    """A switch for each step from an original network to the unified one: the design in words, its parameters and
    multiply-adds by part beside both ends.

    A switch whose step the mixer's original does not have (its original is unified in that) changes nothing, and the
    table says so.

    mixers: to choose from, each with an original at this `scale` (see `designs.original_scales`). image_size: side of
    the image that multiply-adds are counted for; default: the model's own.
    Raises UserError for no mixers and for unknown names.
    """
    if not mixers:
        raise UserError("design_steps: no mixers")
    names = {mixer: designs.step_names(mixer, scale) for mixer in mixers}
    known = {name.replace(" ", "_"): name for of_mixer in names.values() for name in of_mixer}  # by the control's name

    @cache
    def changed(mixer: str, name: str) -> tuple[str, ...]:
        """The fields and options of a design that a step changes."""
        return tuple(designs.steps(mixer, scale, order=[name])[-1].after)

    costs: dict[tuple, dict] = {}  # by (mixer, part, values of its fields)

    @cache
    def counted(mixer: str, order: tuple[str, ...]) -> tuple[designs.Step, list[dict]]:
        step = designs.steps(mixer, scale, order=order)[-1]
        keys = [
            (mixer, part, *(repr(getattr(step.design, field)) for field in fields)) for part, fields in _DEPENDS.items()
        ]
        if not all(key in costs for key in keys):
            model = build_model(mixer, scale, design=step.design, device="meta")
            found = {row["part"]: row for row in measure.cost(model, image_size=image_size).rows("role")}
            costs.update({key: found.get(key[1], {"part": key[1], "parameters": 0, "macs": 0}) for key in keys})
        rows = [costs[key] for key in keys]
        return step, [*rows, {"part": "total"} | {name: sum(row[name] for row in rows) for name in _COUNTS}]

    def words(mixer: str, step: designs.Step, name: str) -> str:
        """What a design says of what a step changes; a dash if the mixer's original has no such step."""
        if name not in names[mixer]:
            return "-"
        design = step.design
        values = [getattr(design, field, design.options.get(field)) for field in changed(mixer, name)]
        return ", ".join(dict.fromkeys(_plain(value) for value in values))

    def draw(mixer: str, **taken: bool) -> Figure:
        order = tuple(name for name in names[mixer] if taken[name.replace(" ", "_")])
        unified = counted(mixer, tuple(names[mixer]))  # before what lies between, which then has most parts in common
        found = {"original": counted(mixer, ()), "now": counted(mixer, order), "unified": unified}
        table = [(name, *(words(mixer, step, name) for step, _ in found.values())) for name in known.values()]
        return figures.design_parts({which: rows for which, (_, rows) in found.items()}, table)

    switches = {word: widgets.Checkbox(False, description=name, indent=False) for word, name in known.items()}
    return Explorer(draw, {"mixer": widgets.Dropdown(options=list(mixers), value=mixers[0]), **switches})


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "none"
    if isinstance(value, float):
        return f"{value:g}" if value else "none"
    return str(value).replace("_", " ")


def shape_tracer() -> Explorer:
    """An image on its way from stem to head: the map after every stage, what is padded, what it costs, and the parts
    of the clicked stage."""

    @lru_cache(maxsize=64)
    def network(mixer: str, scale: str):
        check_known("scale", scale, list_scales(mixer), f"{mixer}: ")
        return build_model(mixer, scale, device="meta")

    def draw(mixer: str, scale: str, height: int, width: int, opened: str) -> Figure:
        return figures.shape_trace(measure.trace(network(mixer, scale), image_size=(height, width)), opened)

    def select(panel: int, x: float, y: float, _: State) -> State:
        """Boxes stand at 0 (the image), 1 (the stem) and so on; bars are lines from the stem on; then the table."""
        place = (round(x) - 1, round(y), -1)[panel]
        return {"opened": _OPENED[place]} if 0 <= place < len(_OPENED) else {}

    controls = {
        "mixer": widgets.Dropdown(options=list_mixers()),
        "scale": widgets.Dropdown(options=SCALES, value="tiny"),
        "height": widgets.IntSlider(224, 1, 512, description="height (pixels)"),
        "width": widgets.IntSlider(224, 1, 512, description="width (pixels)"),
        "opened": widgets.Dropdown(options=_OPENED, value="stage 1"),
    }
    return Explorer(draw, controls, select=select)
