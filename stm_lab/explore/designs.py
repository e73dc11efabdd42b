"""Take the steps from an original network to the unified one by hand, and watch what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import ipywidgets as widgets
from matplotlib.figure import Figure

from stm_lab import designs, measure
from stm_lab.explore.shell import Explorer
from stm_lab.models import build_model
from stm_lab.util.errors import UserError

# What the costs of a part depend on; they are counted once for each, whatever the rest of the network is.
_DEPENDS = {
    "stem": ("stem",),
    "mixers": ("depths", "options"),
    "MLPs": ("depths", "mlp_ratios"),
    "downsampling": ("downsample",),
    "head": ("head",),
    "rest": ("depths", "branches", "layer_scale", "stage_norms"),  # norms, scales
}
_COUNTS = ("parameters", "macs")
_DEFAULT = ("swin", "convnext", "pvt", "pvt_v2", "halo", "dcn_v3")


def design_steps(
    mixers: Sequence[str] = _DEFAULT,
    *,
    scale: str = "tiny",
    num_classes: int | None = None,
    image_size: int | None = None,
) -> Explorer:
    """A switch for each step: the design in words, its parameters and multiply-adds by part beside both ends.

    Nothing is measured but counted, so it answers at once. A switch whose step the mixer's original does not have (its
    original is unified in that) changes nothing, and the table says so. A click does nothing.

    Args:
        mixers: to choose from; each must have an original at this scale.
        scale: see `stm_lab.designs.original_scales`.
        num_classes: of the classifier; None is the model's own, 10 at nano and 1000 above.
        image_size: side of the image that multiply-adds are counted for; None is the model's own.

    Raises UserError for no mixers, and for names that are not there.
    """
    if not mixers:
        raise UserError("design_steps: no mixers")
    names = {mixer: designs.step_names(mixer, scale) for mixer in mixers}
    known = list(dict.fromkeys(name for of_mixer in names.values() for name in of_mixer))

    costs: dict[tuple, dict] = {}  # (mixer, part, what that depends on) -> its row

    @cache
    def counted(mixer: str, order: tuple[str, ...]) -> tuple[designs.Step, list[dict]]:
        step = designs.steps(mixer, scale, order=order)[-1]
        keys = {
            part: (mixer, part, *(repr(getattr(step.design, field)) for field in fields))
            for part, fields in _DEPENDS.items()
        }
        if not all(key in costs for key in keys.values()):
            model = build_model(mixer, scale, design=step.design, num_classes=num_classes, device="meta")
            found = {row["part"]: row for row in measure.cost(model, image_size=image_size).rows("role")}
            costs.update({key: found.get(part, _nothing(part)) for part, key in keys.items()})
        rows = [costs[key] for key in keys.values()]
        return step, [*rows, {"part": "total"} | {name: sum(row[name] for row in rows) for name in _COUNTS}]

    for mixer, of_mixer in names.items():  # most parts of a design are those of one end or the other
        counted(mixer, ()), counted(mixer, tuple(of_mixer))

    def draw(mixer: str, **taken: bool) -> Figure:
        from stm_lab.figures import design_parts

        order = tuple(name for name in names[mixer] if taken[_word(name)])
        chosen = {"original": (), "now": order, "unified": tuple(names[mixer])}
        found = {name: counted(mixer, steps) for name, steps in chosen.items()}
        words = [(name, *(_said(found[each][0], name, names[mixer]) for each in found)) for name in known]
        return design_parts({name: rows for name, (_, rows) in found.items()}, words)

    controls = {"mixer": widgets.Dropdown(options=list(mixers), value=mixers[0], description="mixer")}
    controls |= {_word(name): widgets.Checkbox(value=False, description=name, indent=False) for name in known}
    return Explorer(draw, controls)


def _nothing(part: str) -> dict:
    return {"part": part} | dict.fromkeys(_COUNTS, 0)


def _word(name: str) -> str:
    """A step's name as a control's."""
    return name.replace(" ", "_")


@cache
def _changed(mixer: str, scale: str, name: str) -> tuple[str, ...]:
    """The fields and options of a design that a step changes."""
    return tuple(designs.steps(mixer, scale, order=[name])[-1].after)


def _said(step: designs.Step, name: str, of_mixer: Sequence[str]) -> str:
    """What a design says of what a step changes; a dash where the mixer's original has no such step."""
    if name not in of_mixer:
        return "-"
    fields = _changed(step.design.mixer, step.scale, name)
    values = [getattr(step.design, field, step.design.options.get(field)) for field in fields]
    return ", ".join(dict.fromkeys(_plain(value) for value in values))


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "none"
    if isinstance(value, float):
        return f"{value:g}" if value else "none"
    return str(value).replace("_", " ")
