"""The token mixers of a model, and each of them as a function of the tokens that reach it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from stm_lab.measure._batches import Data, as_images, model_name
from stm_lab.util.errors import UserError, check_known

MIXER_NAMES = ("mixer", "token_mixer", "attn", "conv_dw")  # names of mixers in our blocks and in those of timm
LAYOUTS = ("NHWC", "NCHW", "NLC")
Call = tuple[Callable, tuple, dict[str, Any]]  # function, args, kwargs


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
        self,
        function: Callable,
        args: tuple,
        kwargs: dict[str, Any] | None = None,
        layout: str = "NHWC",
        size: tuple[int, int] | None = None,
        prefix: int = 0,
    ) -> None:
        """args, kwargs: of the mixer, its input first. size, prefix: for NLC, of the map, and how many class tokens."""
        x = args[0].detach()
        self._function, self._rest, self._layout = function, (args[1:], kwargs or {}), layout
        self._prefix = x[:, : prefix if layout == "NLC" else 0]
        self.size = size or tuple(x.shape[2:] if layout == "NCHW" else x.shape[1:3])
        self.tokens = self._as_tokens(x)
        self.channels = self.tokens.shape[-1]
        self._headed = _headed(function)

    @property
    def heads(self) -> int:
        """The number of heads whose outputs a last projection mixes; 0 for a mixer without heads."""
        return 0 if self._headed is None else _heads(self._headed)

    def without_projection(self) -> AbstractContextManager:
        """Within, it gives the heads' own outputs, channels (head, d). For a mixer with heads only."""
        return self._headed.proj.register_forward_hook(lambda module, args, output: args[0])

    def __call__(self, tokens: Tensor, which: Tensor) -> Tensor:
        def chosen(value: Any) -> Any:
            is_by_image = isinstance(value, Tensor) and value.ndim and len(value) == len(self.tokens)
            return value[which] if is_by_image else value

        args, kwargs = self._rest
        x = self._as_input(tokens, which)
        out = self._function(x, *map(chosen, args), **{key: chosen(value) for key, value in kwargs.items()})
        if not isinstance(out, Tensor) or out.shape != x.shape:
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise UserError(f"the mixer gives {shape} for tokens {tuple(x.shape)}; it must keep their shape")
        return self._as_tokens(out)

    def _as_input(self, tokens: Tensor, which: Tensor) -> Tensor:
        """Tokens (B, P, C) as the mixer takes them."""
        if self._layout == "NLC":
            return torch.cat((self._prefix[which], tokens), 1)
        x = tokens.unflatten(1, self.size)
        return x.permute(0, 3, 1, 2) if self._layout == "NCHW" else x

    def _as_tokens(self, x: Tensor) -> Tensor:
        """What the mixer takes or gives as (B, P, C)."""
        if self._layout == "NLC":
            return x[:, self._prefix.shape[1] :]
        return (x.permute(0, 2, 3, 1) if self._layout == "NCHW" else x).flatten(1, 2)


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
    return {name: _as_site(model, name, call, None) for name, call in mixer_calls(model, images, layers).items()}


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
    """What is measured, and the size of the images in pixels; the arguments are those of `mixing_matrix`."""
    if layer is None and stage is None:
        return MixerLayer("", None, None), _bare_site(model, data, layout, device), None
    found = _named_layer(model, layer) if layer is not None else _placed_layer(model, stage, block)
    images = as_images(data, model, image_size)
    calls = [mixer_calls(model, x, [found])[found.name] for x, _ in images.batches(model, device, batch_size)]
    return found, _as_site(model, found.name, _joined(calls), layout), tuple(images.pixels.shape[-2:])


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
    return Site(model, (data.to(device, dtype),), layout=layout or "NHWC")


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


def mixer_calls(model: nn.Module, images: Tensor, layers: Sequence[MixerLayer]) -> dict[str, Call]:
    """By layer, its call in one pass through the model. Raises UserError for a layer that is not called just once."""
    calls: dict[str, Call] = {}

    def record(name: str, function: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
        if name in calls:
            raise UserError(f"{model_name(model)}: {name} is called more than once for an image")
        calls[name] = (function, args, kwargs)

    def spied(name: str, method: Callable, *args: Any, **kwargs: Any) -> Any:
        record(name, method, args, kwargs)
        return method(*args, **kwargs)

    with ExitStack() as stack, torch.no_grad():
        for name in (layer.name for layer in layers):
            owner = model.get_submodule(name.rpartition(".")[0])
            if name.endswith("attn") and inspect.ismethod(getattr(owner, "_attn", None)):
                # a block of timm's Swin: its method cuts windows, attends and merges them
                owner._attn = partial(spied, name, owner._attn)
                stack.callback(delattr, owner, "_attn")
            else:
                hook = partial(record, name)
                stack.enter_context(model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True))
        (getattr(model, "forward_features", None) or model)(images)
    for layer in layers:
        if layer.name not in calls:
            raise UserError(f"{model_name(model)}: {layer.name} is not called for an image")
    return calls


def _joined(calls: list[Call]) -> Call:
    """Calls of several batches as one."""
    function, args, _ = calls[0]

    def together(*values: Any) -> Any:
        is_batch = isinstance(values[0], Tensor) and values[0].ndim and len(values[0]) == len(args[0])
        return torch.cat(values) if is_batch else values[0]

    return function, *tree_map(together, *(call[1:] for call in calls))


def _as_site(model: nn.Module, name: str, call: Call, layout: str | None) -> Site:
    function, args, kwargs = call
    tokens = args[0] if args else None
    if not isinstance(tokens, Tensor) or tokens.ndim not in (3, 4):
        shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise UserError(f"{name}: takes {shape}, no tokens of a map")
    if tokens.ndim == 3:
        prefix = getattr(model, "num_prefix_tokens", 0)
        return Site(function, args, kwargs, "NLC", _sides(name, tokens.shape[1] - prefix, args, kwargs), prefix)
    if layout is None:
        first, second, third = tokens.shape[1:]
        is_ours = type(model).__module__.startswith("stm_lab.") or inspect.ismethod(function)
        if not is_ours and (first == second) == (second == third):
            raise UserError(f"{name}: tokens {tuple(tokens.shape)} may be NHWC or NCHW; say so by `layout`")
        layout = "NHWC" if is_ours or first == second else "NCHW"
    return Site(function, args, kwargs, layout)


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
