"""Weights as people have them, by every way in: all choose, clean and fit them alike, and refuse what is not right."""

import argparse
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models import adapt_input_conv, nfnet
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn

from stm_lab import UserError, build_model, load_published, zoo
from stm_lab.designs import unified
from stm_lab.entrypoints import WEIGHTS
from stm_lab.predict import predict
from stm_lab.published import CheckpointMismatch, kind_of, load_pretrained, read_weights
from stm_lab.train import fit, load_run

FEW = (32, 20)
NAME = "unified_identity_nano"


def overlaid(source, key="file", name=NAME, **options):
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={key: source}, **options)


WAYS = {
    "file of an overlay": lambda path: overlaid(str(path)),
    "state dict of an overlay": lambda path: overlaid(torch.load(path, weights_only=False), "state_dict"),
    "checkpoint_path": lambda path: timm.create_model(NAME, checkpoint_path=str(path)),
    "load_pretrained": lambda path: loaded(build_model("identity", "nano"), path),
    "load_published": lambda path: load_published(build_model("identity", "nano"), path),
    "zoo.load": lambda path: zoo.load(["identity"], path, device="cpu")[0].model,
    "zoo.load by timm's name": lambda path: zoo.load([NAME], path, device="cpu")[0].model,
}


def loaded(model, path):
    model.load_pretrained(path)
    return model


def assert_same(model, state):
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)


def zeroed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


# ---- which weights of a file -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What timm's training script writes with averaging: the averaged weights and, zeroed here, the raw ones."""
    folder = tmp_path_factory.mktemp("saved")
    model = build_model("identity", "nano")
    average = ModelEmaV3(model)
    optimizer = torch.optim.SGD(zeroed(model).parameters(), lr=0.1)
    args = argparse.Namespace(model=NAME, lr=0.1)
    saver = CheckpointSaver(model, optimizer, args, average, checkpoint_dir=str(folder), recovery_dir=str(folder))
    saver.save_checkpoint(1, metric=1.0)
    return folder / "last.pth.tar"


@pytest.mark.parametrize("way", WAYS)
def test_every_way_takes_the_averaged_weights_of_timms_checkpoints(saved, way):
    state = timm.models.load_state_dict(str(saved), use_ema=True)
    assert state["head.fc.weight"].any()
    assert_same(WAYS[way](saved), state)


@pytest.mark.parametrize(("prefix", "keys"), [
    ("", "state_dict"), ("_orig_mod.", "state_dict_ema state_dict"), ("module.", "model_ema state_dict_ema model"),
    ("module._orig_mod.", "model state_dict"), ("_orig_mod.module.", "model_ema"),
])  # fmt: skip
def test_keys_and_prefixes_are_chosen_and_cleaned_as_timm_does(tmp_path, prefix, keys):
    own = build_model("identity", "nano").state_dict()
    parts = {
        key: {prefix + name: value + place for name, value in own.items()} for place, key in enumerate(keys.split())
    }
    torch.save(parts | {"epoch": 3}, tmp_path / "last.pth")
    for use_ema in (True, False) if "state_dict" in parts or "model" in parts else (True,):
        model = load_published(build_model("identity", "nano"), tmp_path / "last.pth", use_ema=use_ema)
        assert_same(model, timm.models.load_state_dict(str(tmp_path / "last.pth"), use_ema=use_ema))


