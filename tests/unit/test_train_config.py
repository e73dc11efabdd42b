"""A training configuration holds exactly what was meant, or says in one line what is wrong."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from stm_lab.train import TrainConfig, list_presets, load_config
from stm_lab.train.optim import schedule
from stm_lab.util.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "numbers" / "lr_schedule.json").read_text())


@pytest.mark.parametrize("preset", list_presets())
def test_presets_are_whole_and_say_how_they_are_run(preset):
    config = load_config(preset)
    assert isinstance(config, TrainConfig)
    head = (load_config.__globals__["PRESETS"] / f"{preset}.yaml").read_text()
    assert re.search(rf"^# .*-m stm_lab.train {preset}\b", head, re.MULTILINE)


def test_a_file_that_extends_nothing_there_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: classs\n")
    with pytest.raises(UserError, match=r"mine\.yaml: extends: .*did you mean 'class'"):
        load_config(tmp_path / "mine.yaml")


def test_overrides_reach_nested_fields_and_leave_the_rest():
    plain = load_config("quick")
    config = load_config("quick", lr=0.5, augmentation={"flip": not plain.augmentation.flip})
    assert config.lr == 0.5
    assert config.augmentation.flip is not plain.augmentation.flip
    assert config.model_copy(update={"lr": plain.lr, "augmentation": plain.augmentation}) == plain


def test_every_field_survives_its_file(tmp_path):
    config = load_config("quick", mixer="swin", model_options={"window": 2}, plugins=["a.py"], lr=2e-5, precision="no")
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config
    assert load_config(config) == config
    assert load_config(config.model_dump()) == config


def test_a_configuration_cannot_change():
    with pytest.raises(ValidationError, match="frozen"):
        load_config("quick").lr = 1.0


def test_files_extend_presets_and_one_another(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: quick\nlr: 3e-4\naugmentation: {erasing: 0.5}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nmixer: pvt\n")
    config, quick = load_config(tmp_path / "mine.yaml"), load_config("quick")
    assert (config.mixer, config.lr, config.augmentation.erasing) == ("pvt", 3e-4, 0.5)
    assert (config.batch_size, config.augmentation.crop) == (quick.batch_size, quick.augmentation.crop)
    (tmp_path / "base.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(UserError, match="extends itself"):
        load_config(tmp_path / "mine.yaml")


def test_the_folder_belongs_to_what_changes_the_result(tmp_path, monkeypatch):
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path))
    folder = load_config("quick").run_dir()
    assert folder.parent == tmp_path / "train"
    assert folder.name.startswith("shapes-halo-nano-s0-")
    assert load_config("quick", device="cpu", workers=2, data_root="x").run_dir() == folder
    others = [{"lr": 1e-5}, {"seed": 1}, {"augmentation": {"erasing": 0.1}}, {"model_options": {"block": 2}}]
    assert len({load_config("quick", **other).run_dir() for other in others} | {folder}) == 5
    assert load_config("quick", out="here").run_dir().is_absolute()


PUBLISHED = {  # both recipes, but for what the second table says
    "epochs": 300, "weight_decay": 0.05, "clip_grad": 5.0, "precision": "fp16", "ema_decay": 0.9999, "mixup": 0.8,
    "cutmix": 1.0, "mixup_prob": 1.0, "label_smoothing": 0.1, "image_size": 224, "crop_pct": 0.875, "warmup_epochs": 20,
    "recipe": "imagenet-1k", "accumulate": 1, "train_size": None, "validation_size": None, "weights": "none",
}  # fmt: skip
BY_FAMILY = {
    "paper-transformer": {"batch_size": 1024, "lr": 1e-3, "warmup_lr": 1e-6, "min_lr": 1e-5},
    "paper-cnn": {"batch_size": 4096, "lr": 4e-3, "warmup_lr": 0.0, "min_lr": 1e-6},
    "paper-unified": {"batch_size": 1024, "lr": 1e-3, "warmup_lr": 1e-6, "min_lr": 1e-5},
}


@pytest.mark.parametrize("preset", BY_FAMILY)
def test_published_recipes_are_the_published_ones(preset):
    """By the paper's appendix and the published scripts."""
    config = load_config(preset)
    assert {name: getattr(config, name) for name in PUBLISHED} == PUBLISHED
    assert {name: getattr(config, name) for name in BY_FAMILY[preset]} == BY_FAMILY[preset]
    assert config.augmentation.model_dump() == {
        "flip": True, "crop": "resized", "crop_padding": 4, "auto_augment": "rand-m9-mstd0.5-inc1",
        "color_jitter": 0.4, "erasing": 0.25,
    }  # fmt: skip


