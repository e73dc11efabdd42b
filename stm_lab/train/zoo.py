"""Models that can be measured, by the names that notebooks and commands give them: what to build, and whose weights.

A name is a mixer (in the unified backbone, at a scale) or any model of timm. Weights are "pretrained", "none", the
folder of one or many trainings, or a file of weights, published or ours, or a folder of such files.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import timm
import torch
from torch import nn

from stm_lab import build_model, data, list_mixers
from stm_lab.backbone import UnifiedBackbone
from stm_lab.designs import Design
from stm_lab.mixers import option_names
from stm_lab.pixels import EvaluationView
from stm_lab.published import Kind, kind_of, read_facts, read_weights, sizes_of
from stm_lab.train.config import load_config
from stm_lab.train.folder import CONFIG, load_run
from stm_lab.train.folder import WEIGHTS as MODEL_FILE
from stm_lab.util import jsonfiles, paths
from stm_lab.util.devices import resolve_device
from stm_lab.util.errors import UserError, check_known, nearest

T = TypeVar("T")
WORDS = ("pretrained", "none")
_SUFFIXES = (".pth", ".pt", ".safetensors", ".tar", ".ckpt", ".bin")  # of files of weights; timm's end in .pth.tar
# the parameters that scale a branch in our blocks and in timm's; norms call theirs weight, activations scale
_LAYER_SCALE = re.compile(r"(^|\.)(gamma(_?\d|_xca)?|ls\d|layer_scale(_?\d)?|layer_scale(_?\d)?\.scale|skipinit_gain)$")


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, and what its images and answers mean.

    Attributes:
        name: as it was asked for; a trained folder's model has that of its mixer, or "original_swin_nano".
        seed: of its training, or of its random weights; None where nobody knows.
        classes: identifier -> readable name, in the order of the labels; None where nobody knows.
        folder: of its training, if it comes from one.
        recipe: the one that `classes` are of, by name or path; None where nobody knows.
    """

    name: str
    seed: int | None
    model: nn.Module
    classes: Mapping[str, str] | None
    folder: Path | None = None
    recipe: str | None = None

    def view(self, image_size: int | None = None, crop_pct: float | None = None) -> EvaluationView:
        """How its images are resized and cropped, as `EvaluationView.of` has it."""
        return EvaluationView.of(self.model, image_size, crop_pct)

    @property
    def image_size(self) -> int:
        """Side of the images that it was made for, in pixels; the shorter one if they differ."""
        return min(self.view().size)

    def knows(self, recipe: str) -> bool:
        """Whether its answers are the classes of that recipe, so that its accuracy there means something."""
        return self.classes is not None and list(self.classes) == list(data.load_recipe(recipe).classes)


def load(
    names: Sequence[str],
    weights: str | Path = "pretrained",
    *,
    scale: str = "nano",
    recipe: str = "shapes",
    seed: int = 0,
    device: str | torch.device | None = None,
) -> list[LoadedModel]:
    """The models of these names, in their order; of a folder with several seeds each of them, the lowest first.

    Args:
        names: mixers, or models of timm.
        weights: "pretrained": ours of `shapes` at scale nano, the paper's from micro to base, timm's own; "none":
            random ones; the folder of a training, of a notebook's run, or one that holds folders of trainings; a file
            of weights for one model, published or ours, or a folder of such files, each known by what it holds.
        scale: of the mixers; a folder's trainings have their own.
        recipe: whose classes a model without trained weights is given.
        seed: of random weights.
        device: None is the fastest at hand.

    Raises:
        UserError: a name that is neither mixer nor timm's, weights that are not there, do not fit, or are none of a
            name that is asked for (those that are there are listed).
    """
    check_models(names)
    on, source = resolve_device(device), check_source(str(weights), "weights")
    if source not in WORDS and (files := _weight_files(Path(source))):
        kinds = {path: kind_of(path) for path in files}  # each file is read once, whatever is asked for
        return [_built(name, str(_file_of(name, scale, kinds)), scale, recipe, seed, on) for name in names]
    if source not in WORDS and is_of_trainings(Path(source)):
        return _of_folders(names, Path(source), on)
    if source not in WORDS and len(names) > 1:
        raise UserError(f"weights = {source!r}: a file holds one model, but {len(names)} are asked for")
    return [_built(name, source, scale, recipe, seed, on) for name in names]


