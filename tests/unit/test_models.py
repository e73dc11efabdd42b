"""What timm expects of a registered family, and what we promise besides; one test per property over all mixers."""

import copy
import importlib
import math
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import timm
import torch
from kinds import KINDS, once, soaked
from timm.models import group_parameters
from timm.optim import create_optimizer_v2

import stm_lab
from stm_lab import UserError, build_model, list_mixers
from stm_lab.designs import Design, original_scales, unified
from stm_lab.mixers import get_mixer
from stm_lab.mixers.registry import DESIGN_FIELDS

MIXERS = list_mixers()
UNIFIED = [f"unified_{mixer}_nano" for mixer in MIXERS]
ORIGINAL = [f"original_{mixer}_nano" for mixer in ("swin", "convnext", "pvt", "pvt_v2")]  # the others are built alike
NAMES = UNIFIED + ORIGINAL
SOME = [f"unified_{mixer}_nano" for mixer in KINDS] + ORIGINAL[:1]  # where the backbone is tested, and not the mixers


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_registry_lists_every_mixer_at_every_scale():
    expected = {f"unified_{m}_{s}" for m in MIXERS for s in stm_lab.list_scales(m)}
    assert set(timm.list_models("unified_*")) >= expected
    assert len(expected) == 8 * 5 + 1  # nano to base for all, large for dcn_v3
    originals = {f"original_{m}_{s}" for m in MIXERS for s in original_scales(m)}
    assert set(timm.list_models("original_*")) >= originals
    assert len(originals) == 6 * 4 + 5 + 2  # nano, tiny, small, base; pvt_v2 micro, too; of dcn_v3 nano and tiny
    assert stm_lab.list_scales() == ["nano", "micro", "tiny", "small", "base", "large"]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "stm_lab.mixers.halo"])
def test_timm_knows_the_models_whatever_is_imported_first(first):
    line = f"import {first or 'timm'}, stm_lab, timm; assert timm.create_model('unified_pooling_nano').num_classes"
    subprocess.run([sys.executable, "-c", line], check=True)


@pytest.mark.slow
def test_timm_knows_a_mixer_that_was_registered_before_it_is_imported(tmp_path):
    (tmp_path / "own.py").write_text(
        "import sys, torch, stm_lab\n@stm_lab.register_mixer('own')\nclass Own(torch.nn.Identity):\n"
        "    def __init__(self, dim): super().__init__()\n"
        "assert 'timm' not in sys.modules\nassert stm_lab.build_model('own', 'nano').num_classes\n"
    )
    subprocess.run([sys.executable, tmp_path / "own.py"], check=True)


def test_importing_the_package_alone_is_quick():
    line = "import sys, stm_lab; assert not {'torch', 'timm', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", line], check=True)