def test_the_published_schedule_is_held_against_the_golden_one():
    rate = schedule(load_config("paper-transformer"), GOLDEN["args"]["niter_per_ep"])
    assert rate.steps == GOLDEN["length"]
    for step, expected in GOLDEN["values"].items():
        assert rate(int(step)) == pytest.approx(expected, rel=1e-12), step


WRONG = {
    "bach_size=3": ({"bach_size": 3}, "'bach_size'; did you mean 'batch_size'?"),
    "nested": ({"augmentation": {"flipp": True}}, "'augmentation.flipp'; did you mean 'flip'?"),
    "text for a number": ({"lr": "high"}, "lr = 'high'"),
    "quoted number": ({"batch_size": "64"}, "batch_size = '64'"),
    "fraction for a count": ({"batch_size": 64.5}, "batch_size = 64.5"),
    "bool for a number": ({"lr": True}, "lr = True"),
    "number for text": ({"mixer": 3}, "mixer = 3"),
    "negative": ({"lr": -1.0}, "lr = -1.0"),
    "too small": ({"image_size": 0}, "image_size = 0"),
    "choice": ({"precision": "fp61"}, "did you mean 'fp16'?"),
    "nested choice": ({"augmentation": {"crop": "paded"}}, "did you mean 'pad'?"),
    "device": ({"device": "gpu"}, "device = 'gpu'"),
    "null": ({"seed": None}, "seed = None"),
    "nan": ({"lr": float("nan")}, "lr = nan"),
    "infinite": ({"epochs": float("inf")}, "epochs = inf"),
    "warm-up too long": ({"epochs": 2, "warmup_epochs": 2}, "warmup_epochs = 2.0 must be less than epochs = 2.0"),
    "rates crossed": ({"lr": 1e-6, "min_lr": 1e-3}, "must not be above lr"),
    "odd batch": ({"batch_size": 3, "mixup": 0.8}, "batch_size = 3 must be a multiple of 2"),
    "an option of the mixer": ({"mixer": "swin", "window": 8}, "-p model_options.window=8"),
    "an option of the design": ({"depths": [1, 1, 1, 1]}, "-p model_options.depths=[1, 1, 1, 1]"),
    "one plugin": ({"plugins": "mine.py"}, "-p 'plugins=[mine.py]'"),
    "an argument of the model": ({"model_options": {"num_classes": 5}}, "halo: unknown option 'num_classes'"),
    "channels of images": ({"model_options": {"in_chans": 1}}, "unknown option 'in_chans'"),
    "an argument of timm": ({"model_options": {"features_only": True}}, "unknown option 'features_only'"),
    "weights": ({"model_options": {"pretrained": True}}, "unknown option 'pretrained'"),
    "a place": ({"model_options": {"device": "meta"}}, "unknown option 'device'"),
    "a scale": ({"model_options": {"scale": "tiny"}}, "unknown option 'scale'"),
    "a network": ({"model_options": {"design": "orignal"}}, "unknown design 'orignal'; did you mean 'original'"),
    "an option's type": ({"model_options": {"block": 4.5}}, "model_options: design of halo: block = 4.5: should be"),
    "augmentation is no mapping": ({"augmentation": "strong"}, "augmentation = 'strong'"),
}


@pytest.mark.parametrize(("values", "says"), WRONG.values(), ids=WRONG.keys())
def test_wrong_values_are_refused_in_one_line(values, says):
    with pytest.raises(UserError) as error:
        load_config("quick", **values)
    message = str(error.value)
    assert says in message
    assert message.startswith("quick: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("source", "says"),
    [("quik", "did you mean 'quick'?"), ("none.yaml", "no such file"), ("some/quick", "no such file")],
)
def test_what_is_not_there_is_said(source, says):
    with pytest.raises(UserError, match=re.escape(says)):
        load_config(source)
