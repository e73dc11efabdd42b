"""Checkpoints in our models, those of OpenGVLab/STM-Evaluation (commit b62c4714) and our own; nothing is executed.

A file is read (`read_checkpoint`), its weights picked out (`_unwrap`), renamed (`_by_our_names`), brought to the shapes
of the model where only the image or window size differs (`_fit`), and loaded if, and only if, everything fits.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from timm.models import adapt_input_conv
from torch import nn

from .backbone import UnifiedBackbone, resize_embedding
from .designs.unified import list_scales, unified
from .errors import UserError

# published name -> ours, applied in turn; the families' names do not collide, so one table serves all
_RENAMES = [
    (r"^downsample_layers\.0\.stem\.", "stem."),
    (r"^downsample_layers\.(\d)\.reduction\.", r"stages.\1.downsample."),
    (r"^stage_norms\.(\d)\.", r"stages.\1.norm."),
    (r"^head\.", "head.fc."),
    (r"^conv_head\.0\.", "head.conv."),
    (r"^conv_head\.1\.", "head.norm."),
    (r"^stages\.(\d)\.0\.pos_embed$", r"stages.\1.position_embedding.weight"),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.gamma_([12])$", r".gamma\1"),
    (r"\.dw_norm\.", ".norm1."),
    (r"\.pw_norm\.", ".norm2."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.conv."),
    (r"\.dw_input_proj\.", ".mixer.proj_in."),
    (r"\.(\d+)\.dwconv\.", r".\1.mixer.dwconv."),
    (r"\.dw_out_proj\.", ".mixer.proj_out."),
    (r"\.attn\.pos_embed\.", ".mixer."),
    (r"\.attn\.sr\.", ".mixer.reduce."),
    (r"\.attn\.dw_conv\.0\.", ".mixer.dwconv."),
    (r"\.attn\.dw_conv\.1\.norm\.", ".mixer.norm."),
    (r"\.attn\.sampling_offsets\.", ".mixer.offsets."),
    (r"\.attn\.attention_weights\.", ".mixer.weights."),
    (r"\.attn\.value_proj\.", ".mixer.value."),
    (r"\.attn\.output_proj\.", ".mixer.proj."),
    (r"\.attn\.", ".mixer."),
]
_REBUILT = (".attn.relative_position_index", ".attn_mask")  # buffers without information
PUBLISHED_AT = "https://github.com/OpenGVLab/STM-Evaluation/releases/tag/cls-ckpt"  # the page of the files
_EMBEDDING = "position_embedding.weight"  # the one entry whose layout differs
_STEM = "stem.0.weight"  # every checkpoint with our names has it, and no published one
_SIGNS = {  # one of our names that only one family has; pvt_v2's is asked for before pvt's
    "halo": ".height_rel",
    "swin": ".relative_position_bias_table",
    "convnext": ".mixer.proj_in.",
    "dcn_v3": ".mixer.offsets.",
    "pvt_v2": ".mlp.conv.",
    "pvt": ".mixer.reduce.",
}


class CheckpointMismatch(UserError):
    """A checkpoint does not fit the model: `missing`, `unexpected` and `misshapen` hold every entry, by our names."""

    def __init__(self, what: str, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
        self.missing, self.unexpected, self.misshapen = missing, unexpected, misshapen
        parts = [
            f"{len(names)} {kind} ({', '.join(names)})"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
            if names
        ]
        super().__init__(f"{what}: {'; '.join(parts)}")


def load_published(
    model: UnifiedBackbone, source: str | Path | Mapping[str, object], *, use_ema: bool = True
) -> UnifiedBackbone:
    """Load weights of the published code into one of our models, in place, and give the model back.

    Args:
        model: as built by `build_model`; its image size, window or block may differ from the checkpoint's, position
            embeddings and relative tables are then resized as the published code does.
        source: a path (.safetensors, or a file of torch.save) or a state dict, bare or under "model", "model_ema" or
            "state_dict", with or without a "module." before every name.
        use_ema: prefer "model_ema" where there is one.

    Raises UserError if the file cannot be read without executing something, holds no weights, or has our names
    already; CheckpointMismatch (a UserError) with every missing, unexpected and misshapen entry if they do not fit. The
    model is unchanged then.
    """
    checkpoint = source if isinstance(source, Mapping) else read_checkpoint(source)
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    weights = _unwrap(checkpoint, use_ema, where)
    if _STEM in weights:
        raise UserError(
            f"{where} has stm_lab's own names already, not those of the published code: load it by "
            f"{'model.load_state_dict(...)' if source is checkpoint else 'model.load_pretrained(path)'}"
        )
    _load(model, _by_our_names(weights), where)
    return model


def load_pretrained(model: UnifiedBackbone, path: str | Path) -> None:
    """Load a file for `pretrained=True`, in place: one of the published code, or one of ours (names as they are).

    As timm does for its own, the classifier is left as it is where the number of classes differs, and the stem's
    weights are summed or repeated where `in_chans` does. All else is strict.

    Raises UserError as `load_published` does.
    """
    weights = _unwrap(read_checkpoint(path), True, str(path))
    ours = model.state_dict()
    found = weights if _STEM in weights else _by_our_names(weights)
    found = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    fc = found.get("head.fc.weight")
    if fc is not None and model.num_classes != len(fc):
        found = {name: tensor for name, tensor in found.items() if not name.startswith("head.fc.")}
        found |= {name: tensor for name, tensor in ours.items() if name.startswith("head.fc.")}
    stem = found.get(_STEM)
    if stem is not None and stem.shape[1] != model.in_chans:
        found[_STEM] = adapt_input_conv(model.in_chans, stem)
    _load(model, found, str(path))


class Kind(NamedTuple):
    """What a file's weights are of; None for what their names and shapes do not tell."""

    mixer: str | None
    scale: str | None
    classes: int | None


