"""Models by name: from every kind of source the right network, its classes and its size; one line for what is wrong."""

import argparse
import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from filler import fill

import stm_lab
from stm_lab import UserError, build_model, data, load_published, zoo
from stm_lab.train import fit

FEW = (32, 20)
MANIFESTS = Path(__file__).parents[1] / "golden" / "manifests"
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SHAPES = list(data.load_recipe("shapes").classes)


def same(model, other, images=IMAGES):
    with torch.no_grad():
        return torch.allclose(model(images), other(images), atol=1e-5)


@pytest.fixture(scope="module")
def trainings(few, tmp_path_factory):
    """A folder of three trainings, identity with two seeds, and one that is not finished."""
    folder = tmp_path_factory.mktemp("trainings")
    short = {"recipe": few, "epochs": 2, "batch_size": 16, "warmup_epochs": 0.5, "device": "cpu", "image_size": 32}
    for mixer, seed, crop_pct in (("identity", 10, 1.0), ("identity", 2, 1.0), ("pooling", 0, 0.75)):
        fit(short, mixer=mixer, seed=seed, crop_pct=crop_pct, out=str(folder / f"{mixer}-s{seed}"))
    (folder / "halo-s0").mkdir()
    (folder / "halo-s0" / "config.yaml").write_text("mixer: halo\n")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file of the published form for swin micro, with what such files have beside."""
    state = fill(json.loads((MANIFESTS / "unified_swin_micro.json").read_text()))
    path = tmp_path_factory.mktemp("published") / "unified_swin_micro.pth"
    torch.save({"model": state, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=1e-3)}, path)
    return path, state


# ---- sources ---------------------------------------------------------------------------------------------------------


def test_pretrained_at_nano_is_what_comes_with_the_package():
    first, second = zoo.load(["swin", "identity"], device="cpu")
    assert (first.name, second.name) == ("swin", "identity")
    assert same(first.model, build_model("swin", "nano", pretrained=True).eval())
    assert not first.model.training
    assert list(first.classes) == SHAPES
    assert (first.image_size, first.view().crop_pct, first.seed, first.folder) == (64, 1.0, 0, None)
    assert first.knows("shapes")
    assert not first.knows("imagenet-100")


@pytest.mark.parametrize("name", ["unified_swin_nano", "unified_swin_nano.shapes"])
def test_timms_name_of_a_model_of_ours_is_that_model(name):
    (subject,) = zoo.load([name], device="cpu")
    assert subject.name == name
    assert same(subject.model, build_model("swin", "nano", pretrained=True).eval())
    assert subject.knows("shapes")
    assert subject.image_size == 64


def test_shipped_are_all_that_come_with_the_package():
    subjects = {subject.name: subject for subject in zoo.load(None, device="cpu")}
    assert set(subjects) == {"halo", "pvt", "pvt_v2", "swin", "convnext", "dcn_v3", "identity", "pooling"}
    assert all(subject.knows("shapes") for subject in subjects.values())


@pytest.mark.parametrize("name", ["convnext", "test_resnet", "unified_identity_nano"])
def test_none_is_random_by_the_seed_with_the_recipes_classes(name):
    state = torch.random.get_rng_state()
    (one,), (again,), (other,) = (
        zoo.load([name], "none", seed=seed, recipe="imagenet-100", device="cpu") for seed in (3, 3, 4)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert one.model(IMAGES).shape == (2, 100)
    assert same(one.model, again.model)
    assert any(not torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))
    assert (one.seed, other.seed) == (3, 4)
    assert one.knows("imagenet-100")


def test_a_scale_is_that_of_mixers():
    (micro,) = zoo.load(["identity"], "none", scale="micro", device="cpu")
    assert micro.model.num_features == build_model("identity", "micro").num_features
    assert micro.image_size == 224


def test_timm_models_are_taken_at_their_own_size():
    (subject,) = zoo.load(["test_resnet"], "none", device="cpu")
    cfg = timm.create_model("test_resnet").pretrained_cfg
    assert (subject.image_size, subject.view().crop_pct) == (cfg["input_size"][-1], cfg["crop_pct"])


@pytest.mark.parametrize("spelt", [str, Path])
def test_the_folder_of_one_training(trainings, few, spelt):
    for source in (trainings / "pooling-s0", trainings / "pooling-s0" / "model.safetensors"):
        (subject,) = zoo.load(["pooling"], spelt(source), device="cpu")
        assert (subject.name, subject.seed, subject.image_size, subject.view().crop_pct) == ("pooling", 0, 32, 0.75)
        assert subject.folder == (trainings / "pooling-s0").resolve()
        assert subject.knows(few)
        assert same(subject.model, stm_lab.train.folder.load_run(trainings / "pooling-s0"))


def test_a_folder_of_trainings_gives_every_seed_the_lowest_first(trainings):
    subjects = zoo.load(["pooling", "identity"], trainings, device="cpu")
    assert [(subject.name, subject.seed) for subject in subjects] == [("pooling", 0), ("identity", 2), ("identity", 10)]
    assert not same(subjects[1].model, subjects[2].model)


def test_a_notebooks_run_holds_trainings(trainings, tmp_path):
    (tmp_path / "train").symlink_to(trainings)
    assert [subject.seed for subject in zoo.load(["identity"], tmp_path, device="cpu")] == [2, 10]


@pytest.mark.slow
def test_a_published_file_is_translated(published):
    path, state = published
    (subject,) = zoo.load(["swin"], path, scale="micro", device="cpu")
    assert same(subject.model, load_published(build_model("swin", "micro", num_classes=1000), state).eval())
    assert (subject.image_size, subject.seed, len(subject.classes)) == (224, None, 1000)
    assert subject.knows("imagenet-1k")


@pytest.mark.slow
def test_a_folder_of_files_gives_each_mixer_its_own(published, tmp_path):
    """As somebody has them who downloaded the published ones, whatever they are called."""
    path, state = published
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "a.pth").write_bytes(path.read_bytes())
    other = build_model("convnext", "micro", num_classes=7).eval()
    safetensors.torch.save_file(other.state_dict(), folder / "b.safetensors")
    convnext, swin = zoo.load(["convnext", "swin"], folder, scale="micro", device="cpu")
    assert same(convnext.model, other)
    assert same(swin.model, load_published(build_model("swin", "micro", num_classes=1000), state).eval())
    with pytest.raises(UserError, match=r"no file for unified_halo_micro; .* a.pth \(unified_swin_micro\), b\.s"):
        zoo.load(["halo"], folder, scale="micro")


def test_a_file_of_ours_under_any_name(tmp_path):
    trained = build_model("convnext", "nano").eval()
    for path in (tmp_path / "mine.safetensors", tmp_path / "model.safetensors"):  # the second without a configuration
        safetensors.torch.save_file(trained.state_dict(), path)
        (subject,) = zoo.load(["convnext"], path, device="cpu")
        assert same(subject.model, trained)
        assert subject.classes is None  # ten, but nobody knows which
        assert not subject.knows("shapes")


def test_a_file_of_other_classes_answers_with_its_own_classifier(tmp_path):
    """Not with a new one of 1,000 classes, drawn at random, that would seem to know ImageNet."""
    trained = build_model("convnext", "micro", num_classes=7).eval()
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "seven.safetensors")
    (subject,) = zoo.load(["convnext"], tmp_path / "seven.safetensors", scale="micro", device="cpu")
    assert same(subject.model, trained)
    assert subject.classes is None


def test_a_file_for_a_timm_model(tmp_path):
    trained = timm.create_model("test_resnet").eval()
    torch.save(trained.state_dict(), tmp_path / "resnet.pth")
    (subject,) = zoo.load(["test_resnet"], tmp_path / "resnet.pth", device="cpu")
    assert same(subject.model, trained)


# ---- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        (["swinn"], "pretrained", "unknown model 'swinn'; did you mean 'swin"),
        (["resnet_18"], "none", "unknown model 'resnet_18'; did you mean 'resnet"),
        (["resnet18.a9"], "none", "resnet18: unknown weights 'a9'; known: a1_in1k"),
        (["swin.in1k"], "pretrained", "'swin.in1k': only names of timm's models take a tag, such as 'unified_swin"),
        (["swin"], "pretraned", "weights = 'pretraned': no such file or folder; did you mean 'pretrained'"),
        (["swin"], "nowhere/run", "weights = 'nowhere/run': no such file or folder; 'pretrained', 'none', or the path"),
        (["swin"], "{trainings}", "no training of 'swin'; found: identity, pooling"),
        (["identity", "test_resnet"], "{trainings}", "no training of 'test_resnet'"),
        (["swin", "halo"], "{published}", "a file holds one model, but 2 are asked for"),
        (["halo"], "{published}", "looks like one of mixer 'swin'"),
        (["halo"], "{trainings}/halo-s0", "the run is not finished"),
        (["halo"], "{empty}", "holds no trained model"),
        (["halo"], "{text}", "is refused: it is no"),
        (["test_resnet"], "{text}", "text.pth is refused: it is no"),
        (["test_resnet"], "{published}", "not weights of test_resnet"),
    ],
)
def test_wrong_input_is_one_line(trainings, published, tmp_path, names, weights, message):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty").mkdir()
    places = {"text": tmp_path / "text.pth", "empty": tmp_path / "empty", "published": published[0]}
    with pytest.raises(UserError, match=message) as error:
        zoo.load(names, weights.format(trainings=trainings, **places), scale="micro", device="cpu")
    assert "\n" not in str(error.value)


def test_without_a_network_one_line_says_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise OSError("no network\nat all")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(
        UserError, match=r"resnet18.*cannot be fetched \(no network at all\); weights = 'none', or a file"
    ):
        zoo.load(["resnet18.a1_in1k"], device="cpu")


def test_the_device_is_checked():
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        zoo.load(["identity"], device="gpu")


@pytest.mark.parametrize("mixer", stm_lab.list_mixers())
def test_unit_layer_scale_is_the_model_with_layer_scale_one(mixer):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        asleep = build_model(mixer, "nano")
        torch.manual_seed(3)
        awake = build_model(mixer, "nano", layer_scale=1.0).eval()
    before = {name: value.clone() for name, value in asleep.state_dict().items()}
    assert same(zoo.unit_layer_scale(asleep).eval(), awake)
    assert all(torch.equal(value, before[name]) for name, value in asleep.state_dict().items())


def test_unit_layer_scale_knows_timms_layer_scales_and_takes_models_without():
    on = zoo.unit_layer_scale(timm.create_model("test_convnext"))
    scales = [value for name, value in on.named_parameters() if name.endswith("gamma")]
    assert scales
    assert all((value == 1).all() for value in scales)
    plain = timm.create_model("resnet18", num_classes=3).eval()
    assert same(zoo.unit_layer_scale(plain), plain)