class Compiled(nn.Module):
    """What torch.compile makes of a model, as far as names go; the real one takes ten seconds to import."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


WRAPPERS = [
    Compiled,
    nn.DataParallel,
    *(lambda model, n=n: nn.ModuleDict({n: model}) for n in ("model", "backbone", "net")),
]


def test_weights_of_a_model_in_any_wrappers_load():
    model = build_model("identity", "nano")
    wrapped = model
    for number, wrapper in enumerate(WRAPPERS, 1):
        wrapped = wrapper(wrapped)
        for each in (wrapped, wrapper(WRAPPERS[number % 5](model))):
            given = {"state_dict": each.state_dict(), "hyper_parameters": {"lr": 0.1}}
            assert read_weights(given).keys() == model.state_dict().keys()
    assert_same(overlaid(given, "state_dict"), model.state_dict())


def test_weights_of_wrapped_parts_load_and_two_models_are_refused():
    model = build_model("identity", "nano")
    own = {name.replace("stages.2.", "stages.2._orig_mod."): value for name, value in model.state_dict().items()}
    assert_same(load_published(build_model("identity", "nano"), own), model.state_dict())
    pair = nn.ModuleDict({"model": model, "backbone": build_model("identity", "nano")})
    with pytest.raises(UserError, match=r"holds two models, 'model\.stem\.0\.weight' and 'backbone\.stem\.0\.weight'"):
        load_published(model, pair.state_dict())


# ---- fitted ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "wanted"), [(1, 3), (4, 3), (3, 5), (4, 1), (3, 1), (5, 5)])
def test_any_channels_and_classes_are_adapted_as_timm_does(tmp_path, given, wanted):
    """From a file and from a mapping, with the classifier where the classes are the same, whatever the cfg says."""
    source = build_model("identity", "nano", in_chans=given, num_classes=7).state_dict()
    torch.save(source, tmp_path / "own.pth")
    for key, value in (("file", str(tmp_path / "own.pth")), ("state_dict", {"model": source})):
        model = overlaid(value, key, in_chans=wanted, num_classes=7)
        stem = adapt_input_conv(wanted, source["stem.0.weight"], base_chans=given)
        assert_same(model, source | {"stem.0.weight": stem})
        other = overlaid(value, key, in_chans=wanted, num_classes=2).state_dict()
        assert other.pop("head.fc.weight").shape[0] == other.pop("head.fc.bias").shape[0] == 2
        kept = {name: tensor for name, tensor in model.state_dict().items() if name in other}
        torch.testing.assert_close(dict(other), kept, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mixer", "options"), [("swin", {"window": 6}), ("halo", {"halo": 1}), ("pvt", {"img_size": 96})]
)
def test_a_mapping_is_resized_as_a_file_is(tmp_path, mixer, options):
    source = build_model(mixer, "nano").state_dict()
    torch.save(source, tmp_path / "own.pth")
    name = f"unified_{mixer}_nano"
    by_file = overlaid(str(tmp_path / "own.pth"), name=name, **options).state_dict()
    assert any(by_file[name].shape != source[name].shape for name in source)
    assert_same(overlaid(source, "state_dict", name, **options), by_file)


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mixer", "scale", "of"), [
    ("swin", "tiny", "scale 'tiny'"), ("halo", "small", "mixer 'halo' and scale 'small'"),
    ("convnext", "micro", "mixer 'convnext' and scale 'micro'"), ("swin", "nano", "scale 'nano'"),
])  # fmt: skip
def test_a_mismatch_is_short_names_what_it_looks_like_and_keeps_every_entry(mixer, scale, of):
    with torch.device("meta"):
        theirs = build_model(mixer, scale, num_classes=1000).state_dict()
    model = build_model("swin", "micro")
    theirs = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in theirs.items()}
    for load in (lambda: load_published(model, theirs), lambda: overlaid(theirs, "state_dict", "unified_swin_micro")):
        with pytest.raises(CheckpointMismatch, match=f"looks like one of {of}: ") as error:
            load()
        assert len(str(error.value)) <= 3 * 120
        assert "\n" not in str(error.value)
        ours = model.state_dict()
        assert error.value.missing == sorted(ours.keys() - theirs.keys())
        assert error.value.unexpected == sorted(theirs.keys() - ours.keys())
        first = error.value.missing or error.value.unexpected or error.value.misshapen
        assert f"({', '.join(first[:3])}, ...)" in str(error.value)


def test_a_file_of_no_scale_says_which_is_nearest(tmp_path):
    for depths, nearest in (((2, 2, 9, 3), "micro"), ((2, 2, 5, 2), "nano")):
        dims = build_model("swin", nearest).design.dims
        torch.save(build_model("swin", nearest, depths=depths).state_dict(), tmp_path / "own.pth")
        with pytest.raises(UserError, match=rf"widths \({dims[0]}, .*depths \(2, 2, .* nearest to scale '{nearest}'"):
            zoo.load(None, tmp_path / "own.pth", device="cpu")[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["swin", "test_resnet"])
def test_weights_that_are_not_finite_are_refused(tmp_path, name, value):
    model = build_model("swin", "nano") if name == "swin" else timm.create_model(name)
    weight = next(name for name, tensor in model.named_parameters() if tensor.ndim == 4)
    with torch.no_grad():
        model.get_parameter(weight).view(-1)[5] = value
    torch.save(model.half().state_dict(), tmp_path / "own.pth")
    with pytest.raises(UserError, match=rf"own\.pth holds weights that are NaN or infinite \({weight}\)"):
        zoo.load([name], tmp_path / "own.pth", device="cpu")


def test_predict_refuses_weights_that_are_not_finite(tmp_path):
    state = build_model("swin", "nano", pretrained=True).state_dict()
    state["head.fc.bias"][3] = float("nan")
    safetensors.torch.save_file(state, tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="NaN or infinite"):
        predict(_image(tmp_path), tmp_path / "own.safetensors", device="cpu")


def _image(folder):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(folder / "black.png")
    return folder / "black.png"


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "ckpt"])
def test_a_pointer_of_git_lfs_is_called_that(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 12345\n")
    for load in (lambda: overlaid(str(path)), lambda: zoo.load([NAME], path), lambda: zoo.load(None, path)):
        with pytest.raises(UserError, match=r"is a pointer of git-LFS .* by 'git lfs pull'$"):
            load()


# ---- beside the weights ----------------------------------------------------------------------------------------------

NUMBERS = [np.dtype(code).type(1) for code in "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]]


@pytest.mark.parametrize("core", [b"numpy._core.", b"numpy.core."])
def test_numbers_of_numpy_beside_weights_are_read(tmp_path, core):
    """Of every type, also as numpy 1 wrote them, whose module had another name."""
    model, path = build_model("identity", "nano"), tmp_path / "last.pth"
    torch.save({"model": model.state_dict(), "best": NUMBERS}, tmp_path / "written.pth")
    with zipfile.ZipFile(tmp_path / "written.pth") as written, zipfile.ZipFile(path, "w") as file:
        for entry in written.namelist():
            file.writestr(entry, written.read(entry).replace(b"numpy._core.", core))
    assert core in path.read_bytes()
    assert_same(overlaid(str(path)), model.state_dict())


@pytest.mark.parametrize("value", [np.zeros(2, object), np.dtype("O"), np.random.default_rng(0)], ids=type)
def test_what_can_hold_objects_or_code_is_refused(tmp_path, value):
    torch.save({"model": build_model("identity", "nano").state_dict(), "best": value}, tmp_path / "last.pth")
    with pytest.raises(UserError, match="is refused"):
        overlaid(str(tmp_path / "last.pth"))


# ---- files of ours say what they are ---------------------------------------------------------------------------------

SHIPPED = sorted(path.name.split("_nano")[0].removeprefix("unified_") for path in WEIGHTS.glob("*.safetensors"))


@pytest.mark.slow
def test_the_package_knows_its_own_files():
    """Also those whose parameters have the same names and shapes, such as identity and pooling."""
    assert len(SHIPPED) == 8
    pair = ["pooling", "identity"]
    assert [subject.name for subject in zoo.load(pair, WEIGHTS, device="cpu")] == pair
    for mixer in SHIPPED:
        path = WEIGHTS / f"unified_{mixer}_nano.shapes.safetensors"
        subject = zoo.load(None, path, device="cpu")[0]
        assert subject.model.design.mixer == subject.name == mixer
        assert subject.knows("shapes")
        state = safetensors.torch.load_file(path).items()
        assert_same(
            subject.model, {name: value.to(torch.float32 if value.ndim else value.dtype) for name, value in state}
        )
        other = "pooling" if mixer != "pooling" else "identity"
        with pytest.raises(UserError, match=f"weights of unified_{mixer}_nano, not of unified_{other}_nano"):
            zoo.load([other], path)


@pytest.mark.parametrize(("mixer", "options"), [
    ("pooling", {"depths": [1, 2, 1, 1]}), ("swin", {"window": 2, "shift": [0, 1], "design": "original"}),
])  # fmt: skip
def test_a_trained_file_needs_no_folder(few, tmp_path, mixer, options):
    """Its options change what it answers even where no shape tells."""
    run = fit({"recipe": few, "epochs": 1, "batch_size": 16, "warmup_epochs": 0, "device": "cpu", "image_size": 32},
              mixer=mixer, model_options=options, crop_pct=0.75, out=str(tmp_path / "run")).run_dir  # fmt: skip
    (tmp_path / "mine.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    subject, trained = zoo.load(None, tmp_path / "mine.safetensors", device="cpu")[0], load_run(run)
    assert (subject.view().image_size, subject.view().crop_pct) == (32, 0.75)
    assert subject.model.design == trained.design
    assert_same(subject.model, trained.state_dict())
    again = zoo.load([subject.name], tmp_path / "mine.safetensors", device="cpu")[0]
    assert_same(again.model, trained.state_dict())


def test_a_file_of_a_mixer_that_is_not_registered_says_so(tmp_path):
    state = build_model("identity", "nano").state_dict()
    safetensors.torch.save_file(state, tmp_path / "x.safetensors", {"architecture": "unified_shift_nano"})
    with pytest.raises(UserError, match="weights of 'unified_shift_nano', which is not registered here"):
        zoo.load(None, tmp_path / "x.safetensors", device="cpu")[0]


@pytest.mark.parametrize(("facts", "says"), [
    ({"model_args": '{"checkpoint_path": "x"}'}, "unknown option 'checkpoint_path'"),
    ({"model_args": '{"pretrained_cfg_overlay": {"url": "http://a.test/x"}}'}, "unknown option 'pretrained_cfg_over"),
    ({"model_args": "[3]"}, "metadata that cannot be read"), ({"model_args": "{"}, "metadata that cannot be read"),
    ({"image_size": "large"}, "metadata that cannot be read"),
    ({"architecture": "unified_identity_huge"}, "is not registered here"),
    ({"model_args": '{"depths": [3, 2, 4, 2]}'}, "does not fit"),
])  # fmt: skip
def test_metadata_of_a_file_build_a_model_of_ours_or_are_refused(tmp_path, facts, says):
    state, path = build_model("identity", "nano").state_dict(), tmp_path / "x.safetensors"
    safetensors.torch.save_file(state, path, {"architecture": NAME} | facts)
    with pytest.raises(UserError, match=says) as error:
        zoo.load(None, path, device="cpu")[0]
    assert "\n" not in str(error.value)


# ---- layer scales ----------------------------------------------------------------------------------------------------

SCALED = {  # timm's models, and the value that their layer scales begin with: given here, or timm's own
    "test_convnext": ({}, 1e-6),
    "edgenext_xx_small": ({}, 1e-6),
    "inception_next_atto": ({}, 1e-6),
    "poolformer_s12": ({}, 1e-5),
    "test_vit": ({"init_values": 1e-5}, 1e-5),
    "cait_xxs24_224": ({"init_values": 1e-3, "depth": 2}, 1e-3),
    "xcit_nano_12_p16_224": ({"eta": 1e-3}, 1e-3),
    "resmlp_12_224": ({}, 1e-4),
    "fastvit_t8": ({"layer_scale_init_value": 1e-3}, 1e-3),
    "swiftformer_xs": ({"layer_scale_init_value": 1e-3}, 1e-3),
    "fasternet_t0": ({"layer_scale_init_value": 1e-3}, 1e-3),
    "iformer_t": ({"layer_scale_init_value": 1e-3}, 1e-3),
    "skipinit": (None, 0),
}


@torch.no_grad()
@pytest.mark.parametrize("name", SCALED)
def test_unit_layer_scale_sets_every_layer_scale_of_timm_and_no_other(name):
    options, start = SCALED[name]
    if options is None:  # SkipInit's gains (De and Smith 2020), one number a block
        model = nfnet.NormFreeNet(replace(nfnet.model_cfgs["test_nfnet"], skipinit=True), num_classes=3)
        scales = {name for name, parameter in model.named_parameters() if parameter.ndim == 0}
    else:
        model = timm.create_model(name, **options)
        start = torch.tensor(start)
        scales = {name for name, parameter in model.named_parameters() if (parameter == start).all()}
        of_timm = [
            place for place, part in model.named_modules() if type(part).__name__ in ("LayerScale", "LayerScale2d")
        ]
        scales |= {f"{place}.gamma" for place in of_timm}
    assert scales
    for parameter in model.parameters():
        parameter.fill_(0.5)
    on = dict(zoo.unit_layer_scale(model).named_parameters())
    assert {name for name, parameter in on.items() if (parameter == 1).all()} == scales
    assert all((parameter == 0.5).all() for name, parameter in on.items() if name not in scales)


def test_a_table_of_no_square_length_is_a_mismatch():
    model = build_model("swin", "nano")
    weights = model.state_dict()
    name = next(name for name in weights if name.endswith("relative_position_bias_table"))
    weights[name] = torch.zeros(len(weights[name]) + 1, weights[name].shape[1])
    with pytest.raises(CheckpointMismatch):
        load_published(model, weights)


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (1, 0, 1, 8)], ids=str)
@pytest.mark.parametrize("mixer", ["halo", "pvt", "swin"])  # whose tables and embeddings are resized
def test_an_entry_without_sides_or_numbers_is_a_mismatch(mixer, shape, tmp_path):
    """Whichever it is, by every way in."""
    model, path = build_model(mixer, "nano"), tmp_path / "odd.safetensors"
    own = {name: tensor for name, tensor in model.state_dict().items() if tensor.ndim}
    for name in [name for name in own if not name.startswith(("stages.1", "stages.2", "stages.3.blocks.1"))]:
        odd = model.state_dict() | {name: torch.zeros(shape)}
        with pytest.raises(CheckpointMismatch, match="1 misshapen") as error:
            load_published(model, odd)
        assert error.value.misshapen == [f"{name}: {shape} for {tuple(own[name].shape)}"]
        safetensors.torch.save_file(odd, path)
        kind_of(path)
        with pytest.raises(CheckpointMismatch, match="misshapen"):
            load_pretrained(model, path)


def test_keys_that_are_no_names_are_refused():
    with pytest.raises(UserError, match="the key 0 is not a name"):
        read_weights({0: torch.zeros(2)})


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(2)}, path)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(torch, "load", denied)
    with pytest.raises(UserError, match=r"weights.pth cannot be read: Permission denied"):
        read_weights(path)


def test_a_design_of_ones_own_takes_weights_and_classes_by_its_cfg():
    design = unified("swin", "nano").override(depths=(1, 1, 1, 1))
    same = build_model("swin", "nano", depths=(1, 1, 1, 1), num_classes=7)
    given = {"state_dict": same.state_dict(), "num_classes": 7}
    for words in ({"pretrained_cfg": given}, {"pretrained_cfg_overlay": given}):
        model = build_model("swin", "nano", design=design, pretrained=True, **words)
        assert model.num_classes == 7
        assert all(torch.equal(model.state_dict()[name], value) for name, value in same.state_dict().items())
    with pytest.raises(UserError, match="trained weights of the unified design only"):
        build_model("swin", "nano", design=design, pretrained=True)


@pytest.mark.slow
def test_all_models_of_a_folder_of_files():
    loaded = zoo.load(None, WEIGHTS, device="cpu")
    assert len(loaded) == len(list(WEIGHTS.glob("*.safetensors")))
