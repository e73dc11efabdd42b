"""A training configuration holds exactly what was meant, or says in one line what is wrong."""

import re

import pytest
from pydantic import ValidationError

from stm_lab.errors import UserError
from stm_lab.train import TrainConfig, list_presets, load_config


@pytest.mark.parametrize("preset", list_presets())
def test_presets_are_whole_and_say_how_they_are_run(preset):
    config = load_config(preset)
    assert isinstance(config, TrainConfig)
    head = (load_config.__globals__["PRESETS"] / f"{preset}.yaml").read_text()
    assert re.search(rf"^# .*-m stm_lab.train {preset}\b", head, re.MULTILINE)


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
    others = [{"lr": 1e-5}, {"seed": 1}, {"augmentation": {"erasing": 0.1}}, {"model_options": {"window": 2}}]
    assert len({load_config("quick", **other).run_dir() for other in others} | {folder}) == 5
    assert load_config("quick", out="here").run_dir().is_absolute()


WRONG = {
    "bach_size=3": ({"bach_size": 3}, "'bach_size'; did you mean 'batch_size'?"),
    "nested": ({"augmentation": {"flipp": True}}, "'augmentation.flipp'; did you mean 'flip'?"),
    "text for a number": ({"lr": "high"}, "lr = 'high'"),
    "quoted number": ({"batch_size": "64"}, "batch_size = '64'"),
    "fraction for a count": ({"batch_size": 64.5}, "batch_size = 64.5"),
    "bool for a number": ({"lr": True}, "lr = True"),
    "number for text": ({"mixer": 3}, "mixer = 3"),
    "negative": ({"lr": -1.0}, "lr = -1.0"),
    "too small": ({"image_size": 31}, "image_size = 31"),
    "choice": ({"precision": "fp61"}, "did you mean 'fp16'?"),
    "nested choice": ({"augmentation": {"crop": "paded"}}, "did you mean 'pad'?"),
    "device": ({"device": "gpu"}, "device = 'gpu'"),
    "null": ({"seed": None}, "seed = None"),
    "nan": ({"lr": float("nan")}, "lr = nan"),
    "infinite": ({"epochs": float("inf")}, "epochs = inf"),
    "warm-up too long": ({"epochs": 2, "warmup_epochs": 2}, "warmup_epochs = 2.0 must be less than epochs = 2.0"),
    "rates crossed": ({"lr": 1e-6, "min_lr": 1e-3}, "must not be above lr"),
    "odd batch": ({"batch_size": 3, "mixup": 0.8}, "batch_size = 3 must be a multiple of 2"),
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
