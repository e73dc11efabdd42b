"""Originals against timm's own models, weight for weight, and the steps from there to the unified networks."""

import copy
import inspect
import pickle
import re
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from torch import nn

import stm_lab
from stm_lab import UserError, build_model, list_mixers, measure, train, zoo
from stm_lab.backbone import UnifiedBackbone
from stm_lab.designs import (
    CORNERS,
    Design,
    corners,
    original,
    original_facts,
    original_scales,
    step_names,
    steps,
    unified,
)
from stm_lab.layers import PARTS
from stm_lab.mixers.registry import MODEL_ARGS

MIXERS = list_mixers()
WITH_ORIGINAL = [(mixer, scale) for mixer in MIXERS for scale in original_scales(mixer) if scale != "nano"]
PUBLISHED = ["swin", "convnext", "pvt", "pvt_v2", "dcn_v3"]

# timm's name -> ours, applied in turn
NAMES = {
    "swin": [
        (r"^patch_embed\.proj\.", "stem.0."),
        (r"^patch_embed\.norm\.", "stem.1."),
        (r"^layers\.(\d)\.downsample\.norm\.", r"stages.\1.downsample.1."),
        (r"^layers\.(\d)\.downsample\.reduction\.", r"stages.\1.downsample.2."),
        (r"^layers\.", "stages."),
        (r"\.attn\.", ".mixer."),
        (r"^norm\.", "stages.3.norm."),
    ],
    "convnext": [
        (r"^stem\.", "stem."),
        (r"\.conv_dw\.", ".mixer.dwconv."),
        (r"\.norm\.", ".norm2."),
        (r"\.gamma$", ".gamma2"),
        (r"^head\.norm2\.", "head.norm."),
    ],
    "pvt_v2": [
        (r"^patch_embed\.proj\.", "stem.0."),
        (r"^patch_embed\.norm\.", "stem.1."),
        (r"\.downsample\.proj\.", ".downsample.0."),
        (r"\.downsample\.norm\.", ".downsample.1."),
        (r"\.attn\.sr\.", ".mixer.reduce."),
        (r"\.attn\.", ".mixer."),
        (r"\.mlp\.dwconv\.", ".mlp.conv."),
        (r"^head\.", "head.fc."),
    ],
}


def by_our_names(mixer: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in state.items():
        for pattern, ours in NAMES[mixer]:
            name = re.sub(pattern, ours, name)
        found[name] = tensor
    return found


def timms(mixer: str, scale: str, image: int = 224) -> nn.Module:
    """timm's model with weights that nothing hides behind: norms, biases, tables and layer scale are random, too."""
    torch.manual_seed(0)
    sized = {"img_size": image} if mixer == "swin" else {}
    model = timm.create_model(original_facts(mixer, scale).timm, **sized).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "table" in name:
                spread = 0.1 * torch.randn_like(parameter)
                parameter.copy_(spread + (1 if name.endswith("norm.weight") or "gamma" in name else 0))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("mixer", "scale"), [("swin", "tiny"), ("convnext", "tiny"), ("pvt_v2", "micro")])