def check_models(names: Iterable[str], where: str = "") -> None:
    """Raise UserError, naming the nearest, for a name that is neither a mixer nor timm's, with a tag or without."""
    known = [*list_mixers(), *timm.list_models()]
    for name in names:
        architecture, _, tag = name.partition(".")
        check_known("model", architecture, known, where)
        tags = {pretrained.partition(".")[2] for pretrained in timm.list_pretrained(architecture)} if tag else ()
        if tag and tag not in tags:
            raise UserError(f"{where}unknown weights {tag!r} of {architecture}; {nearest(tag, tags)}")


def is_of_trainings(source: Path) -> bool:
    """Whether `source` is a folder, or the weights' file of one training; other files are weights without facts."""
    return source.is_dir() or (source.name == MODEL_FILE and (source.parent / CONFIG).is_file())


def _weight_files(folder: Path) -> list[Path]:
    """The files of weights in a folder that holds nothing but such, as the published ones after a download."""
    if not folder.is_dir() or (folder / CONFIG).is_file():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _file_of(name: str, scale: str, kinds: Mapping[Path, Kind]) -> Path:
    """The one whose weights are those of that mixer at that scale. Raises UserError that lists what is there."""
    for path, kind in kinds.items():
        if kind.mixer is not None and _architecture(kind.mixer, kind.scale) == _architecture(name, scale):
            return path
    there = ", ".join(
        f"{path.name} ({' '.join(filter(None, kind[:2])) or 'no mixer of ours'})" for path, kind in kinds.items()
    )
    raise UserError(
        f"weights = {str(next(iter(kinds)).parent)!r}: no file for {name!r} at scale {scale!r} there; {there}"
    )


def check_source(weights: str, where: str) -> str:
    """`weights` as `load` takes it, a path made absolute. Raises UserError for what is no word and not there."""
    if weights in WORDS:
        return weights
    path = paths.expanded(weights).absolute()
    if not path.exists():
        hint = nearest(weights, WORDS)
        hint = hint if hint.startswith("did you mean") else "'pretrained', 'none', or the path of a run or a checkpoint"
        raise UserError(f"{where} = {weights!r}: no such file or folder; {hint}")
    return str(path)


def _architecture(name: str, scale: str | None) -> str:
    """timm's name of the model that a name means."""
    return f"unified_{name}_{scale}" if name in list_mixers() else name.partition(".")[0]


def _built(name: str, source: str, scale: str, recipe: str, seed: int, device: torch.device) -> LoadedModel:
    is_ours = name in list_mixers()
    if source == "none":
        classes = data.load_recipe(recipe).classes
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            count = len(classes)
            if is_ours:
                model = build_model(name, scale, num_classes=count)
            else:
                model = timm.create_model(name, num_classes=count)
        return LoadedModel(name, seed, model.eval().to(device), classes, recipe=recipe)
    if source != "pretrained":
        return _with_weights(name, Path(source), scale, device)
    model = build_model(name, scale, pretrained=True) if is_ours else _pretrained_of_timm(name)
    ships = model.pretrained_cfg.get("tag") == "shapes"
    return _subject(name, 0 if ships else None, model, "shapes" if ships else "imagenet-1k", device)


def _subject(name: str, seed: int | None, model: nn.Module, recipe: str, device: torch.device) -> LoadedModel:
    """A model with trained weights; its classes are the recipe's if it has as many."""
    classes = data.load_recipe(recipe).classes
    known, of = (classes, recipe) if len(classes) == model.num_classes else (None, None)
    return LoadedModel(name, seed, model.eval().to(device), known, recipe=of)


