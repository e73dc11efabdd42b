"""The token mixers of a model, and each of them as a function of the tokens that reach it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from stm_lab.measure._batches import Data, as_images, model_name
from stm_lab.util.errors import UserError, check_known

MIXER_NAMES = ("mixer", "token_mixer", "attn", "conv_dw")  # names of mixers in our blocks and in those of timm
LAYOUTS = ("NHWC", "NCHW", "NLC")


@dataclass(frozen=True)
class MixerLayer:
    """A token mixer inside a model: its module's `name`, and its `stage` and `block`, both from 0, or None if
    unknown."""

    name: str
    stage: int | None
    block: int | None


def mixer_layers(model: nn.Module) -> list[MixerLayer]:
    """The token mixers of a model, in its order: those of our blocks, and modules that timm calls `token_mixer`, `attn`
    or `conv_dw`. Stages are those of `feature_info`; a model without it has one.

    Raises UserError for a model without mixers.
    """
    stages = [info["module"] for info in getattr(model, "feature_info", ())]
    layers, blocks = [], {}
    for name, module in model.named_modules():
        parent, _, last = name.rpartition(".")
        is_inside = any(parent.startswith(f"{layer.name}.") for layer in layers)
        if last not in MIXER_NAMES or is_inside or isinstance(module, nn.Identity):
            continue
        stage = next((i for i, prefix in enumerate(stages) if f"{parent}.".startswith(f"{prefix}.")), 0)
        blocks[stage] = blocks.get(stage, -1) + 1
        layers.append(MixerLayer(name, stage, blocks[stage]))
    if not layers:
        raise UserError(f"{model_name(model)}: no token mixer found (none of {', '.join(MIXER_NAMES)}); give `layer`")
    return layers


class Site:
    """A mixer as a function of tokens, and the tokens that reached it.

    tokens: (N, P, C), detached. size: (H, W). channels: of its output. Called with (B, P, C) and, for each of them, the
    index of the image whose other arguments (class tokens, masks) belong to it, it gives (B, P, C').
    """

    def __init__(
        self, function: Callable, args: tuple, kwargs: dict, layout: str, size: tuple[int, int] | None, prefix: int
    ) -> None:
        self._function, self._rest, self._layout = function, (args[1:], kwargs), layout
        tokens = args[0].detach()
        self._prefix, self.size = tokens[:, :0], size
        if layout == "NLC":
            self._prefix, tokens = tokens[:, :prefix], tokens[:, prefix:]
        else:
            tokens = tokens.permute(0, 2, 3, 1) if layout == "NCHW" else tokens  # -> (N, H, W, C)
            self.size = tuple(tokens.shape[1:3])
        self.tokens = tokens.reshape(len(tokens), -1, tokens.shape[-1])
        self.channels = self.tokens.shape[-1]
        self._headed = _headed(function)

    @property
    def heads(self) -> int:
        """The number of heads whose outputs a last projection mixes; 0 for a mixer without heads."""
        return 0 if self._headed is None else _heads(self._headed)

    @contextmanager
    def without_projection(self) -> Iterator[None]:
        """Within, it gives the heads' own outputs, channels (head, d). For a mixer with heads only."""
        handle = self._headed.proj.register_forward_hook(lambda module, args, output: args[0])
        try:
            yield
        finally:
            handle.remove()

    def __call__(self, tokens: Tensor, which: Tensor) -> Tensor:
        count, (height, width) = len(self.tokens), self.size

        def chosen(value: Any) -> Any:
            return value[which] if isinstance(value, Tensor) and value.ndim and len(value) == count else value

        if self._layout == "NLC":
            x = torch.cat((self._prefix[which], tokens), 1)
        else:
            x = tokens.view(len(tokens), height, width, -1)
            x = x.permute(0, 3, 1, 2) if self._layout == "NCHW" else x
        args, kwargs = self._rest
        out = self._function(x, *map(chosen, args), **{key: chosen(value) for key, value in kwargs.items()})
        if not isinstance(out, Tensor) or out.shape != x.shape:
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise UserError(f"the mixer gives {shape} for tokens {tuple(x.shape)}; it must keep their shape")
        if self._layout == "NLC":
            return out[:, self._prefix.shape[1] :]
        out = out.permute(0, 2, 3, 1) if self._layout == "NCHW" else out
        return out.reshape(len(tokens), height * width, -1)


def _headed(function: Callable) -> nn.Module | None:
    """The module with heads and a linear projection after them, by the names that we and timm give them."""
    module = getattr(function, "__self__", function)  # timm's Swin: a block's method
    modules = module.modules() if isinstance(module, nn.Module) else ()
    return next((m for m in modules if _heads(m) and isinstance(getattr(m, "proj", None), nn.Linear)), None)


def _heads(module: nn.Module) -> int:
    return getattr(module, "heads", None) or getattr(module, "num_heads", None) or 0


def mixer_sites(model: nn.Module, images: Tensor, layers: Sequence[MixerLayer]) -> dict[str, Site]:
    """The mixers of these layers, by name, with the tokens that reach them from `images`, (N, 3, H, W), normalised, on
    the model's device. One pass through the model, which must be in eval mode."""
    calls = _calls(model, images, layers)
    return {layer.name: _as_site(model, layer.name, calls[layer.name], None) for layer in layers}


def site_in(
    model: nn.Module,
    data: Data,
    layer: str | None,
    stage: int | None,
    block: int,
    layout: str | None,
    image_size: int | None,
    device: torch.device,
    batch_size: int,
) -> tuple[MixerLayer, Site, tuple[int, int] | None]:
    """What is measured, and the size of the images in pixels."""
    if layer is None and stage is None:
        return MixerLayer("", None, None), _bare_site(model, data, layout, device), None
    found = _named_layer(model, layer) if layer is not None else _placed_layer(model, stage, block)
    images = as_images(data, model, image_size)
    batches = images.batches(model, device, batch_size)
    call = _joined([_calls(model, batch, [found])[found.name] for batch, _ in batches])
    return found, _as_site(model, found.name, call, layout), tuple(images.pixels.shape[-2:])


def _bare_site(model: nn.Module, data: Data, layout: str | None, device: torch.device) -> Site:
    if not isinstance(data, Tensor) or data.ndim != 4 or not data.is_floating_point():
        what = f"{tuple(data.shape)} {data.dtype}" if isinstance(data, Tensor) else f"a {type(data).__name__}"
        raise UserError(
            f"data: {what}; a mixer by itself takes tokens (N, H, W, C), floats; in a model, give stage or layer"
        )
    if not data.numel() or not data.isfinite().all():
        raise UserError(f"data: tokens {tuple(data.shape)}; expected at least one, and finite")
    if layout == "NLC":
        raise UserError("layout 'NLC' does not hold the map's sides; give tokens as NHWC or NCHW")
    dtype = next((p.dtype for p in model.parameters()), data.dtype)
    return Site(model, (data.to(device, dtype),), {}, layout or "NHWC", None, 0)


def _named_layer(model: nn.Module, name: str) -> MixerLayer:
    check_known("layer", name, [known for known, _ in model.named_modules() if known], f"{model_name(model)}: ")
    try:
        return next((layer for layer in mixer_layers(model) if layer.name == name), MixerLayer(name, None, None))
    except UserError:  # a model without known mixers: any module may be asked for
        return MixerLayer(name, None, None)


def _placed_layer(model: nn.Module, stage: int, block: int) -> MixerLayer:
    layers = mixer_layers(model)
    stages = sorted({layer.stage for layer in layers})
    count = stages[-1] + 1
    if stage % count not in stages or not -count <= stage < count:
        raise UserError(f"{model_name(model)}: no mixers in stage {stage}; in {', '.join(map(str, stages))}")
    here = [layer for layer in layers if layer.stage == stage % count]
    if not -len(here) <= block < len(here):
        raise UserError(f"{model_name(model)}: stage {stage} has no block {block}; known: 0 to {len(here) - 1}")
    return here[block]


def _calls(model: nn.Module, images: Tensor, layers: Sequence[MixerLayer]) -> dict[str, tuple[Callable, tuple, dict]]:
    """By layer (function, args, kwargs) of the call that one pass through the model makes."""
    calls, undo = {}, []

    def record(name: str, function: Callable, args: tuple, kwargs: dict) -> None:
        if name in calls:
            raise UserError(f"{model_name(model)}: {name} is called more than once for an image")
        calls[name] = (function, args, kwargs)

    for name in (layer.name for layer in layers):
        owner = model.get_submodule(name.rpartition(".")[0])
        if name.endswith("attn") and inspect.ismethod(getattr(owner, "_attn", None)):
            undo.append(_spied(owner, name, record))
        else:
            hook = model.get_submodule(name).register_forward_pre_hook(
                lambda module, args, kwargs, name=name: record(name, module, args, kwargs), with_kwargs=True
            )
            undo.append(hook.remove)
    try:
        with torch.no_grad():
            (getattr(model, "forward_features", None) or model)(images)
    finally:
        for step in undo:
            step()
    for layer in layers:
        if layer.name not in calls:
            raise UserError(f"{model_name(model)}: {layer.name} is not called for an image")
    return calls


def _spied(owner: nn.Module, name: str, record: Callable) -> Callable[[], None]:
    """Record calls of a block's `_attn`, which cuts windows, attends and merges them; returns what undoes it."""
    method = owner._attn

    def spy(*args: Any, **kwargs: Any) -> Any:
        record(name, method, args, kwargs)
        return method(*args, **kwargs)

    owner._attn = spy
    return lambda: delattr(owner, "_attn")


def _joined(calls: list[tuple]) -> tuple:
    """Calls of several batches as one."""
    function, args, _ = calls[0]
    if len(calls) == 1:
        return calls[0]

    def together(*values: Any) -> Any:
        is_batch = isinstance(values[0], Tensor) and values[0].ndim and len(values[0]) == len(args[0])
        return torch.cat(values) if is_batch else values[0]

    return function, *tree_map(together, *(call[1:] for call in calls))


def _as_site(model: nn.Module, name: str, call: tuple, layout: str | None) -> Site:
    function, args, kwargs = call
    tokens = args[0] if args else None
    if not isinstance(tokens, Tensor) or tokens.ndim not in (3, 4):
        shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise UserError(f"{name}: takes {shape}, no tokens of a map")
    if tokens.ndim == 3:
        prefix = getattr(model, "num_prefix_tokens", 0)
        return Site(function, args, kwargs, "NLC", _sides(name, tokens.shape[1] - prefix, args, kwargs), prefix)
    if layout is None:
        is_ours = type(model).__module__.startswith("stm_lab.") or inspect.ismethod(function)
        layout = "NHWC" if is_ours else _guess_layout(name, tokens)
    return Site(function, args, kwargs, layout, None, 0)


def _guess_layout(name: str, tokens: Tensor) -> str:
    first, second, third = tokens.shape[1:]
    if (first == second) == (second == third):
        raise UserError(f"{name}: tokens {tuple(tokens.shape)} may be NHWC or NCHW; say so by `layout`")
    return "NHWC" if first == second else "NCHW"


def _sides(name: str, positions: int, args: tuple, kwargs: dict) -> tuple[int, int]:
    """The sides of a flattened map: a pair among the arguments (pvt's feat_size) that fits, else those of a square."""
    for value in (*args[1:], *kwargs.values()):
        is_pair = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int) for v in value)
        if is_pair and value[0] * value[1] == positions:
            return tuple(value)
    side = math.isqrt(max(positions, 0))
    if side * side != positions or not positions:
        raise UserError(f"{name}: {positions} tokens are no square map, and its sides are unknown")
    return side, side