def kind_of(path: str | Path) -> Kind:
    """What model a file is for: by the names of its mixer, the widths and depths of its stages, and its classifier.

    Raises UserError for a file that `read_checkpoint` refuses or that holds no weights.
    """
    weights = _unwrap(read_checkpoint(path), True, str(path))
    return _kind(weights if _STEM in weights else _by_our_names(weights))


def _kind(found: Mapping[str, torch.Tensor]) -> Kind:
    classes = len(found["head.fc.weight"]) if "head.fc.weight" in found else None
    mixer, places = _mixer_of(found), [re.match(r"stages\.(\d)\.blocks\.(\d+)\.", name) for name in found]
    blocks = Counter(int(stage) for stage, _ in {place.groups() for place in places if place})
    firsts = [found.get(f"stages.{stage}.blocks.0.norm1.weight") for stage in sorted(blocks)]
    if mixer is None or any(first is None for first in firsts):
        return Kind(mixer, None, classes)
    sizes = (tuple(map(len, firsts)), tuple(blocks[stage] for stage in sorted(blocks)))
    designs = {scale: unified(mixer, scale) for scale in list_scales(mixer)}
    scale = next((scale for scale, design in designs.items() if (design.dims, design.depths) == sizes), None)
    return Kind(mixer, scale, classes)


def _mixer_of(found: Iterable[str]) -> str | None:
    """The published mixer whose names are among ours that were found."""
    names = list(found)
    return next((mixer for mixer, sign in _SIGNS.items() if any(sign in name for name in names)), None)


