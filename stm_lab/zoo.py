"""Models that can be measured, by the names that notebooks and commands give them: what to build, and whose weights.

A name is a mixer (in the unified backbone, at a scale) or any model of timm. Weights are "pretrained", "none", the
folder of one or many trainings, or a file of weights, published or ours, or a folder of such files.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import timm
import torch
from torch import nn

from stm_lab import data, list_mixers
from stm_lab.backbone import UnifiedBackbone
from stm_lab.designs import NETWORKS
from stm_lab.entrypoints import parts
from stm_lab.pixels import EvaluationView
from stm_lab.published import Kind, kind_of, read_facts, read_weights
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
        seed: of its training, or of its random weights; None if unknown.
        classes: identifier -> readable name, in the order of the labels; None if unknown.
        folder: of its training, if it comes from one.
        recipe: that of `classes`, by name or path; None if unknown.
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
    names: Sequence[str] | None,
    weights: str | Path = "pretrained",
    *,
    scale: str = "nano",
    recipe: str = "shapes",
    seed: int = 0,
    device: str | torch.device | None = None,
) -> list[LoadedModel]:
    """The models of these names, in their order; of a folder with several seeds each of them, the lowest first.

    Args:
        names: mixers, or models of timm; None takes all models that the weights hold.
        weights: "pretrained": ours of `shapes` at scale nano, the paper's from micro to base, timm's own; "none":
            random ones; the folder of a training, of a notebook's run, or of several trainings; a file of weights,
            published or ours, or a folder of such files, each known by what it holds.
        scale: of the mixers; a folder's trainings have their own.
        recipe, seed: the classes and the random numbers of a model without trained weights.
        device: None is the fastest available.

    Raises:
        UserError: an unknown name, weights that do not exist or do not fit, or none of a name that is asked for.
        Damaged: none of several trainings can be read.
    """
    if names is not None:
        check_models(names)
    source, on = check_source(str(weights), "weights"), resolve_device(device)
    if source == "none":
        return [_random(name, scale, recipe, seed, on) for name in names or ()]
    if source == "pretrained":
        return [_pretrained(name, scale, on) for name in (names if names is not None else _shipped())]
    path = Path(source)
    if names is None:
        if files := _weight_files(path):
            return [_of_file(file, on) for file in files]
        if not is_of_trainings(path):
            return [_of_file(path, on)]
        return list(_whole(training_folders(path), lambda folder: of_training(folder, on)))
    if files := _weight_files(path):
        kinds = {file: kind_of(file) for file in files}
        return [_with_weights(name, _file_of(name, scale, kinds), scale, on) for name in names]
    if is_of_trainings(path):
        return _of_trainings(names, path, on)
    if len(names) > 1:
        raise UserError(f"weights = {source!r}: a file holds one model, but {len(names)} are asked for")
    return [_with_weights(name, path, scale, on) for name in names]


def check_models(names: Iterable[str], where: str = "") -> None:
    """Raise UserError, naming the nearest, for a name that is neither a mixer nor timm's, with a tag or without."""
    known = [*list_mixers(), *timm.list_models()]
    for name in names:
        architecture, _, tag = name.partition(".")
        check_known("model", architecture, known, where)
        if tag and architecture in list_mixers():
            model = f"unified_{architecture}_tiny.{tag}"
            raise UserError(f"{where}{name!r}: only names of timm's models take a tag, such as {model!r}")
        if tag:
            tags = [pretrained.partition(".")[2] for pretrained in timm.list_pretrained(architecture)]
            check_known("weights", tag, tags, f"{where}{architecture}: ")


def check_source(weights: str, where: str) -> str:
    """`weights` as `load` takes it, a path made absolute. Raises UserError for what is no word and does not exist."""
    if weights in WORDS:
        return weights
    path = paths.expanded(weights).absolute()
    if not path.exists():
        hint = nearest(weights, WORDS)
        hint = hint if hint.startswith("did you mean") else "'pretrained', 'none', or the path of a run or a checkpoint"
        raise UserError(f"{where} = {weights!r}: no such file or folder; {hint}")
    return str(path)


def _timm_name(name: str, scale: str | None) -> str:
    """timm's name of the model that a name means, with the tag of its weights if it has one."""
    return f"unified_{name}_{scale}" if name in list_mixers() else name


def _architecture(name: str, scale: str | None) -> str:
    return _timm_name(name, scale).partition(".")[0]


