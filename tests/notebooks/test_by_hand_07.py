"""The code by hand of notebook 07 against the package and torch, at sizes that it does not show."""

import exercises
import pytest
import torch
import torch.nn.functional as F
from kinds import each_kind
from timm.layers import DropPath, calculate_drop_path_rates
from torch import nn

from stm_lab import build_model, measure
from stm_lab.backbone import Downsample, Stem
from stm_lab.designs import unified
from stm_lab.layers import ConvHead, Mlp, PositionEmbedding
from stm_lab.mixers import get_mixer, list_mixers
from stm_lab.paper import counts

hand = exercises.by_hand("07")

each_mixer = pytest.mark.parametrize("mixer", list_mixers())
SHAPES = [(1, 8, 8, 6), (2, 5, 9, 6), (3, 1, 2, 6)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@torch.no_grad()
def redrawn(model):
    torch.manual_seed(3)
    for parameter in model.double().parameters():
        parameter.normal_(std=0.5 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


def same_weights(mine, theirs):
    redrawn(theirs)
    mine.double().eval().requires_grad_(False).load_state_dict(theirs.state_dict(), strict=True)
    return mine, theirs


def tokens(shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (7, 4, 3), (4, 4, 0), (1, 1, 0), (3, 1, 1)])
def test_convolution_and_its_side_are_torchs(kernel, stride, padding):
    weight, bias = tokens((5, 6, kernel, kernel)), tokens((5,))
    for shape in ((2, 9, 12, 6), (1, 7, 8, 6)):
        x = tokens(shape)
        for some in (bias, None):
            expected = F.conv2d(x.permute(0, 3, 1, 2), weight, some, stride, padding).permute(0, 2, 3, 1)
            torch.testing.assert_close(hand.conv_slow(x, weight, some, stride, padding), expected)
        assert expected.shape[1:3] == tuple(hand.side_after(side, kernel, stride, padding) for side in shape[1:3])
    conv = hand.Conv(6, 5, kernel, stride=stride, padding=padding).double()
    conv.weight.data, conv.bias.data = weight, bias
    torch.testing.assert_close(conv(x), hand.conv_slow(x, weight, bias, stride, padding))


@each_shape
def test_norm_and_activation_are_torchs(shape):
    x, weight, bias = tokens(shape), tokens((6,)), tokens((6,)) + 1
    torch.testing.assert_close(hand.norm_slow(x, weight, bias, 0.1), F.layer_norm(x, (6,), weight, bias, 0.1))
    torch.testing.assert_close(hand.gelu(x), F.gelu(x))


@pytest.mark.parametrize("mixer", ["halo", "swin", "convnext", "dcn_v3", "pooling", "identity"])
@pytest.mark.parametrize("size", [(32, 32), (35, 45)], ids=str)
def test_the_slow_network_is_the_packages(mixer, size):
    model, images = redrawn(build_model(mixer, "nano", depths=(1, 2, 1, 1))), tokens((2, 3, *size))
    torch.testing.assert_close(hand.network_slow(images, model), model(images))


@pytest.mark.parametrize("size", [(32, 32), (35, 46)], ids=str)
def test_stem_and_downsampling_are_the_packages(size):
    mine, theirs = same_weights(hand.make_stem(12, 1e-3), Stem("convs", 3, 12, 1e-3))
    images = tokens((2, 3, *size))
    torch.testing.assert_close(mine(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), theirs(images))
    mine, theirs = same_weights(hand.make_downsample(6, 10, 1e-3), Downsample("conv", 6, 10, 1e-3))
    x = tokens((2, *size, 6))
    torch.testing.assert_close(mine(x), theirs(x))


@each_shape
@pytest.mark.parametrize("conv", [False, True])
def test_mlp_is_the_packages(shape, conv):
    mine, theirs = same_weights(hand.Mlp(6, 3, conv), Mlp(6, 18, conv))
    torch.testing.assert_close(mine(tokens(shape)), theirs(tokens(shape)))


def test_drop_path_is_timms_and_leaves_the_mean():
    x = tokens((50, 2, 3, 4))
    for rate in (0.0, 0.3, 0.9):
        for training in (True, False):
            torch.manual_seed(0)
            mine = hand.drop_path(x, rate, training)
            torch.manual_seed(0)
            torch.testing.assert_close(mine, DropPath(rate).train(training)(x))
    torch.manual_seed(0)
    many = hand.drop_path(torch.ones(100_000, 1, 1, 1), 0.3, True)
    assert abs(many.mean() - 1) < 4 * (0.3 / 0.7 / 100_000) ** 0.5  # four standard errors


@pytest.mark.parametrize("depths", [(2, 2, 6, 2), (1, 3, 1, 4), (3, 8, 45, 3)], ids=str)
def test_rates_are_timms(depths):
    expected = calculate_drop_path_rates(0.4, list(depths), stagewise=True)
    for mine, theirs in zip(hand.drop_rates(depths, 0.4), expected, strict=True):
        assert mine == pytest.approx([float(rate) for rate in theirs])


@each_mixer
def test_block_and_stage_are_the_packages(mixer):
    """Position embedding, convolution in the MLP and eps are those of each family."""
    theirs = redrawn(build_model(mixer, "nano", drop_path_rate=0.5))
    mine = hand.network(theirs.design, 10).double().eval().requires_grad_(False)
    mine.load_state_dict(theirs.state_dict())
    assert isinstance(mine.stages[1], hand.Stage)
    assert isinstance(mine.stages[1].blocks[1], hand.Block)
    x = tokens((2, 9, 11, theirs.design.dims[1]))
    torch.testing.assert_close(mine.stages[1].blocks[1](x), theirs.stages[1].blocks[1](x))
    x = tokens((2, 9, 11, theirs.design.dims[0]))
    torch.testing.assert_close(mine.stages[1](x).permute(0, 3, 1, 2), theirs.stages[1](x.permute(0, 3, 1, 2)))


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (1, 2)], ids=str)
def test_position_is_the_packages(size):
    mine, theirs = same_weights(hand.Position(4, 4, 6), PositionEmbedding(6, 4, 4))
    x = tokens((2, *size, 6))
    torch.testing.assert_close(mine(x), theirs(x))