def test_original_is_timms_model_weight_for_weight(mixer, scale):
    """Logits and maps in float64, with timm's weights under our names: the same network, computed independently."""
    theirs = timms(mixer, scale)
    ours = build_model(mixer, scale, design="original").double().eval()
    ours.load_state_dict(by_our_names(mixer, theirs.state_dict()))  # strict
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        wanted = theirs(x)
        assert wanted.std() > 1e-3, "a network that answers the same to everything would prove nothing"
        torch.testing.assert_close(ours(x), wanted, atol=1e-10, rtol=1e-8)
        torch.testing.assert_close(
            ours.forward_features(x), channels_first(theirs.forward_features(x), ours.num_features)
        )
        maps = ours.forward_intermediates(x, indices=[0, 1, 2], intermediates_only=True)
        theirs_maps = theirs.forward_intermediates(x, indices=[0, 1, 2], intermediates_only=True)
        torch.testing.assert_close(maps, [m.contiguous() for m in theirs_maps], atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("window", [3, 6, 9])
def test_swins_shift_follows_its_window_as_in_timm(window):
    """Logits of timm's network built for that window, with its weights; the same by stage, and not if it is given."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "num_classes": 10}
    side = 32 * window  # whole windows in every stage, one in the last
    theirs = timm.models.SwinTransformer(img_size=side, window_size=window, **sizes).double().eval()
    ours = build_model("swin", "nano", design="original", window=window, depths=(2, 2, 2, 2)).double().eval()
    ours.load_state_dict(by_our_names("swin", theirs.state_dict()))
    x = torch.randn(1, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-10, rtol=1e-8)
    shifts = [block.mixer.shift for block in ours.stages[0].blocks]
    assert shifts == [block.shift_size[0] for block in theirs.layers[0].blocks] == [0, window // 2]
    by_stage = unified("swin", "nano").override(window=[window, 14, 4, 9])
    assert [by_stage.mixer_options(stage, 1)["shift"] for stage in range(4)] == [window // 2, 7, 2, 4]
    assert unified("swin", "nano").override(window=window, shift=1).mixer_options(0, 0)["shift"] == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"options": {"windw": 8}}, "unknown option 'windw'; did you mean 'window'"),
        ({"options": {"window": 8.5}}, r"window = 8\.5: should be a valid integer"),
        ({"options": {"window": True}}, "window = True: should be a valid integer"),
        ({"options": 3}, "options = 3: should be a valid dictionary"),
        ({"stage_options": {"heads": (1, 2)}}, "stage_options: heads = .*: tuple should have at least 4 items"),
        ({"stage_options": {"heads": (1, 2, 4, "8")}}, r"stage_options: heads\.3 = '8': should be"),
        ({"block_options": {"shift": ()}}, "block_options: shift = .*: tuple should have at least 1 item"),
        ({"mixer": "swim"}, "unknown mixer 'swim'; did you mean 'swin'"),
        ({"branches": True}, "branches = True: should be a valid integer"),
        ({"mlp_conv": 1}, "mlp_conv = 1: should be a valid boolean"),
        ({"dims": (8, 8, 16)}, "dims = .*: tuple should have at least 4 items"),
    ],
)
def test_a_design_is_checked_when_it_is_made(wrong, says):
    with pytest.raises(UserError, match=says) as error:
        replace(unified("swin", "nano"), **wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mixer", MIXERS)
def test_equal_designs_have_equal_hashes(mixer):
    """Python's contract of `__hash__`: also of copies, pickles, and of NumPy's numbers and lists that say the same."""
    design = unified(mixer, "nano")
    numpys = replace(design, dims=list(np.array(design.dims)), img_size=np.int64(64), layer_scale=np.float64(1e-6))
    for same in (replace(design), copy.deepcopy(design), pickle.loads(pickle.dumps(design)), numpys):
        assert (same, hash(same)) == (design, hash(design))
    assert {type(dim) for dim in numpys.dims} == {int}
    designs_of_all = {unified(each, scale) for each in MIXERS for scale in ("nano", "tiny")}
    assert len(designs_of_all) == 2 * len(MIXERS)
    assert design in designs_of_all


def test_swins_odd_maps_are_padded_as_timm_does():
    """Patches and merges that do not come out even, with zeros at the bottom and right."""
    theirs = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)).double()
    theirs.patch_embed.strict_img_size, theirs.patch_embed.dynamic_img_pad = False, True
    ours = build_model("swin", "tiny", design="original", depths=(1, 1, 1, 1)).double()
    ours.load_state_dict(by_our_names("swin", theirs.state_dict()))
    x = torch.randn(1, 3, 61, 50, dtype=torch.float64)
    stem = theirs.patch_embed(x)
    torch.testing.assert_close(ours.stem(x), channels_first(stem, 96), atol=1e-12, rtol=0)
    merged = theirs.layers[1].downsample(stem[:, :, :11])  # 16x11 tokens
    torch.testing.assert_close(ours.stages[1].downsample(stem[:, :, :11]), merged, atol=1e-12, rtol=0)


def channels_first(x: torch.Tensor, channels: int) -> torch.Tensor:
    return x if x.shape[1] == channels else x.permute(0, 3, 1, 2)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("mixer", "scale"), WITH_ORIGINAL)
def test_parameters_are_those_of_the_published_network(mixer, scale):
    """timm's to the last one; else the paper's number, to the digits that it prints."""
    facts = original_facts(mixer, scale)
    with torch.device("meta"):
        ours = parameters(build_model(mixer, scale, design="original", num_classes=1000))
        if facts.timm is not None:
            assert ours == parameters(timm.create_model(facts.timm))
    if mixer in PUBLISHED and facts.name != "PVT v2 b0":  # of which the paper prints another number than its code has
        digits = 1 if isinstance(facts.parameters, float) else 0
        assert round(ours / 1e6, digits) == facts.parameters
    assert bool(facts.note) == (mixer not in ("swin", "convnext") and not (mixer == "pvt_v2" and scale != "micro"))


@pytest.mark.parametrize(
    ("mixer", "scale", "millions"),
    [
        ("swin", "tiny", 28.288354),
        ("convnext", "tiny", 28.589128),
        ("pvt_v2", "micro", 3.66676),
        ("pvt", "tiny", 24.48484),
    ],
)
def test_the_papers_four_originals_to_the_last_weight(mixer, scale, millions):
    """As published: timm's cards of the first three; of PVT-Small without the class token and its position."""
    with torch.device("meta"):
        assert parameters(build_model(mixer, scale, design="original", num_classes=1000)) == round(millions * 1e6)


@pytest.mark.parametrize(("scale", "millions"), [("tiny", 24.5), ("small", 44.2), ("base", 61.4)])
def test_parameters_of_pvt_by_hand(scale, millions):
    """Wang et al. 2021, table 1, layer by layer; what the paper's has besides is a class token and its position."""
    depths = {"tiny": (3, 4, 6, 3), "small": (3, 4, 18, 3), "base": (3, 8, 27, 3)}[scale]
    total, before = 2 * 512 + 512 * 1000 + 1000, 3  # last norm, classifier
    for c, patch, side, ratio, reduction, depth in zip(
        (64, 128, 320, 512), (4, 2, 2, 2), (56, 28, 14, 7), (8, 8, 4, 4), (8, 4, 2, 1), depths, strict=True
    ):
        total += before * patch**2 * c + c + 2 * c + side**2 * c  # patches, norm, positions
        attention = 4 * (c * c + c) + (reduction**2 * c * c + c + 2 * c if reduction > 1 else 0)
        total += depth * (4 * c + attention + 2 * ratio * c * c + ratio * c + c)
        before = c
    with torch.device("meta"):
        assert parameters(build_model("pvt", scale, design="original", num_classes=1000)) == total
    assert round((total + 2 * 512) / 1e6, 1) == millions


@pytest.mark.parametrize("mixer", [mixer for mixer in MIXERS if mixer not in PUBLISHED or mixer == "dcn_v3"])
def test_a_stand_in_is_called_the_nearest(mixer):
    facts = original_facts(mixer, "tiny")
    assert "nearest published network" in facts.note
    assert facts.timm is None
    assert facts.name == ("InternImage-T" if mixer == "dcn_v3" else "Swin-T")


@pytest.mark.parametrize("mixer", ["swin", "convnext"])
def test_layer_scale_is_an_option_of_any_design(mixer):
    """0 has no parameters, and gives what a scale of 1 gives."""
    scaled = build_model(mixer, "nano", design="original", layer_scale=1.0).eval()
    plain = build_model(mixer, "nano", design="original", layer_scale=0).eval()
    branches, design = scaled.design.branches, scaled.design
    scales = sum(branches * depth * dim for depth, dim in zip(design.depths, design.dims, strict=True))
    assert parameters(scaled) - parameters(plain) == scales
    plain.load_state_dict({name: t for name, t in scaled.state_dict().items() if "gamma" not in name})
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(plain(x), scaled(x), rtol=0, atol=0)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("scale", ["nano", "tiny"])
@pytest.mark.parametrize("reverse", [False, True])
def test_steps_lead_from_the_original_to_the_unified_design(mixer, scale, reverse):
    taken = steps(mixer, scale, reverse=reverse)
    assert (taken[0].name, taken[0].level, taken[0].design) == ("original", None, original(mixer, scale))
    assert taken[-1].design == unified(mixer, scale)
    names = [step.name for step in taken[1:]]
    assert (names[::-1] if reverse else names) == step_names(mixer, scale)
    for last, step in pairwise(taken):
        assert step.before, f"{step.name} changes something"
        assert last.design.override(**step.after) == step.design, f"{step.name} changes that, and nothing else"
        assert step.design.override(**step.before) == last.design
        assert taken[0].design.override(**step.options) == step.design


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_step_touches_its_own_part_of_the_model_alone(mixer):
    """By names and shapes of the parameters: what is in another part stays as it was."""
    where = {
        "stem": r"^stem\.",
        "downsampling": r"\.downsample\.",
        "stage norms": r"^stages\.\d\.norm\.",
        "head": r"^head\.",
        "branches": r"\.blocks\.\d+\.(norm1|gamma1)",
        "projections": r"\.mixer\.proj_",
        "layer scale": r"\.gamma[12]$",
        "norm eps": r"^$",
        "depths": r"\.blocks\.",
    }
    with torch.device("meta"):
        for last, step in pairwise(steps(mixer, "tiny")):
            before, after = (
                {
                    (name, tuple(p.shape))
                    for name, p in build_model(mixer, "tiny", design=each.design).named_parameters()
                }
                for each in (last, step)
            )
            for name, _ in before ^ after:
                assert re.search(where[step.name], name), f"{step.name} changed {name}"


def test_steps_of_one_level_and_in_any_order():
    assert step_names("swin", level="network") == ["stem", "downsampling", "stage norms", "head"]
    assert step_names("convnext", level="block") == ["branches", "projections"]
    assert step_names("convnext", level="size") == ["depths"]
    assert step_names("dcn_v3") == ["layer scale", "norm eps"], "its original is where the unified network comes from"
    some = steps("swin", order=["head", "stem"])
    assert [step.name for step in some] == ["original", "head", "stem"]
    assert some[-1].design == replace(original("swin", "tiny"), head="conv", stem="convs")
    assert [step.name for step in steps("swin", order=["head", "stem"], reverse=True)] == ["original", "stem", "head"]


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("scale", ["nano", "tiny"])
def test_corners_lie_on_both_ways_from_the_original_to_the_unified_design(mixer, scale):
    four = corners(mixer, scale)
    assert tuple(four) == CORNERS
    assert four["original"].design == original(mixer, scale)
    assert four["unified"].design == unified(mixer, scale)
    network = step_names(mixer, scale, level="network")
    rest = [name for name in step_names(mixer, scale) if name not in network]
    assert four["network"].design == steps(mixer, scale, order=[*network, *rest])[len(network)].design
    assert four["block"].design == steps(mixer, scale, order=[*rest, *network])[len(rest)].design
    for step in four.values():
        assert original(mixer, scale).override(**step.options) == step.design


def test_a_step_says_its_change_in_one_line():
    start, stem, downsampling = steps("swin", "nano", order=["stem", "downsampling"])
    assert (start.change, stem.change) == ("", "stem: patches -> convs")
    assert downsampling.change == "downsample: merge -> conv"


@pytest.mark.parametrize("mixer", ["swin", "convnext", "pvt", "pvt_v2"])
def test_parameters_of_the_steps_add_up_in_any_order(mixer):
    """Parts that share no parameters: what a step costs does not depend on when it is taken - but where depth and
    block both change, or norms and layer scale of blocks that come or go."""
    independent = [
        name for name in step_names(mixer) if name not in ("depths", "branches", "projections", "layer scale")
    ]

    def gains(order):
        with torch.device("meta"):
            walk = steps(mixer, order=order)
            counts = [parameters(build_model(mixer, step.scale, design=step.design)) for step in walk]
        return {name: after - before for name, before, after in zip(order, counts, counts[1:], strict=False)}

    assert gains(independent) == gains(independent[::-1])


@pytest.mark.parametrize("mixer", ["swin", "convnext", "pvt", "pvt_v2"])
def test_macs_of_the_original_by_formula(mixer):
    """Stem, downsampling, MLPs and head by hand, the mixers by their own formula: torch's counter agrees."""
    model = build_model(mixer, "tiny", design="original")
    design, side, total = model.design, 56, 0
    kernel = {"patches": 4, "overlap": 7}[design.stem]
    total += side**2 * kernel**2 * 3 * design.dims[0]
    taps = {"merge": 4, "norm_conv": 4, "patches": 4, "overlap": 9}[design.downsample]
    for i, stage in enumerate(model.stages):
        dim, side = design.dims[i], 56 // 2**i
        total += side**2 * taps * design.dims[i - 1] * dim if i else 0
        hidden = dim * design.mlp_ratios[i]
        for block in stage.blocks:
            total += block.mixer.macs(side, side) + side**2 * (
                2 * dim * hidden + (9 * hidden if design.mlp_conv else 0)
            )
    total += design.dims[-1] * 1000
    assert measure.cost(model).macs == total


def test_a_mixer_of_ones_own_gets_swins_original():
    try:

        @stm_lab.register_mixer("scratch")
        class Scratch(nn.Module):
            def __init__(self, dim, *, window=1):
                super().__init__()
                self.window = window

            def forward(self, x):
                return x

        model = timm.create_model("original_scratch_nano")
        assert model.design == replace(original("swin", "nano"), mixer="scratch")
        assert model.stages[0].blocks[0].mixer.window == 4
    finally:
        from stm_lab.mixers import registry

        registry._mixers.pop("scratch", None)


def test_the_arguments_of_the_model_are_known_to_its_designs():
    assert MODEL_ARGS | {"design"} == set(inspect.signature(UnifiedBackbone).parameters)


def test_the_unified_network_has_the_first_of_the_parts():
    defaults = {field.name: field.default for field in fields(Design)}
    assert {name: next(iter(words)) for name, words in PARTS.items()} == {name: defaults[name] for name in PARTS}


def test_a_design_cannot_be_changed_from_outside():
    options = {"window": 4}
    design = replace(unified("swin", "nano"), options=options)
    options["window"] = 5
    assert design.options == {"window": 4}
    with pytest.raises(TypeError):
        design.options["window"] = 6


@pytest.mark.parametrize("name", PARTS)
def test_any_word_goes_with_any_network(name):
    """Designs mix freely: each choice in the unified and in the original network, at an odd size."""
    x = torch.randn(2, 3, 45, 70)
    for network in ("unified", "original"):
        for choice in PARTS[name]:
            model = build_model("swin", "nano", design=network, **{name: choice}).eval()
            assert getattr(model.design, name) == choice
            assert model.forward_features(x).shape == (2, 128, 2, 3)
            assert torch.isfinite(model(x)).all()


def test_a_design_is_built_under_the_name_that_it_has():
    last = steps("swin", "nano")
    assert build_model("swin", "nano", design=last[0].design).pretrained_cfg["architecture"] == "original_swin_nano"
    assert build_model("swin", "nano", design=last[-1].design).pretrained_cfg["architecture"] == "unified_swin_nano"
    between = build_model("swin", "nano", design=last[2].design, num_classes=3)
    assert between.pretrained_cfg["architecture"] == "swin_nano"
    assert not between.pretrained_cfg.get("file")
    assert between.num_classes == 3
    torch.manual_seed(0)
    one = build_model("swin", "nano", design=last[2].design)
    torch.manual_seed(0)
    other = build_model("swin", "nano", design="original", **last[2].options)
    assert one.design == other.design
    assert copy.deepcopy(one.state_dict()).keys() == other.state_dict().keys()
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    pretrained = build_model("swin", "nano", design=unified("swin", "nano"), pretrained=True)
    torch.testing.assert_close(pretrained.state_dict(), build_model("swin", "nano", pretrained=True).state_dict())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: build_model("swin", "micro", design="original"), "swin, original: unknown scale 'micro'"),
        (lambda: build_model("swin", "nano", design="orignal"), "unknown design 'orignal'; did you mean 'original'"),
        (lambda: build_model("swin", "nano", stem="patch"), "unknown stem 'patch'; did you mean 'patches'"),
        (lambda: build_model("swin", "nano", branches=3), "unknown branches 3; known: 1, 2"),
        (lambda: build_model("swin", "nano", branches="one"), "branches = 'one': should be a valid integer"),
        (lambda: build_model("swin", "nano", head=2), "head = 2: should be a valid string"),
        (lambda: build_model("halo", "nano", design=unified("swin", "nano")), "'halo': the design .* is one of 'swin'"),
        (
            lambda: build_model("swin", "nano", design=steps("swin", "nano")[1].design, pretrained=True),
            "trained weights of the unified design only",
        ),
        (lambda: build_model("swin", "nano", design="original", pretrained=True), "there are no trained weights of it"),
        (lambda: steps("swin", order=["stems"]), "swin, tiny: unknown step 'stems'; did you mean 'stem'"),
        (lambda: steps("swin", order=["stem", "stem"]), "the step 'stem' is named twice"),
        (lambda: steps("swin", order=["depths"]), "unknown step 'depths'"),
        (lambda: steps("swn"), "unknown mixer 'swn'; did you mean 'swin'"),
        (lambda: steps("swin", "micro"), "original design: unknown scale 'micro'"),
        (lambda: step_names("swin", level="blok"), "unknown level 'blok'; did you mean 'block'"),
        (
            lambda: build_model("convnext", "nano", design="original", global_pool="catavgmax"),
            "global_pool='catavgmax' doubles the width",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call, says):
    with pytest.raises(UserError, match=says) as error:
        call()
    assert "\n" not in str(error.value)


FEW = (48, 50)


@pytest.mark.slow
def test_a_design_passes_through_a_training(few, tmp_path):
    """`model_options` of a run say the design and its steps; the folder gives that model back, under its own name."""
    step = steps("convnext", "nano")[2]
    options = {"design": "original", **step.options}
    short = {"recipe": few, "epochs": 1, "batch_size": 16, "warmup_epochs": 0.5, "device": "cpu", "image_size": 32}
    train.fit(short, mixer="convnext", model_options=options, out=str(tmp_path / "runs" / "step"))
    train.fit(short, mixer="convnext", out=str(tmp_path / "runs" / "unified"))
    assert train.load_run(tmp_path / "runs" / "step").design == replace(step.design, img_size=32)
    (one,) = zoo.load(["original_convnext_nano"], tmp_path / "runs", device="cpu")
    (other,) = zoo.load(["convnext"], tmp_path / "runs", device="cpu")
    assert (one.model.design.branches, other.model.design.branches) == (1, 2)
    with pytest.raises(UserError, match=r"it is an option of the model: -p model_options\.design='original'"):
        train.fit(short, design="original")
