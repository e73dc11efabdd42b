"""One evaluation transform: every path from a photograph to a model's input gives timm's pixels."""

import itertools

import datasets
import numpy as np
import PIL.Image
import pytest
import timm
import torch
import yaml
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision import transforms

from stm_lab import data, explore, zoo
from stm_lab.data.prepare import prepare
from stm_lab.measure import invariance
from stm_lab.measure._batches import as_images
from stm_lab.pixels import EvaluationView, Normalize
from stm_lab.predict import predict
from stm_lab.train import fit
from stm_lab.train.folder import load_run

DRAW = np.random.default_rng(0)
NEAR = [(s, s + d) for s in (32, 33, 36, 37, 40, 64, 65) for d in (-1, 0, 1)]  # width, height
ODD = [(500, 334), (334, 500), (640, 427), (50, 149), (149, 50), (41, 400), (7, 9), (31, 30), (30, 31)]
SIZES = [*NEAR, *ODD, *map(tuple, DRAW.integers(20, 140, (20, 2)).tolist())]  # fifty


def photograph(width: int, height: int) -> PIL.Image.Image:
    """Smooth forms and noise: a shift by one pixel changes every grey level."""
    coarse = DRAW.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    image = np.asarray(PIL.Image.fromarray(coarse).resize((width, height)), np.int16)
    return PIL.Image.fromarray((image + DRAW.integers(-40, 40, image.shape)).clip(0, 255).astype(np.uint8))


PHOTOGRAPHS = [photograph(*size) for size in SIZES]


class Model(nn.Module):
    """What timm says of a model's images, and what it is then shown."""

    num_classes = 2

    def __init__(self, side: int = 32, **cfg):
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, side, side), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)} | cfg
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return x.new_zeros(len(x), 2)


@pytest.fixture(scope="module")
def few_photographs() -> datasets.Dataset:
    """Every third one, stored as PNG."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    images = [image for image in PHOTOGRAPHS[::3] if max(image.size) < 450]
    return datasets.Dataset.from_dict({"image": images, "label": [0] * len(images)}, features=features)


def by_torchvision(resized: int, side: int) -> transforms.Compose:
    bicubic = transforms.InterpolationMode.BICUBIC
    return transforms.Compose(
        [transforms.Resize(resized, bicubic), transforms.CenterCrop(side), transforms.PILToTensor()]
    )


WAYS = list(itertools.product((0.875, 0.95, 1.0), ("bilinear", "bicubic"), ("center", "squash", "border")))


@pytest.mark.parametrize(("crop_pct", "interpolation", "crop_mode"), WAYS)
def test_a_models_view_is_timms_evaluation_transform(crop_pct, interpolation, crop_mode):
    model = Model(crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode)
    theirs, view = create_transform(**resolve_model_data_config(model)), EvaluationView.of(model)
    normalize = Normalize(model, torch.device("cpu"))
    for image in PHOTOGRAPHS:
        torch.testing.assert_close(normalize(view(image)), theirs(image), atol=1e-5, rtol=0, msg=str(image.size))


@pytest.mark.parametrize(
    ("crop_pct", "interpolation", "crop_mode"),
    [(0.875, "bilinear", "center"), (0.95, "bicubic", "squash"), (1.0, "bilinear", "border")],
)
def test_every_path_shows_a_model_what_timm_shows_it(few_photographs, crop_pct, interpolation, crop_mode, tmp_path):
    model = Model(crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode)
    transform = create_transform(**resolve_model_data_config(model))
    wanted = torch.stack([transform(image) for image in few_photographs["image"]])
    normalize, view = Normalize(model, torch.device("cpu")), EvaluationView.of(model)
    invariance(model, few_photographs, strengths=[0], batch_size=99)  # sees the standard view first
    files = [tmp_path / f"{number}.png" for number in range(len(few_photographs))]
    for image, file in zip(few_photographs["image"], files, strict=True):
        image.save(file)
    paths = {
        "to_tensors": normalize(data.to_tensors(few_photographs, view)[0]),
        "measures": normalize(as_images(few_photographs, model).pixels),
        "invariance": model.seen[0],
        "explorers": torch.cat([normalize(explore.picture(file, view)) for file in files]),
    }
    for path, shown in paths.items():
        torch.testing.assert_close(shown, wanted, atol=1e-5, rtol=0, msg=path)


@pytest.mark.parametrize(("side", "crop_pct"), [(32, 1.0), (37, 1.0), (32, 0.875), (64, 0.95)])
def test_a_view_without_a_model_is_torchvisions(few_photographs, side, crop_pct):
    """For centre crops torchvision's two transforms are a second judge; a number alone shows the whole shorter side."""
    judge = by_torchvision(int(side / crop_pct), side)
    images = data.to_tensors(few_photographs, side if crop_pct == 1 else EvaluationView(side, crop_pct))[0]
    for image, ours in zip(few_photographs["image"], images, strict=True):
        assert torch.equal(ours, judge(image)), image.size