@pytest.mark.parametrize("size", [(1, 1), once((75, 50)), (130, 32)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_forward_at_any_size(name, size):
    model = timm.create_model(name).eval()
    with torch.no_grad():
        assert torch.isfinite(model(images(2, 3, *size))).all()
        height, width = (-(-side // 32) for side in size)
        assert model.forward_features(images(2, 3, *size)).shape == (2, model.num_features, height, width)


@pytest.mark.parametrize("size", [(28, 28), once((75, 50))], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_backward_reaches_every_parameter(name, size):
    model = timm.create_model(name, num_classes=7).train()
    model(images(2, 3, *size)).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("name", SOME)
def test_features_only(name):
    net = timm.create_model(name, features_only=True, out_indices=(0, 2)).eval()
    assert net.feature_info.reduction() == [4, 16]
    maps = net(images(2, 3, 70, 64))
    first, third = net.feature_info.channels()
    assert [tuple(m.shape[1:]) for m in maps] == [(first, 18, 16), (third, 5, 4)]
    assert len(timm.create_model(name, features_only=True)(images(1, 3, 64, 64))) == 4


@pytest.mark.parametrize("feature_cls", ["list", "dict", "hook", "fx", timm.models.FeatureListNet], ids=str)
@pytest.mark.parametrize("name", SOME)
def test_every_feature_class_of_timm_gives_the_same_maps(name, feature_cls):
    nets = []
    for given in ({}, {"feature_cls": feature_cls}):
        torch.manual_seed(0)
        nets.append(timm.create_model(name, features_only=True, out_indices=(0, 2), layer_scale=1.0, **given).eval())
    expected, found = (net(images(2, 3, 70, 64)) for net in nets)
    found = list(found.values()) if isinstance(found, dict) else found
    assert nets[1].feature_info.channels() == [m.shape[1] for m in expected]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", SOME)
def test_device_and_dtype(name):
    """The model of a dtype is the model without one, rounded; on "meta" there are shapes and nothing else."""
    torch.manual_seed(0)
    plain = timm.create_model(name)
    torch.manual_seed(0)
    rounded = timm.create_model(name, device="cpu", dtype=torch.bfloat16)
    for key, tensor in plain.state_dict().items():
        wanted = tensor.bfloat16() if tensor.is_floating_point() else tensor
        torch.testing.assert_close(rounded.state_dict()[key], wanted, rtol=0, atol=0, msg=key)
    out = rounded(images(2, 3, 75, 50).bfloat16())
    assert out.dtype == torch.bfloat16
    assert torch.isfinite(out).all()
    for features in (False, True):
        nowhere = timm.create_model(name, device="meta", dtype=torch.float16, features_only=features).state_dict()
        assert {tensor.device.type for tensor in nowhere.values()} == {"meta"}
        assert {tensor.dtype for tensor in nowhere.values() if tensor.is_floating_point()} == {torch.float16}
    with torch.device("meta"):
        assert build_model("swin", "nano", device="cpu").head.fc.weight.device.type == "cpu"


@pytest.mark.parametrize("name", NAMES)
def test_weights_drawn_late_are_those_of_a_model_built_here(name):
    """Built on "meta", given storage, drawn: under one seed the same tensors, buffers included; again, other ones."""
    late = timm.create_model(name, device="meta", layer_scale=0.5).to_empty(device="cpu")
    for tensor in late.state_dict().values():
        tensor.fill_(7)
    torch.manual_seed(3)
    late.init_weights()
    torch.manual_seed(3)
    here = timm.create_model(name, layer_scale=0.5)
    torch.testing.assert_close(late.state_dict(), here.state_dict(), rtol=0, atol=0)
    late.init_weights()
    assert not torch.equal(late.stem[0].weight, here.stem[0].weight)


def test_weights_that_nothing_draws_are_named(scratch_mixer):
    @stm_lab.register_mixer(scratch_mixer)
    class Scaled(torch.nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return self.gain * x

    model = build_model(scratch_mixer, "nano")
    with pytest.raises(UserError, match=r"stages\.0\.blocks\.0\.mixer \(Scaled\) has weights, but no reset_parameters"):
        model.init_weights()
    Scaled.reset_parameters = lambda self: torch.nn.init.ones_(self.gain)
    model.init_weights()


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", ["unified_swin_nano", "original_convnext_nano"])
def test_what_is_exchanged_is_in_the_models_mode(name, mode):
    """A new classifier and a pruned network: torch's rule is that `model.training` holds for every module in it."""
    model = timm.create_model(name).train(mode)
    for change in (
        lambda: model.reset_classifier(3),
        lambda: model.reset_classifier(0, "max"),
        lambda: model.prune_intermediate_layers([1]),
        lambda: model.reset_classifier(0),
    ):
        change()
        assert {module.training for module in model.modules()} == {mode}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", NAMES)
def test_built_on_cuda(name):
    model = timm.create_model(name, device="cuda", dtype=torch.bfloat16).eval()
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cuda"}
    assert torch.isfinite(model(images(2, 3, 75, 50).to("cuda", torch.bfloat16))).all()


@pytest.mark.parametrize("name", SOME)
def test_intermediates_are_what_forward_computes(name):
    model = timm.create_model(name).eval()
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        last, maps = model.forward_intermediates(x)
        torch.testing.assert_close(last, model.forward_features(x), rtol=0, atol=0)
        torch.testing.assert_close(maps[-1], last, rtol=0, atol=0)
        torch.testing.assert_close(model.forward_head(last), model(x), rtol=0, atol=0)
        (only,) = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
        torch.testing.assert_close(only, maps[1], rtol=0, atol=0)
    assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]


@pytest.mark.parametrize("name", NAMES)
def test_default_cfg_says_the_truth(name):
    model = timm.create_model(name).eval()
    cfg, state = model.default_cfg, model.state_dict()
    assert cfg["first_conv"] + ".weight" in state
    assert cfg["classifier"] + ".weight" in state
    assert model.num_classes == cfg["num_classes"] == 10
    assert model.forward_features(images(1, *cfg["input_size"])).shape[-2:] == cfg["pool_size"]
    assert (cfg["interpolation"], cfg["license"], cfg["paper_ids"]) == ("bicubic", "apache-2.0", "arXiv:2211.05781")
    larger = timm.get_pretrained_cfg(name.replace("nano", "tiny"))
    assert (larger.paper_ids == cfg["paper_ids"]) == name.startswith("unified")
    assert (larger.input_size, larger.pool_size) == ((3, 224, 224), (7, 7))
    assert (larger.crop_pct, larger.num_classes) == (0.875, 1000)


@pytest.mark.parametrize("name", SOME)
def test_classifier(name):
    model = timm.create_model(name, num_classes=5, drop_rate=0.1).eval()
    x = images(2, 3, 64, 64)
    assert model.get_classifier().weight.shape == (5, model.head_hidden_size)
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, model.head_hidden_size)
    wider = 1.5 if model.design.head == "conv" else 1
    assert model.head_hidden_size == int(wider * model.num_features)
    model.reset_classifier(3, "max")
    assert model(x).shape == (2, 3)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(x).shape == (2, model.head_hidden_size, 2, 2)
    assert model.num_classes == 0


@pytest.mark.parametrize("name", SOME)
def test_in_chans_and_img_size_are_accepted(name):
    model = timm.create_model(name, in_chans=1, img_size=(96, 64)).eval()
    assert model(images(1, 1, 96, 64)).shape == (1, 10)
    assert model(images(1, 1, 64, 64)).shape == (1, 10)


@pytest.mark.parametrize("name", SOME)
def test_gradient_checkpointing_changes_nothing(name):
    model = timm.create_model(name).train()
    x, grads = images(2, 3, 64, 64), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("name", SOME)
def test_every_parameter_has_a_depth(name, coarse):
    model = timm.create_model(name)
    groups = group_parameters(model, model.group_matcher(coarse=coarse))
    assert sorted(n for group in groups.values() for n in group) == sorted(n for n, _ in model.named_parameters())
    assert len(groups) >= 5
    head = [i for i, group in groups.items() if "head.fc.weight" in group]
    assert head == [max(groups)]


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_groups(name):
    """By timm's own optimizer factory: no decay on one-dimensional parameters and swin's table, decay on the rest."""
    model = timm.create_model(name)
    names = {id(p): n for n, p in model.named_parameters()}
    optimizer = create_optimizer_v2(model, "adamw", weight_decay=0.05)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            spared = parameter.ndim == 1 or names[id(parameter)].endswith("relative_position_bias_table")
            assert group["weight_decay"] == (0.0 if spared else 0.05), names[id(parameter)]


@pytest.mark.parametrize("name", NAMES)
def test_start_is_as_published(name):
    """Truncated normal 0.02 and zero biases in every convolution and projection, layer scale 1e-6, norms (1, 0)."""
    torch.manual_seed(0)
    drawn, model = [], timm.create_model(name)
    scales = {value.item() for key, parameter in model.named_parameters() if "gamma" in key for value in parameter}
    assert scales == ({np.float32(1e-6).item()} if model.design.layer_scale else set())
    for module_name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            drawn.append(module.weight.detach().flatten())
            assert module.bias is None or not module.bias.any(), module_name
        if isinstance(module, torch.nn.LayerNorm | torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    drawn = torch.cat(drawn)
    assert drawn.std().item() == pytest.approx(0.02, rel=0.01)
    assert drawn.abs().max() <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("name", soaked(NAMES, besides=SOME))
def test_compile_has_no_graph_break(name):
    torch._dynamo.reset()
    model = timm.create_model(name, depths=(1, 2, 1, 1)).eval()  # two blocks, so that swin's shift is there
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = images(2, 3, 75, 50)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
@pytest.mark.parametrize("mixer", soaked(MIXERS, besides=("halo", "dcn_v3")))
def test_inductor_agrees(mixer):
    """A mixer compiled for real gives what it gives when run plainly, on a map that is padded."""
    torch._dynamo.reset()
    module = get_mixer(mixer)(16).eval()
    x = images(1, 9, 6, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(module, fullgraph=True)(x), module(x), atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_agrees_with_cpu(name):
    model = timm.create_model(name).double().eval()
    x = images(2, 3, 75, 50).double()
    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(model.cuda()(x.cuda()).cpu(), wanted, atol=1e-10, rtol=1e-8)
        with torch.autocast("cuda", dtype=torch.float16):
            assert torch.isfinite(model.float()(x.float().cuda())).all()


@pytest.mark.parametrize("name", SOME)
def test_copies_and_pickles(name):
    model = timm.create_model(name).eval()
    x = images(1, 3, 64, 64)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)


def test_a_pruned_model_passes_its_maps_through():
    model = build_model("swin", "nano").eval()
    model.prune_intermediate_layers([1])
    maps = model(images(1, 3, 64, 64))
    assert maps.shape == (1, 32, 8, 8)
    for nothing in ((0,), (0, "")):  # as in timm: it has no classifier already
        model.reset_classifier(*nothing)
        assert torch.equal(model(images(1, 3, 64, 64)), maps)
        assert (model.num_classes, model.head_hidden_size) == (0, 32)
    for head in ((3,), (0, "avg")):
        with pytest.raises(UserError, match="has no head"):
            model.reset_classifier(*head)


@pytest.mark.parametrize("name", ["unified_swin_nano", "original_swin_nano"])  # with a convolution in the head, without
def test_the_heads_width_follows_the_pooling(name):
    """catavgmax puts means and maxima side by side, so that the classifier sees twice as many features."""
    model, x = timm.create_model(name, num_classes=5, global_pool="catavgmax").eval(), images(2, 3, 64, 64)

    def widths():
        features = model.forward_head(model.forward_features(x), pre_logits=True)
        return features.shape[1], model.head_hidden_size, getattr(model.get_classifier(), "in_features", None)

    double = widths()[0]
    assert widths() == (double, double, double)
    for pooling, wide in (("avg", double // 2), ("catavgmax", double), ("max", double // 2)):
        model.reset_classifier(3, pooling)
        assert widths() == (wide, wide, wide)
        assert model(x).shape == (2, 3)
    model.reset_classifier(0, "catavgmax")
    assert widths() == (double, double, None)
    assert model(x).shape == (2, double)


def test_drop_path_grows_through_all_stages():
    model = build_model("convnext", "nano", drop_path_rate=0.3)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.3 * k / 9 for k in range(10)])


@pytest.mark.parametrize("size", [96, (64, 128)], ids=str)
def test_position_embedding_meets_other_sizes_as_if_built_for_them(size):
    """pvt built for 64 and run at another size equals pvt built for that size with the embedding resized on loading."""
    small = build_model("pvt", "nano", img_size=64, layer_scale=1.0).eval()
    other = build_model("pvt", "nano", img_size=size, layer_scale=1.0).eval()
    state = small.state_dict()
    for name, tensor in other.state_dict().items():
        if name.endswith("position_embedding.weight"):
            target = tensor.shape[1:3]
            state[name] = torch.nn.functional.interpolate(
                state[name].permute(0, 3, 1, 2), target, mode="bilinear", align_corners=True
            ).permute(0, 2, 3, 1)
    other.load_state_dict(state)
    x = images(1, 3, *other.design.img_size)
    torch.testing.assert_close(small(x), other(x), rtol=0, atol=1e-6)


def test_design_gives_each_mixer_only_what_its_signature_has():
    assert unified("swin", "micro").mixer_options(2, 3) == {"heads": 4, "window": 7, "shift": 3}
    assert unified("swin", "micro").mixer_options(2, 2)["shift"] == 0
    assert unified("halo", "nano").mixer_options(0, 0) == {"heads": 1, "block": 4, "halo": 2}
    assert unified("pvt", "tiny").mixer_options(1, 0) == {"heads": 2, "reduction": 4}
    assert unified("dcn_v3", "base").mixer_options(3, 0) == {"heads": 56}
    assert unified("identity", "base").mixer_options(3, 0) == {}


def test_overrides():
    model = build_model("swin", "nano", window=8, shift=[0, 4], heads=[1, 1, 2, 4], depths=[1, 2, 1, 1], num_classes=3)
    blocks = [block.mixer for stage in model.stages for block in stage.blocks]
    assert [b.window for b in blocks] == [8] * 5
    assert [b.shift for b in blocks] == [0, 0, 4, 0, 0]
    assert [b.heads for b in blocks] == [1, 1, 1, 2, 4]
    assert build_model("swin", "nano", layer_scale=1).stages[0].blocks[0].gamma1.dtype == torch.float32
    assert build_model("pvt", "nano", reduction=2).stages[3].blocks[0].mixer.reduction == 2
    numbers = {"window": np.int64(8), "img_size": np.int64(96), "drop_path_rate": np.float32(0.1)}
    assert build_model("swin", "nano", **numbers).design.img_size == (96, 96)
    counted = build_model("swin", "nano", depths=np.array([1, 2, 1, 1]).tolist(), dims=tuple(np.array([8, 8, 16, 16])))
    assert counted.design == build_model("swin", "nano", depths=(1, 2, 1, 1), dims=(8, 8, 16, 16)).design
    assert {type(dim) for dim in counted.design.dims} == {int}
    assert build_model("swin", "nano", depths=tuple(np.int64([1, 1, 1, 1]))).design.depths == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: build_model("hallo"), "unknown mixer 'hallo'; did you mean 'halo'"),
        (lambda: build_model("halo", "mikro"), "unknown scale 'mikro'; did you mean 'micro'"),
        (lambda: build_model("halo", "large"), "halo: unknown scale 'large'"),
        (lambda: build_model("halo", design="unifed"), "unknown design 'unifed'; did you mean 'unified'"),
        (lambda: build_model("halo", "nano", blok=4), "unknown option 'blok'; did you mean 'block'"),
        (lambda: build_model("halo", "nano", window=4), "unknown option 'window'"),
        (lambda: build_model("halo", "nano", num_clases=4), "unknown option 'num_clases'; did you mean 'num_classes'"),
        (lambda: timm.create_model("unified_swin_nano", depth=(1, 1, 1, 1)), "did you mean 'depths'"),
        (lambda: build_model("swin", "nano", window=[4, 4]), "takes one value, or four"),
        (lambda: build_model("swin", "nano", depths=(1, 1, 1)), r"depths = \(1, 1, 1\): tuple should have at least 4"),
        (lambda: build_model("swin", "nano", depths=2), "depths = 2: should be a valid tuple"),
        (lambda: build_model("swin", "nano", depths=(True, 1, 1, 1)), r"depths\.0 = True: should be"),
        (lambda: build_model("swin", "nano", mlp_ratios=(4, 4, 4, np.int64(0))), r"mlp_ratios\.3 = 0: should be"),
        (lambda: build_model("swin", "nano", layer_scale=-1.0), r"layer_scale = -1\.0: should be greater"),
        (lambda: build_model("swin", "nano", layer_scale=math.nan), "layer_scale = nan: should be a finite"),
        (lambda: build_model("swin", "nano", norm_eps=-1.0), r"norm_eps = -1\.0: should be greater"),
        (lambda: build_model("swin", "nano", embed_eps=math.nan), "embed_eps = nan: should be a finite"),
        (lambda: build_model("swin", "nano", stage_eps=math.inf), "stage_eps = inf: should be a finite"),
        (lambda: build_model("swin", "nano", num_classes=-1), "num_classes = -1: should be greater"),
        (lambda: build_model("swin", "nano").reset_classifier(-1), "num_classes must be at least 0 .*, not -1"),
        (lambda: build_model("swin", "nano", img_size=(64,)), r"img_size = \(64,\): tuple should have"),
        (lambda: build_model("swin", "nano", shift=[]), "takes one value, or four"),
        (lambda: build_model("convnext", "nano", kernel=4), "kernel=4 must be odd"),
        (lambda: build_model("halo", "nano", block=0), "block=0 must be at least 1"),
        (lambda: build_model("pvt", "nano", reduction=0), "reduction=0 must be at least 1"),
        (lambda: build_model("swin", "nano", img_size=0), r"img_size = 0: should be greater"),
        (lambda: build_model("swin", "nano", drop_path_rate=1.5), r"drop_path_rate = 1\.5: should be less"),
        (lambda: build_model("swin", "nano", global_pool="mean"), "unknown global_pool 'mean'"),
        (lambda: build_model("swin", "nano", global_pool="fast"), "unknown global_pool 'fast'; known: '', avg, avgmax"),
        (lambda: build_model("swin", "nano", global_pool=""), "does not go with global_pool=''"),
        (lambda: build_model("swin", "nano", window="eight"), "window = 'eight': should be a valid integer"),
        (lambda: build_model("swin", "nano", window=8.0), r"window = 8\.0: should be a valid integer"),
        (lambda: build_model("swin", "nano", shift=[0, "a"]), r"shift\.1 = 'a': should be a valid integer"),
        (lambda: build_model("halo", "nano", heads="x"), "heads = 'x': should be a valid integer"),
        (lambda: build_model("swin", "nano", img_size="64"), r"img_size = '64': should be a valid"),
        (lambda: build_model("swin", "nano", img_size=(64, "a")), r"img_size\.1 = 'a': should be"),
        (lambda: build_model("swin", "nano", drop_path_rate="a"), "drop_path_rate = 'a': should be a valid"),
        (lambda: build_model("swin", "nano", drop_rate="a"), "drop_rate = 'a': should be a valid number"),
        (lambda: build_model("swin", "nano", drop_rate=2), "drop_rate = 2: should be less"),
        (lambda: build_model("swin", "nano", layer_scale="x"), "layer_scale = 'x': should be a valid number"),
        (lambda: build_model("swin", "nano", mlp_conv="no"), "mlp_conv = 'no': should be a valid boolean"),
        (lambda: build_model("swin", "nano", num_classes="ten"), "num_classes = 'ten': should be a valid"),
        (lambda: build_model("swin", "nano", num_classes=True), "num_classes = True: should be a valid integer"),
        (lambda: build_model("swin", "nano", in_chans=0), "in_chans = 0: should be greater"),
        (lambda: build_model("swin", "nano", in_chans=-1), "in_chans = -1: should be greater"),
        (lambda: build_model("swin", "nano", device="gpu"), "device='gpu' is not available"),
        (lambda: build_model("swin", "nano", dtype="bfloat16"), "dtype must be a floating point type .* 'bfloat16'"),
        (lambda: build_model("swin", "nano", dtype=torch.int8), "dtype must be a floating point type .* torch.int8"),
        (lambda: build_model("swin", "nano", features_only=True, feature_cls="hok"), "did you mean 'hook'"),
        (lambda: build_model("swin", "nano")(torch.zeros(1, 3, 0, 64)), r"at least 1, not \(1, 3, 0, 64\)"),
        (lambda: build_model("swin", "nano")(torch.zeros(1, 1, 64, 64)), r"images must be \(B, 3, H, W\)"),
        (lambda: build_model("swin", "nano")(torch.zeros(3, 64, 64)), r"images must be \(B, 3, H, W\)"),
    ],
)
def test_bad_input_is_one_clear_line(call, says):
    with pytest.raises(UserError, match=says) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.fixture
def scratch_mixer():
    """A name for a test's own mixer; what the test registers is taken back."""
    yield "scratch"
    from stm_lab.mixers import registry

    registry._mixers.pop("scratch", None)


def test_a_mixer_of_ones_own_is_there_at_once_and_can_be_replaced(scratch_mixer):
    def define(factor):
        @stm_lab.register_mixer(scratch_mixer)
        class Scaled(torch.nn.Module):
            def __init__(self, dim, *, heads=1):
                super().__init__()
                self.heads = heads

            def forward(self, x):
                return factor * x

    define(2.0)
    model = timm.create_model("unified_scratch_nano")
    assert [stage.blocks[0].mixer.heads for stage in model.stages] == [1, 2, 4, 8], "swin's design, by name"
    assert model.design.norm_eps == 1e-6
    scales = ("nano", "micro", "tiny", "small", "base")
    assert {f"unified_scratch_{scale}" for scale in scales} <= set(timm.list_models("unified_*"))
    define(3.0)
    again = build_model("scratch", "nano")
    assert again.stages[0].blocks[0].mixer(torch.ones(1)) == 3
    assert get_mixer("scratch") is type(again.stages[0].blocks[0].mixer)


def test_options_of_ones_own_mixer_are_checked(scratch_mixer):
    """By their annotations; without them by their defaults, where a whole number stands for any number."""

    @stm_lab.register_mixer(scratch_mixer)
    class Own(torch.nn.Module):
        def __init__(self, dim, *, factor: int = 1, part=1, taps: [1, 2] = 1, why=None):
            super().__init__()

        def forward(self, x):
            return x

    build_model(scratch_mixer, "nano", factor=2, part=0.5, taps=2, why="anything")
    for wrong, says in [
        ({"factor": 0.5}, "factor = 0.5: should be a valid integer"),
        ({"part": "x"}, "part = 'x': should be a valid number"),
        ({"part": [1, 1, 1, "x"]}, "stage_options: part.3 = 'x': should be a valid number"),
    ]:
        with pytest.raises(UserError, match=f"design of scratch: {says}"):
            build_model(scratch_mixer, "nano", **wrong)
    Own.__init__.__annotations__["why"] = "not.to.be.found"  # by their defaults again
    build_model(scratch_mixer, "nano", factor=0.5, why="anything")


def test_an_option_of_ones_own_mixer_may_be_a_tuple(scratch_mixer):
    """By its annotation or its default; four of them are one a stage."""

    @stm_lab.register_mixer(scratch_mixer)
    class Own(torch.nn.Module):
        def __init__(self, dim, *, kernel: tuple[int, int] = (3, 3), rates: tuple[float, ...] = (1.0,), size=(1, 1)):
            super().__init__()
            self.kernel, self.rates, self.size = kernel, rates, size

        def forward(self, x):
            return x

    def built(**options):
        return [stage.blocks[0].mixer for stage in build_model(scratch_mixer, "nano", **options).stages]

    assert {mixer.kernel for mixer in built(kernel=[5, 7])} == {(5, 7)}
    assert {mixer.rates for mixer in built(rates=[0.5, 1.0, 2.0, 4.0])} == {(0.5, 1.0, 2.0, 4.0)}
    assert {mixer.size for mixer in built(size=(1, 2, 3, 4))} == {(1, 2, 3, 4)}
    sides = [(1, 1), (3, 3), (5, 5), (7, 7)]
    assert [mixer.kernel for mixer in built(kernel=sides)] == sides
    assert [mixer.size for mixer in built(size=sides)] == sides
    for wrong, says in [((5, 7, 9), "takes one value, or four"), (sides[:3], "takes one value, or four")]:
        with pytest.raises(UserError, match=says):
            built(kernel=wrong)
    with pytest.raises(UserError, match="stage_options: kernel"):
        built(kernel=(1, 3, 5, 7))


@pytest.mark.parametrize("grad_checkpointing", [False, True])
@pytest.mark.parametrize(
    ("broken", "returned"),
    [
        (lambda x: x[..., : x.shape[-1] // 2], "(2, 16, 16, 8)"),
        (lambda x: x.mean(2, keepdim=True), "(2, 16, 1, 16)"),  # would be broadcast
        (lambda x: x.mean((0, 1, 2)), "(16,)"),
        (lambda x: x[:, ::2], "(2, 8, 16, 16)"),
    ],
)
def test_a_mixer_that_changes_the_shape_is_named(scratch_mixer, broken, returned, grad_checkpointing):
    @stm_lab.register_mixer(scratch_mixer)
    class Broken(torch.nn.Module):
        def __init__(self, dim):
            super().__init__()

        def forward(self, x):
            return broken(x)

    model = build_model(scratch_mixer, "nano")
    model.set_grad_checkpointing(grad_checkpointing)
    says = f"mixer 'scratch' returns {returned} for tokens (2, 16, 16, 16); it must keep their shape"
    with pytest.raises(UserError, match=re.escape(says)):
        model(images(2, 3, 64, 64))


def test_every_public_name_is_offered_and_every_room_is_a_module():
    offered = set(dir(stm_lab))
    assert set(stm_lab.__all__) | {"zoo", "data"} <= offered
    for name in ("zoo", "data", "predict", "pixels"):
        assert importlib.import_module(f"stm_lab.{name}") is getattr(stm_lab, name)
    with pytest.raises(AttributeError, match="no attribute 'zo'"):
        stm_lab.zo  # noqa: B018


@pytest.mark.slow
def test_import_touches_no_cuda_no_network_no_file():
    """In a fresh interpreter: no CUDA context, no socket, no file opened for writing, nothing but imports read."""
    code = """
import sys
import torch, timm
def watch(event, args):
    if event.startswith("socket."):
        raise SystemExit(f"network: {event} {args}")
    if event == "open":
        path, mode, flags = args
        if isinstance(mode, str) and set(mode) & set("wax+") and "__pycache__" not in str(path):
            raise SystemExit(f"file written: {path}")
        if isinstance(path, str) and not path.endswith((".py", ".pyc", ".so", ".zip", ".pth")) and "stm_lab" in path:
            raise SystemExit(f"file read: {path}")
sys.addaudithook(watch)
import stm_lab
assert not torch.cuda.is_initialized()
assert not {"datasets", "accelerate", "matplotlib", "IPython"} & set(sys.modules), "import stm_lab stays light"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_names_that_no_option_may_have_are_those_of_designs():
    assert {field.name for field in fields(Design)} == DESIGN_FIELDS


@pytest.mark.parametrize("name", ["taken", "swin"])
@pytest.mark.parametrize("option", ["drop_rate", "in_chans", "depths", "layer_scale", "cache_dir"])
def test_a_mixers_option_must_not_be_one_of_the_model(option, name):
    """It would never reach the mixer."""
    code = f"def __init__(self, dim, *, {option}=1):\n    torch.nn.Module.__init__(self)"
    exec(code, {"torch": torch}, members := {})
    taken = type("Taken", (torch.nn.Module,), members)
    before = get_mixer("swin")
    with pytest.raises(UserError, match=f"mixer '{name}': the option '{option}' is one of the model already"):
        stm_lab.register_mixer(name)(taken)
    assert get_mixer("swin") is before
    assert "taken" not in stm_lab.list_mixers()
    assert not timm.list_models("unified_taken_*")