def _pretrained_of_timm(name: str) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises a dozen types where there is no network
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: timm's weights cannot be fetched ({said}); weights = 'none', or a file") from error


def _with_weights(name: str, path: Path, scale: str | None, device: torch.device) -> LoadedModel:
    """The model of that name with the weights of a file, and with as many classes as they have.

    Raises UserError if they are of another model.
    """
    architecture, facts = _architecture(name, scale), read_facts(path)
    of = facts.get("architecture", architecture)
    if of != architecture:
        raise UserError(f"{path}: weights of {of}, not of {architecture}")
    check_known("model", architecture, timm.list_models(), f"{path}: ")
    options, view = _built_with(path, facts) if "architecture" in facts else ({}, {})
    model = timm.create_model(architecture, num_classes=kind_of(path).classes, **options)
    model.pretrained_cfg |= view
    if isinstance(model, UnifiedBackbone):
        model.load_pretrained(path)
    else:
        try:
            model.load_state_dict(read_weights(path))
        except RuntimeError as error:
            raise UserError(f"{path}: not weights of {name} ({' '.join(str(error).split())[:200]})") from None
    recipe = facts.get("recipe", "imagenet-1k")
    return _subject(name, None, model, recipe if recipe in data.list_recipes() else "imagenet-1k", device)


def _built_with(path: Path, facts: Mapping[str, str]) -> tuple[dict[str, object], dict[str, object]]:
    """The options of the model that a file of ours says it is of, and its entries of a pretrained cfg.

    Raises UserError for metadata that a training does not write; a file may come from anywhere.
    """
    try:
        options, cfg = dict(json.loads(facts.get("model_args", "{}"))), {}
        if "image_size" in facts:
            size = int(facts["image_size"])
            options, cfg = {"img_size": size} | options, {"input_size": (3, size, size)}
        if "crop_pct" in facts:
            cfg["crop_pct"] = float(facts["crop_pct"])
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: metadata that cannot be read ({error})") from None
    mixer = facts["architecture"].partition("_")[2].rpartition("_")[0]
    if options:
        known = [*(field.name for field in fields(Design)), *option_names(mixer)]
        for option in options:
            check_known("option", option, known, f"{path}: ")
    return options, cfg


def _of_folders(names: Sequence[str], source: Path, device: torch.device) -> list[LoadedModel]:
    found: dict[str, list[LoadedModel]] = {name: [] for name in names}
    there: set[str] = set()

    def wanted(folder: Path) -> LoadedModel | None:
        there.add(name := load_config(folder / CONFIG).model_name)
        return of_training(folder, device) if name in found else None

    for subject in _whole(training_folders(source), wanted):
        if subject is not None:
            found[subject.name].append(subject)
    for name in names:
        if not found[name]:
            raise UserError(f"weights = {str(source)!r}: no training of {name!r} there; of {', '.join(sorted(there))}")
    return [subject for name in names for subject in sorted(found[name], key=lambda s: s.seed)]


def training_folders(weights: Path) -> list[Path]:
    """The folders of finished trainings in or below `weights`: itself, `train/*`, or `*`.

    Raises UserError if there is none.
    """
    if weights.name == MODEL_FILE and weights.is_file():
        return [weights.parent]
    if not weights.is_dir():
        hint = nearest(weights, ["pretrained"])
        hint = (
            hint if hint.startswith("did you mean") else "give that of a training or a notebook's run, or 'pretrained'"
        )
        raise UserError(f"weights = {str(weights)!r}: no such folder; {hint}")
    if (weights / CONFIG).is_file():
        return [weights]
    below = (file for pattern in (f"train/*/{CONFIG}", f"*/{CONFIG}") for file in weights.glob(pattern))
    trainings = sorted(file.parent for file in below)
    finished = [folder for folder in trainings if (folder / MODEL_FILE).is_file()]
    if not finished:
        unfinished = f"; {len(trainings)} there are not finished" if trainings else ""
        raise UserError(f"{weights}: holds no trained model ({CONFIG} with {MODEL_FILE}, or train/*/){unfinished}")
    return finished