@pytest.mark.parametrize("name", ["resnet18.tv_in1k", "test_resnet", "maxvit_tiny_tf_384.in1k", "convnext"])
def test_a_loaded_model_says_of_its_images_what_timm_resolves(name):
    (subject,) = zoo.load([name], "none", device="cpu")
    theirs = create_transform(**resolve_model_data_config(subject.model))
    image, normalize = PHOTOGRAPHS[SIZES.index((500, 334))], Normalize(subject.model, torch.device("cpu"))
    torch.testing.assert_close(normalize(subject.view()(image)), theirs(image), atol=1e-5, rtol=0)
    if "." in name:
        cfg = timm.get_pretrained_cfg(name)
        assert (subject.view().interpolation, subject.view().crop_mode) == (
            cfg.interpolation,
            cfg.crop_mode or "center",
        )


def test_pixels_in_memory_are_resized_as_files_are():
    """To the size that torchvision gives the decoded image, whichever side is the longer one."""
    for crop_pct, (height, width) in itertools.product((0.875, 0.95), ((40, 61), (61, 40), (50, 73), (33, 32))):
        pixels = torch.rand(1, 3, height, width)
        view = EvaluationView(32, crop_pct)
        assert view.resized(pixels).shape[-2:] == transforms.Resize(int(32 / crop_pct))(pixels).shape[-2:]


def test_images_prepared_at_the_side_that_a_view_resizes_to_are_the_raw_ones(tmp_path, data_home, few_photographs):
    view = EvaluationView(48, 2 / 3)  # resizes to 72 pixels, where prepared images are kept without loss
    for number, image in enumerate(few_photographs["image"]):
        place = tmp_path / "raw" / "validation" / f"n0{number % 2}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({
        "title": "photographs", "question": "none", "licence": "none", "image_size": 48, "classes": ["n00", "n01"],
        "counts": {"validation": len(few_photographs)}, "source": {"kind": "folder", "layout": "imagefolder"},
    }))  # fmt: skip
    recipe = data.load_recipe(tmp_path / "mine.yaml")
    raw = data.load(recipe, "validation", data_root=tmp_path / "raw")
    prepare(recipe, data_root=tmp_path / "raw", size=view.resized_side, workers=1)
    images, _ = data.to_tensors(data.load(recipe, "validation", image_size=view.resized_side), view)
    assert torch.equal(images, data.to_tensors(raw, view)[0])
    judge = by_torchvision(72, 48)
    assert torch.equal(images, torch.stack([judge(image) for image in raw["image"]]))


def test_a_trained_model_is_shown_what_it_was_validated_on(few, tmp_path, monkeypatch):
    """Its size and crop travel with it, so that timm, `predict` and measures see the validation images alike."""
    out = tmp_path / "run"
    result = fit({
        "recipe": few, "mixer": "identity", "image_size": 40, "crop_pct": 0.8, "epochs": 1, "warmup_epochs": 0,
        "batch_size": 16, "train_size": 16, "validation_size": 10, "device": "cpu", "out": str(out),
    })  # fmt: skip
    for model in (result.model, load_run(out)):
        cfg = resolve_model_data_config(model)
        assert (cfg["input_size"], cfg["crop_pct"]) == ((3, 40, 40), 0.8)
        assert EvaluationView.of(model) == EvaluationView(40, 0.8)
    image, seen = PHOTOGRAPHS[SIZES.index((334, 500))], []
    image.save(tmp_path / "photo.png")
    monkeypatch.setattr(Normalize, "__call__", lambda self, pixels: seen.append(pixels) or torch.zeros(1, 3, 40, 40))
    predict(tmp_path / "photo.png", out, device="cpu")
    assert torch.equal(seen[0][0], by_torchvision(50, 40)(image))