def _by_our_names(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {_translate(name): tensor for name, tensor in published.items() if not name.endswith(_REBUILT)}
    return {
        name: tensor.permute(0, 2, 3, 1) if name.endswith(_EMBEDDING) and tensor.ndim == 4 else tensor
        for name, tensor in found.items()  # (1, C, H, W) -> (1, H, W, C)
    }


def _load(model: UnifiedBackbone, found: Mapping[str, torch.Tensor], where: str) -> None:
    """Load what was found, under our names, if and only if everything fits."""
    ours = model.state_dict()
    fitted = {name: _fit(name, tensor, ours[name], model) for name, tensor in found.items() if name in ours}

    missing = sorted(ours.keys() - found.keys())
    unexpected = sorted(found.keys() - ours.keys())
    misshapen = sorted(
        f"{name}: {tuple(found[name].shape)} for {tuple(ours[name].shape)}" for name, t in fitted.items() if t is None
    )
    if missing or unexpected or misshapen:
        mixer = model.design.mixer
        family = _mixer_of(found)
        hint = f", it looks like one of mixer {family!r}" if family and family != mixer else ""
        what = f"{where} does not fit this model of mixer {mixer!r}{hint}"
        raise CheckpointMismatch(what, missing, unexpected, misshapen)
    model.load_state_dict(fitted)


def read_checkpoint(path: str | Path) -> Mapping[str, object]:
    """Read a file of weights without executing anything in it.

    A .safetensors file, or one of torch.save that holds tensors, plain containers and argparse.Namespace only. Raises
    UserError for a file that is not there, is neither, or wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}; the published ones are at {PUBLISHED_AT}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the readers raise almost anything
        said = (str(error).partition("WeightsUnpickler error:")[2] or str(error)).strip() or type(error).__name__
        wanted = re.search(r"GLOBAL ([\w.]+)", said)
        if wanted:
            reason = f"it wants to run {wanted[1]}; only tensors and argparse.Namespace are read"
        else:
            reason = f"it is no .safetensors file and no plain file of torch.save: {_looks(path)}"
        raise UserError(f"{path} is refused: {reason}") from error
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a dictionary of weights")
    return checkpoint


def _looks(path: Path) -> str:
    """In plain words, what a file that cannot be read seems to be."""
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        return "it is empty"
    if path.suffix == ".safetensors" or start == b"PK" or start[:1] == b"\x80":  # as torch.save's begin, zip or pickle
        return "it is damaged or cut off"
    return "it does not begin like one, but like a text or something else"


def _unwrap(checkpoint: Mapping[str, object], use_ema: bool, where: str) -> dict[str, torch.Tensor]:
    """The weights inside a checkpoint, by their published names."""
    order = ("model_ema", "model", "state_dict") if use_ema else ("model", "state_dict")
    inside = next((checkpoint[key] for key in order if isinstance(checkpoint.get(key), Mapping)), None)
    if inside is None and isinstance(checkpoint.get("model_ema"), Mapping):
        raise UserError(f"{where} holds EMA weights only; call with use_ema=True")
    inside = checkpoint if inside is None else inside
    weights = {str(name).removeprefix("module."): value for name, value in inside.items()}
    strange = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if strange or not weights:
        what = f"{strange[0]!r} is a {type(weights[strange[0]]).__name__}" if strange else "it is empty"
        raise UserError(f"{where} holds no weights, neither bare nor under 'model', 'model_ema', 'state_dict': {what}")
    return weights


def _translate(name: str) -> str:
    for pattern, ours in _RENAMES:
        name = re.sub(pattern, ours, name)
    return name


def _fit(name: str, tensor: torch.Tensor, target: torch.Tensor, model: nn.Module) -> torch.Tensor | None:
    """The tensor in the shape that the model wants, or None if that is more than a change of size."""
    if tensor.shape == target.shape:
        return tensor
    if name.endswith(_EMBEDDING) and tensor.ndim == 4 and tensor.shape[3] == target.shape[3]:
        return resize_embedding(tensor, *target.shape[1:3])  # (1, H, W, C) -> (1, H', W', C)
    if name.endswith(("height_rel", "width_rel")) and tensor.shape[1:] == target.shape[1:]:
        size = (len(target),)
        return F.interpolate(tensor.t()[None], size, mode="linear", align_corners=True)[0].t()  # (2w-1, d)
    if name.endswith("relative_position_bias_table") and tensor.shape[1:] == target.shape[1:]:
        old, new = (round(len(table) ** 0.5) for table in (tensor, target))
        table = tensor.t().reshape(1, -1, old, old)  # ((2w-1)^2, heads) -> (1, heads, 2w-1, 2w-1)
        return F.interpolate(table, (new, new), mode="bicubic", align_corners=False).flatten(2)[0].t()
    if [n for n in tensor.shape if n != 1] == [n for n in target.shape if n != 1]:
        return tensor.reshape(target.shape)  # 1x1 convolutions are projections here, layer scales have one axis
    return None