# ---- words -----------------------------------------------------------------------------------------------------------


def _random(name: str, scale: str, recipe: str, seed: int, device: torch.device) -> LoadedModel:
    classes = data.load_recipe(recipe).classes
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        model = timm.create_model(_timm_name(name, scale), num_classes=len(classes))
    return LoadedModel(name, seed, model.eval().to(device), classes, recipe=recipe)


def _pretrained(name: str, scale: str, device: torch.device) -> LoadedModel:
    try:
        model = timm.create_model(_timm_name(name, scale), pretrained=True)
    except UserError:  # of our models
        raise
    except Exception as error:  # the hub's client raises a dozen types if there is no network
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: timm's weights cannot be fetched ({said}); weights = 'none', or a file") from error
    ships = model.pretrained_cfg.get("tag") == "shapes"
    return _trained(name, 0 if ships else None, model, "shapes" if ships else "imagenet-1k", device)


def _shipped() -> list[str]:
    """The mixers whose weights come with the package, at scale nano."""
    return [parts(name.partition(".")[0])[1] for name in timm.list_pretrained("unified_*_nano.shapes")]


def _trained(name: str, seed: int | None, model: nn.Module, recipe: str, device: torch.device) -> LoadedModel:
    """A model with trained weights; its classes are the recipe's if it has as many."""
    classes = data.load_recipe(recipe).classes
    known, of = (classes, recipe) if len(classes) == model.num_classes else (None, None)
    return LoadedModel(name, seed, model.eval().to(device), known, recipe=of)


# ---- files of weights ------------------------------------------------------------------------------------------------


def _weight_files(folder: Path) -> list[Path]:
    """The files of weights in a folder of such files alone, as the published ones after a download."""
    if not folder.is_dir() or (folder / CONFIG).is_file():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _file_of(name: str, scale: str, kinds: Mapping[Path, Kind]) -> Path:
    """The file whose weights are those of a mixer at a scale. Raises UserError that lists the files."""
    for path, kind in kinds.items():
        if kind.architecture == _architecture(name, scale):
            return path
    found = ", ".join(f"{path.name} ({kind.architecture or kind.looks})" for path, kind in kinds.items())
    folder = str(next(iter(kinds)).parent)
    raise UserError(f"weights = {folder!r}: no file for {_architecture(name, scale)}; found: {found}")


def _of_file(path: Path, device: torch.device) -> LoadedModel:
    """The model of a file of weights, which its metadata name or, of a published one, names and shapes tell."""
    if path.parent.name == "checkpoints" and (path.parents[1] / CONFIG).is_file():
        raise UserError(f"{path}: a checkpoint of a training that goes on from it; give the folder {path.parents[1]}")
    kind = kind_of(path)
    if kind.architecture is None:
        raise UserError(
            f"{path}: {kind.looks}; give the folder of its training, load it by name: "
            "stm_lab.zoo.load([name], file), or into a model of its sizes: stm_lab.load_published(model, file)"
        )
    if not timm.is_model(kind.architecture):
        raise UserError(
            f"{path}: weights of {kind.architecture!r}, which is not registered here; load the plugin of its mixer "
            "first, or give the folder of its training"
        )
    network, mixer, scale = parts(kind.architecture)
    if network == "unified" and mixer in list_mixers():
        return _with_weights(mixer, path, scale, device)
    return _with_weights(kind.architecture, path, None, device)


def _with_weights(name: str, path: Path, scale: str | None, device: torch.device) -> LoadedModel:
    """The model of that name with the weights of a file and their classes. UserError if they are of another model."""
    architecture, facts = _architecture(name, scale), read_facts(path)
    of = facts.get("architecture", architecture)
    if of != architecture:
        raise UserError(f"{path}: weights of {of}, not of {architecture}")
    check_known("model", architecture, timm.list_models(), f"{path}: ")
    options, cfg = _built_with(path, facts) if "architecture" in facts else ({}, {})
    model = timm.create_model(architecture, num_classes=kind_of(path).classes, **options)
    model.pretrained_cfg |= cfg
    if isinstance(model, UnifiedBackbone):
        model.load_pretrained(path)
    else:
        try:
            model.load_state_dict(read_weights(path))
        except RuntimeError as error:
            raise UserError(f"{path}: not weights of {name} ({' '.join(str(error).split())[:200]})") from None
    recipe = facts.get("recipe", "imagenet-1k")
    return _trained(name, None, model, recipe if recipe in data.list_recipes() else "imagenet-1k", device)