def of_trainings(weights: Path, device: torch.device) -> Iterator[LoadedModel]:
    """The models of the finished trainings in or below `weights`, one after the other.

    One of several that is damaged is left out, and a warning names it. Raises UserError if there is none, and for what
    `of_training` refuses of a single one; Damaged if all are damaged.
    """
    return _whole(training_folders(weights), lambda folder: of_training(folder, device))


def _whole(folders: Sequence[Path], load_one: Callable[[Path], T]) -> Iterator[T]:
    """What `load_one` makes of each folder that it does not refuse."""
    refused = []
    for folder in folders:
        try:
            made = load_one(folder)
        except UserError as error:
            if len(folders) == 1:
                raise
            refused.append(str(error))
            jsonfiles.tell(refused[-1:])
        else:
            yield made
    if len(refused) == len(folders):
        raise jsonfiles.Damaged.all_of(refused)


def of_training(folder: Path, device: torch.device) -> LoadedModel:
    """The model of one finished training. Raises UserError where its recipe is gone, or has other classes by now."""
    model, config = load_run(folder, device=device), load_config(folder / CONFIG)
    facts = read_facts(folder / MODEL_FILE)
    try:
        classes = data.load_recipe(config.recipe).classes
    except UserError as error:
        raise UserError(f"{folder}: the names of its classes are in its recipe: {error}") from None
    if len(classes) != int(facts["num_classes"]):
        raise UserError(
            f"{folder}: {facts['num_classes']} classes, but its recipe {config.recipe!r} has {len(classes)} by now"
        )
    return LoadedModel(config.model_name, config.seed, model, classes, folder.resolve(), str(config.recipe))


def of_file(path: Path, device: torch.device) -> LoadedModel:
    """The model of a file of weights: what its metadata name or, of a published one, what names and shapes tell.

    Raises UserError for a file that is no such one; it says what to give instead.
    """
    if path.parent.name == "checkpoints" and (path.parents[1] / CONFIG).is_file():
        raise UserError(f"{path}: a checkpoint of a training that goes on from it; give the folder {path.parents[1]}")
    kind = kind_of(path)
    if kind.mixer is None:
        raise UserError(
            f"{path}: weights of none of the published mixers, so nothing there says which model they are of; give the "
            "folder of its training, or load it by name: stm_lab.train.zoo.load([name], file)"
        )
    if kind.mixer not in list_mixers() and not timm.is_model(kind.mixer):
        raise UserError(
            f"{path}: weights of {kind.mixer!r}, which is not registered here; load the plugin of its mixer first, or "
            "give the folder of its training"
        )
    if kind.scale is None and kind.mixer in list_mixers():
        raise UserError(
            f"{path}: weights of {kind.mixer}, at no scale of ours: {sizes_of(path)}; build a model of these sizes by "
            "build_model(mixer, scale, dims=..., depths=...), and load it by model.load_pretrained(file)"
        )
    return _with_weights(kind.mixer, path, kind.scale, device)


def shipped(device: torch.device) -> Iterator[LoadedModel]:
    """The models whose weights come with the package: every mixer of them, at scale nano."""
    for name in timm.list_pretrained("unified_*_nano.shapes"):
        mixer = name.removeprefix("unified_").removesuffix("_nano.shapes")
        yield _built(mixer, "pretrained", "nano", "shapes", 0, device)


@torch.no_grad()
def unit_layer_scale(model: nn.Module) -> nn.Module:
    """A copy of a model, ours or timm's, whose layer scales and SkipInit gains are all 1.

    Blocks that start at 1e-6 or 0 then show what their random weights do. Other scales, such as those of norms, stay.
    """
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if _LAYER_SCALE.search(name):
            parameter.fill_(1)
    return model
