"""`pretrained=True`: the weights that come with the package, and the published files, through timm's own doors."""

import argparse
import json
import pickle
import shlex
import urllib.error
from pathlib import Path

import publish_weights
import pytest
import timm
import torch
from filler import fill
from kinds import KINDS, soaked
from publish_weights import ROWS, command_of
from timm.models import PretrainedCfg
from timm.models._hub import save_for_hf

import stm_lab
from stm_lab import UserError, build_model, data, load_published
from stm_lab.entrypoints import PUBLISHED, WEIGHTS
from stm_lab.mixers import list_mixers
from stm_lab.train import evaluate, fit, load_config
from stm_lab.util.environment import code_fingerprint
from stm_lab.util.overrides import parse_overrides

MANIFESTS = Path(__file__).parents[1] / "golden" / "manifests"
NAMES = [f"unified_{mixer}_nano" for mixer in list_mixers()]
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["dcn_v3", "swin"])
def published(request, tmp_path_factory):
    """A file of the published form, with optimizer and arguments beside, and the model that it is of."""
    state = fill(json.loads((MANIFESTS / f"unified_{request.param}_micro.json").read_text()))
    path = tmp_path_factory.mktemp("published") / "checkpoint.pth"
    torch.save({"model": state, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=1e-3), "epoch": 299}, path)
    model = load_published(build_model(request.param, "micro", num_classes=1000), state).eval()
    return f"unified_{request.param}_micro", str(path), model


# ---- what comes with the package -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_are_small_and_load_without_a_network(name, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)
    path = WEIGHTS / f"{name}.shapes.safetensors"
    assert path.stat().st_size < 2e6
    model = timm.create_model(f"{name}.shapes", pretrained=True).eval()
    fresh = timm.create_model(name).eval()
    assert not torch.equal(model(IMAGES), fresh(IMAGES))
    assert model.pretrained_cfg["tag"] == "shapes"
    assert torch.equal(build_model(name.split("_", 1)[1].rsplit("_", 1)[0], "nano", pretrained=True)(IMAGES).detach(),
                       model.train()(IMAGES).detach())  # fmt: skip


def test_every_shipped_file_has_the_row_that_made_it():
    rows = {row["name"]: row for row in map(json.loads, ROWS.read_text().splitlines())}
    assert {path.name.removesuffix(".safetensors") for path in WEIGHTS.glob("*.safetensors")} == rows.keys()
    assert rows.keys() == {f"{name}.shapes" for name in NAMES}
    for row in rows.values():
        assert abs(row["top1_float16"] - row["metrics"]["top1"]) < 0.5
        assert row["data"] == data.fingerprint("shapes")


def config_of(command):
    """What a shell, and then the command line, make of a command."""
    program, verb, preset, *rest = shlex.split(command)
    assert (program, verb) == ("stm-lab", "train")
    assert set(rest[::2]) <= {"-p"}
    return load_config(preset, **parse_overrides(rest[1::2]))


def test_the_command_of_a_shipped_file_trains_what_its_row_says():
    for row in map(json.loads, ROWS.read_text().splitlines()):
        assert config_of(row["command"]).result_fields() == row["config"]
        assert command_of(load_config(row["config"])) == row["command"]


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("quick", {"mixer": "pvt", "seed": 3, "lr": 5e-5, "train_size": 100}),
        ("class", {"augmentation": {"flip": False}, "ema_decay": None, "device": "cpu"}),
        ("paper-cnn", {"mixer": "swin", "scale": "tiny", "model_options": {"design": "original", "window": 6}}),
        ("quick", {"plugins": ["a folder/it's mine.py"], "recipe": "shapes"}),
    ],
)
def test_a_command_trains_the_configuration_that_it_is_of(preset, changes):
    config = load_config(preset, **changes)
    assert config_of(command_of(config)).result_fields() == config.result_fields()