def _built_with(path: Path, facts: Mapping[str, str]) -> tuple[dict[str, object], dict[str, object]]:
    """The design's options and the entries of a pretrained cfg in a file's metadata, which anybody may have written."""
    try:
        options, cfg = dict(json.loads(facts.get("model_args", "{}"))), {}
        if "image_size" in facts:
            size = int(facts["image_size"])
            options, cfg = {"img_size": size} | options, {"input_size": (3, size, size)}
        if "crop_pct" in facts:
            cfg["crop_pct"] = float(facts["crop_pct"])
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: metadata that cannot be read ({error})") from None
    if options:
        network, mixer, scale = parts(facts["architecture"])
        try:
            NETWORKS[network](mixer, scale).override(**options)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return options, cfg


# ---- folders of trainings --------------------------------------------------------------------------------------------


def is_of_trainings(source: Path) -> bool:
    """Whether `source` is a folder, or the weights' file of one training; other files are weights without facts."""
    return source.is_dir() or (source.name == MODEL_FILE and (source.parent / CONFIG).is_file())


def training_folders(weights: Path) -> list[Path]:
    """The folders of finished trainings in or below `weights`: itself, `train/*`, or `*`.

    Raises UserError if there is none.
    """
    if weights.name == MODEL_FILE and weights.is_file():
        return [weights.parent]
    if not weights.is_dir():
        raise UserError(f"{weights}: no such folder; give that of a training or of a notebook's run")
    if (weights / CONFIG).is_file():
        return [weights]
    below = (file for pattern in (f"train/*/{CONFIG}", f"*/{CONFIG}") for file in weights.glob(pattern))
    trainings = sorted(file.parent for file in below)
    finished = [folder for folder in trainings if (folder / MODEL_FILE).is_file()]
    if not finished:
        unfinished = f"; {len(trainings)} below it are not finished" if trainings else ""
        raise UserError(f"{weights}: holds no trained model ({CONFIG} with {MODEL_FILE}, or train/*/){unfinished}")
    return finished


def of_training(folder: Path, device: torch.device) -> LoadedModel:
    """The model of one finished training. Raises UserError if its recipe is gone, or has other classes by now."""
    model, config = load_run(folder, device=device), load_config(folder / CONFIG)
    try:
        classes = data.load_recipe(config.recipe).classes
    except UserError as error:
        raise UserError(f"{folder}: the names of its classes are in its recipe: {error}") from None
    if len(classes) != model.num_classes:
        raise UserError(
            f"{folder}: {model.num_classes} classes, but its recipe {config.recipe!r} has {len(classes)} by now"
        )
    return LoadedModel(config.model_name, config.seed, model, classes, folder.resolve(), str(config.recipe))


def _of_trainings(names: Sequence[str], source: Path, device: torch.device) -> list[LoadedModel]:
    """The models of these names among the trainings of a folder."""
    found: dict[str, list[LoadedModel]] = {}

    def load_wanted(folder: Path) -> None:
        name = load_config(folder / CONFIG).model_name
        of_name = found.setdefault(name, [])
        if name in names:
            of_name.append(of_training(folder, device))

    list(_whole(training_folders(source), load_wanted))
    for name in names:
        if not found.get(name):
            raise UserError(f"weights = {str(source)!r}: no training of {name!r}; found: {', '.join(sorted(found))}")
    return [loaded for name in names for loaded in sorted(found[name], key=lambda one: one.seed)]


def _whole(folders: Sequence[Path], load_one: Callable[[Path], T]) -> Iterator[T]:
    """What `load_one` makes of each folder. One of several that it refuses is left out with a warning.

    Raises UserError for a single folder that is refused, Damaged if all are.
    """
    refused = []
    for folder in folders:
        try:
            yield load_one(folder)
        except UserError as error:
            if len(folders) == 1:
                raise
            refused.append(str(error))
            jsonfiles.tell(refused[-1:])
    if len(refused) == len(folders):
        raise jsonfiles.Damaged.all_of(refused)


@torch.no_grad()
def unit_layer_scale(model: nn.Module) -> nn.Module:
    """A copy of a model, ours or timm's, whose layer scales and SkipInit gains are all 1 instead of 1e-6 or 0."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if _LAYER_SCALE.search(name):
            parameter.fill_(1)
    return model