@each_shape
def test_head_is_the_packages(shape):
    mine, theirs = same_weights(hand.Head(6, 5), ConvHead(6, 5, "avg", 0.0, 1e-6))
    torch.testing.assert_close(mine(tokens(shape)), theirs(tokens(shape).permute(0, 3, 1, 2)))


@each_kind
@pytest.mark.parametrize("size", [(32, 32), (50, 37), (64, 96)], ids=str)
def test_the_network_is_the_packages(mixer, size):
    theirs = redrawn(build_model(mixer, "nano", num_classes=7, drop_path_rate=0.4))
    mine = hand.network(theirs.design, 7).double().eval().requires_grad_(False)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    images = tokens((3, 3, *size))
    torch.testing.assert_close(mine(images), theirs(images))
    logits = []
    for model in (mine, theirs):
        torch.manual_seed(0)
        logits.append(model.train()(images))
    torch.testing.assert_close(*logits, rtol=1e-6, atol=1e-6)  # timm's rates are of single precision


def test_any_function_of_tokens_can_be_plugged_in():
    network = hand.Network(unified("identity", "nano"), lambda stage, block: nn.Linear(16 * 2**stage, 16 * 2**stage), 4)
    assert network(torch.randn(2, 3, 40, 33)).shape == (2, 4)


@each_mixer
def test_counts_of_a_mixer_are_the_packages(mixer):
    for scale in ("nano", "micro"):
        design = unified(mixer, scale)
        for stage, block in ((0, 0), (1, 1), (3, 0)):
            dim, options = design.dims[stage], design.mixer_options(stage, block)
            built = get_mixer(mixer)(dim, **options)
            for height, width in ((8, 8), (11, 17), (56, 56)):
                expected = sum(p.numel() for p in built.parameters()), built.macs(height, width)
                assert hand.mixer_counts(mixer, height, width, dim, **options) == expected


def test_a_mixer_without_formula_is_no_zero():
    with pytest.raises(ValueError, match="no formula for 'mine'"):
        hand.mixer_counts("mine", 4, 4, 8)


@each_mixer
@pytest.mark.parametrize("size", [(32, 32), (90, 141)], ids=str)
def test_counts_of_a_network_are_the_counters(mixer, size):
    counted = measure.cost(build_model(mixer, "nano", num_classes=11, device="meta"), image_size=size)
    found = hand.network_counts(unified(mixer, "nano"), *size, 11).values()
    assert tuple(map(sum, zip(*found, strict=True))) == (counted.parameters, counted.macs)


def test_counts_are_the_published_ones_to_the_last_digit():
    for (mixer, scale), published in counts().items():
        found = hand.network_counts(unified(mixer, scale), 224, 224, 1000).values()
        assert tuple(map(sum, zip(*found, strict=True))) == (published["parameters"], published["macs"])