@pytest.mark.slow
def test_a_published_row_says_what_made_it(tmp_path, monkeypatch):
    sizes = {"train_size": 64, "validation_size": 20, "epochs": 0.5, "warmup_epochs": 0, "device": "cpu"}
    run = fit("quick", mixer="pooling", out=tmp_path / "run", **sizes).run_dir
    made_with = json.loads((run / "environment.json").read_text())
    monkeypatch.setattr(publish_weights, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(publish_weights, "ROWS", tmp_path / "weights" / "rows.jsonl")
    row = publish_weights.publish(run)
    assert [json.loads(line) for line in publish_weights.ROWS.read_text().splitlines()] == [row]
    assert (row["revision"], row["code"]) == (made_with["git_revision"], made_with["code"])
    assert (row["device"], row["environment"]) == (made_with["device_name"], made_with["packages"])
    assert row["code"] == code_fingerprint()
    assert config_of(row["command"]).result_fields() == row["config"]


@pytest.fixture(scope="module")
def validation():
    return data.to_tensors(data.load("shapes", "validation"), 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", soaked(NAMES, besides=[f"unified_{mixer}_nano" for mixer in KINDS]))
def test_shipped_weights_reach_what_their_row_says(name, validation):
    row = next(row for row in map(json.loads, ROWS.read_text().splitlines()) if row["name"] == f"{name}.shapes")
    model = timm.create_model(name, pretrained=True)
    top1, _ = evaluate(model, *validation)
    assert top1 == pytest.approx(row["top1_float16"], abs=0.3)  # float32 sums differ between machines
    assert top1 > 30  # chance is 10


@pytest.mark.parametrize("name", NAMES)
def test_other_classes_channels_and_sizes(name):
    whole = timm.create_model(name, pretrained=True).eval()
    other = timm.create_model(name, pretrained=True, num_classes=3, in_chans=1, img_size=96).eval()
    assert other(IMAGES[:, :1]).shape == (2, 3)
    # a grey image as one channel is what three equal channels are
    grey = IMAGES[:, :1].expand(-1, 3, -1, -1)
    one, three = (x.permute(0, 2, 3, 1) for x in (IMAGES[:, :1], grey))  # the stem's convolutions take tokens
    torch.testing.assert_close(other.stem[0](one), whole.stem[0](three), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.head.conv.weight, whole.head.conv.weight)
    headless = timm.create_model(name, pretrained=True, num_classes=0).eval()
    torch.testing.assert_close(headless(IMAGES), whole.forward_head(whole.forward_features(IMAGES), pre_logits=True))
    maps = timm.create_model(name, pretrained=True, features_only=True).eval()(IMAGES)
    torch.testing.assert_close(maps[-1], whole.forward_features(IMAGES))


# ---- published files -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_local_file_of_the_published_form(published):
    name, path, expected = published
    model = timm.create_model(f"{name}.in1k", pretrained=True, pretrained_cfg_overlay={"file": path}).eval()
    torch.testing.assert_close(model(IMAGES), expected(IMAGES))
    other = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": path}, num_classes=7, in_chans=1)
    assert other.eval()(IMAGES[:, :1]).shape == (2, 7)
    torch.testing.assert_close(other.stages[3].norm.weight, expected.stages[3].norm.weight)
    maps = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": path}, features_only=True).eval()
    torch.testing.assert_close(maps(IMAGES)[-1], expected.forward_features(IMAGES))


def entries(path):
    """The ways to name a file to timm."""
    overlay = {"pretrained_cfg_overlay": {"file": path}}
    return overlay, {"pretrained_cfg": {"file": path}}, {"pretrained_cfg": PretrainedCfg(file=path)}


@pytest.mark.slow
def test_every_way_to_name_a_file_takes_our_loader(published):
    name, path, expected = published
    for given in entries(path):
        model = timm.create_model(name, pretrained=True, **given).eval()
        torch.testing.assert_close(model(IMAGES), expected(IMAGES))
        other = timm.create_model(name, pretrained=True, num_classes=7, in_chans=1, img_size=96, **given)
        assert other.eval()(IMAGES[:, :1]).shape == (2, 7)
        torch.testing.assert_close(other.stages[3].norm.weight, expected.stages[3].norm.weight)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_our_own_by_every_way(name, tmp_path):
    """A dictionary leaves the rest of the model's cfg as it is, its ten classes too; a cfg is taken whole."""
    trained = timm.create_model(name, num_classes=10).eval()
    path = str(tmp_path / "own.pth")
    torch.save({"model": trained.state_dict()}, path)
    overlay, entry, cfg = (timm.create_model(name, pretrained=True, **given).eval() for given in entries(path))
    for model in (overlay, entry):
        torch.testing.assert_close(model(IMAGES), trained(IMAGES), rtol=0, atol=0)
        assert model.pretrained_cfg["input_size"] == (3, 64, 64)
    assert cfg(IMAGES).shape == (2, 1000)
    torch.testing.assert_close(cfg.forward_features(IMAGES), trained.forward_features(IMAGES), rtol=0, atol=0)
    resolved = timm.models.resolve_model_input_args(name, pretrained_cfg={"file": path}, num_classes=10)
    again = timm.create_model(**resolved, pretrained=True).eval()
    torch.testing.assert_close(again.forward_features(IMAGES), trained.forward_features(IMAGES), rtol=0, atol=0)


def test_an_address_takes_the_place_of_the_models_own_file(monkeypatch):
    asked = []
    path = WEIGHTS / "unified_swin_nano.shapes.safetensors"
    monkeypatch.setattr("timm.models._builder.download_cached_file", lambda url, **_: asked.append(url) or path)
    for key in ("pretrained_cfg", "pretrained_cfg_overlay"):
        timm.create_model("unified_swin_nano", pretrained=True, **{key: {"url": f"https://a.test/{key}"}})
    assert asked == ["https://a.test/pretrained_cfg", "https://a.test/pretrained_cfg_overlay"]


@pytest.mark.parametrize("key", ["pretrained_cfg", "pretrained_cfg_overlay"])
def test_unknown_entries_of_a_cfg(key):
    with pytest.raises(UserError, match="unknown entry of a pretrained cfg 'fil'; did you mean 'file'"):
        timm.create_model("unified_swin_nano", **{key: {"fil": "x"}})


def test_a_folder_that_timm_saved(tmp_path):
    """timm's own way to share a model, with the options it was built with."""
    model = timm.create_model("unified_swin_nano", num_classes=3, window=8, layer_scale=1.0).eval()
    save_for_hf(model, tmp_path, model_args=model._model_args)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    torch.testing.assert_close(again(IMAGES), model(IMAGES), rtol=0, atol=0)


def test_the_address_is_that_of_the_published_file(published, monkeypatch):
    name, path, expected = published
    asked = []
    monkeypatch.setattr("timm.models._builder.download_cached_file", lambda url, **_: asked.append(url) or path)
    model = timm.create_model(name, pretrained=True).eval()
    torch.testing.assert_close(model(IMAGES), expected(IMAGES))
    folder = "https://github.com/OpenGVLab/STM-Evaluation/releases/download/cls-ckpt"
    assert asked == [timm.get_pretrained_cfg(name).url]
    for mixer, family in PUBLISHED.items():
        assert timm.get_pretrained_cfg(f"unified_{mixer}_tiny").url == f"{folder}/unified_{family}_tiny.pth"


def test_a_file_that_wants_to_run_code_does_not(tmp_path, published):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps({"model": Bomb()}))
    with pytest.raises(UserError, match="is refused"):
        timm.create_model(published[0], pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_model_are_refused(published):
    name, path, _ = published
    other = "unified_swin_micro" if "swin" not in name else "unified_halo_micro"
    with pytest.raises(UserError, match="does not fit this model of mixer"):
        timm.create_model(other, pretrained=True, pretrained_cfg_overlay={"file": path})


# ---- what is not there -----------------------------------------------------------------------------------------------


def test_without_a_network_one_line_says_what_to_do(monkeypatch):
    def offline(url, **_):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("timm.models._builder.download_cached_file", offline)
    with pytest.raises(UserError, match=r"cannot be fetched \(no network\); get https://github.com/.*swin_tiny.pth"):
        build_model("swin", "tiny", pretrained=True)


def test_models_without_weights_say_so():
    with pytest.raises(UserError, match=r"unified_identity_micro: there are no trained weights of it, but of .*nano"):
        build_model("identity", "micro", pretrained=True)


def test_timm_lists_them():
    listed = timm.list_pretrained("unified_*")
    assert len(listed) == len(NAMES) + 4 * len(PUBLISHED)
    assert {"unified_halo_nano.shapes", "unified_dcn_v3_base.in1k"} <= set(listed)
    assert stm_lab.list_mixers()[:1] == ["halo"]
