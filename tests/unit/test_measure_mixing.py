"""Mixing matrices that are known beforehand, and those of every mixer by a naive loop over all pairs."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from kinds import KINDS
from torch import nn

import stm_lab
from stm_lab.measure._sites import MixerLayer, Site, mixer_layers, mixer_sites
from stm_lab.measure.mixing import mixing_matrix, token_weights
from stm_lab.mixers import get_mixer
from stm_lab.util.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)


def tokens(count=3, height=4, width=5, channels=3):
    return torch.randn(count, height, width, channels, generator=GENERATOR, dtype=torch.float64)


class Convolution(nn.Module):
    """A dense 3x3 convolution of tokens."""

    def __init__(self, channels=3, mode="circular"):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=mode, dtype=torch.float64)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(self.conv.weight.shape, generator=GENERATOR, dtype=torch.float64))

    def forward(self, x):
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PositionWise(nn.Module):
    """A matrix over positions, the same for all channels and inputs, as in an MLP-Mixer."""

    def __init__(self, height=4, width=5):
        super().__init__()
        self.matrix = nn.Parameter(
            torch.randn(height * width, height * width, generator=GENERATOR, dtype=torch.float64)
        )

    def forward(self, x):
        return torch.einsum("pq,bqc->bpc", self.matrix, x.flatten(1, 2)).reshape(x.shape)


class LinearAttention(nn.Module):
    """y_p = 1/P sum_q (x_p . x_q) x_q: attention without softmax and projections."""

    def forward(self, x):
        flat = x.flatten(1, 2)
        return (flat @ flat.mT @ flat / flat.shape[1]).reshape(x.shape)


def naive(mixer, x):
    """(N, P, C, P, C), image by image."""
    size, channels = x.shape[1] * x.shape[2], x.shape[3]
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda one: mixer(one[None])[0], image)
            .reshape(size, channels, size, channels)
            .detach()
            for image in x
        ]
    )


def naive_shares(jacobian, height, width):
    """shared, positional, dynamic, over_positions by loops over pairs of inputs and of positions."""
    count = len(jacobian)
    energy = (jacobian**2).sum().item() / count
    places = [(row, column) for row in range(height) for column in range(width)]
    diagonals = {}
    for p, (a, b) in enumerate(places):
        for q, (c, d) in enumerate(places):
            diagonals.setdefault((c - a, d - b), []).append((p, q))

    def product(one, other):
        return (one * other).sum().item()

    def by_kernel(one, other):
        total = 0
        for pairs in diagonals.values():
            sums = [sum(j[p, :, q] for p, q in pairs) for j in (one, other)]
            total += product(*sums) / len(pairs)
        return total

    pairs = [(n, m) for n in range(count) for m in range(count) if n != m]
    static = np.mean([product(jacobian[n], jacobian[m]) for n, m in pairs])
    shared = np.mean([by_kernel(jacobian[n], jacobian[m]) for n, m in pairs])
    own = np.mean([by_kernel(j, j) for j in jacobian])
    return shared / energy, (static - shared) / energy, 1 - static / energy, 1 - own / energy


def shares(result):
    return result.shared, result.positional, result.dynamic, result.over_positions


# ---- known forms ----------------------------------------------------------------------------------------------------


def test_a_circular_convolution_is_constant_along_diagonals():
    mixer = Convolution()
    result = mixing_matrix(mixer, tokens())
    norms = mixer.conv.weight.detach().square().sum((0, 1)).sqrt().numpy()  # (3, 3) by displacement
    places = np.indices((4, 5)).reshape(2, -1).T
    expected = np.zeros((20, 20))
    for p, (a, b) in enumerate(places):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                expected[p, (a + down) % 4 * 5 + (b + right) % 5] = norms[down + 1, right + 1]
    np.testing.assert_allclose(result.matrix, np.broadcast_to(expected, (3, 20, 20)), rtol=1e-12)
    np.testing.assert_allclose(shares(result), (1, 0, 0, 0), atol=1e-12)
    # Equivariant: rolling rows and columns of the matrix alike changes nothing.
    rolled = np.roll(result.matrix.reshape(3, 4, 5, 4, 5), (1, 2, 1, 2), (1, 2, 3, 4)).reshape(3, 20, 20)
    np.testing.assert_allclose(rolled, result.matrix, rtol=1e-12)
    assert result.border_strength == pytest.approx(1)


def test_a_padded_convolution_is_shared_and_weaker_at_the_border():
    mixer = Convolution(mode="zeros")
    result = mixing_matrix(mixer, tokens())
    np.testing.assert_allclose(shares(result), (1, 0, 0, 0), atol=1e-12)
    assert result.border_strength < 0.9
    assert result.lean_border > result.lean_inside
    corner, side = result.lean[0, 0], result.lean[1, 0]
    assert corner.min() > 0  # down and right, where the map is
    assert side[1] > 0


def test_identity_mixes_nothing():
    result = mixing_matrix(stm_lab.mixers.get_mixer("identity")(3), tokens())
    assert result.distance == 0
    assert result.reach == 0
    assert result.own == 1
    assert (result.lean == 0).all()
    np.testing.assert_allclose(shares(result), (1, 0, 0, 0), atol=1e-12)
    np.testing.assert_allclose(result.matrix, np.broadcast_to(np.eye(20) * 3**0.5, (3, 20, 20)))  # |I| in 3 channels


@pytest.mark.parametrize(("stage", "pixels"), [(0, 4), (1, 8), (2, 16)])
def test_identity_mixes_nothing_in_a_network_and_pixels_are_counted(stage, pixels):
    model = stm_lab.build_model("identity", "nano")
    result = mixing_matrix(model, torch.rand(2, 3, 64, 96), stage=stage, probes=1)
    assert result.distance == result.distance_pixels == 0
    assert result.stride == (pixels, pixels)
    assert result.map_size == (64 // pixels, 96 // pixels)


def test_an_average_of_all_is_as_far_as_can_be():
    class Average(nn.Module):
        def forward(self, x):
            return x.mean((1, 2), keepdim=True).expand_as(x)

    result = mixing_matrix(Average(), tokens(height=6, width=4))
    assert result.reach == pytest.approx(1)
    assert result.own == pytest.approx(1 / 24)
    np.testing.assert_allclose(shares(result), (1, 0, 0, 0), atol=1e-12)
    places = [(a, b) for a in range(6) for b in range(4)]
    expected = np.mean([((a - c) ** 2 + (b - d) ** 2) ** 0.5 for a, b in places for c, d in places])
    assert result.distance == pytest.approx(expected)


def test_distances_of_a_shift_are_its_length():
    class Shift(nn.Module):
        def forward(self, x):
            return x.roll((2, -1), (1, 2))

    result = mixing_matrix(Shift(), tokens(height=12, width=12), probes=1)
    inside = np.hypot(*np.moveaxis(result.lean, 2, 0))[2:, :-1]
    np.testing.assert_allclose(inside, 5**0.5)
    np.testing.assert_allclose(result.lean[2:, :-1], np.broadcast_to([-2, 1], (10, 11, 2)))


def test_a_matrix_over_positions_is_static_and_not_shared():
    mixer = PositionWise()
    result = mixing_matrix(mixer, tokens())
    np.testing.assert_allclose(result.matrix[1], mixer.matrix.detach().abs().numpy() * 3**0.5, rtol=1e-12)
    assert result.dynamic == pytest.approx(0, abs=1e-12)
    assert result.shared + result.positional == pytest.approx(1)
    assert result.positional == pytest.approx(result.over_positions)
    assert result.positional > 0.3


def test_linear_attention_by_hand():
    """J_pq = ((x_p . x_q) 1 + x_q x_p^T) / P for q != p; J_pp = (sum_q x_q x_q^T + |x_p|^2 1 + x_p x_p^T) / P."""
    x = tokens(count=2, height=2, width=3, channels=2)
    result = mixing_matrix(LinearAttention(), x)
    for n, flat in enumerate(x.flatten(1, 2).numpy()):
        for p in range(6):
            for q in range(6):
                block = (flat[p] @ flat[q] * np.eye(2) + np.outer(flat[q], flat[p])) / 6
                if p == q:
                    block += flat.T @ flat / 6
                assert result.matrix[n, p, q] == pytest.approx(np.linalg.norm(block), rel=1e-12)
    assert result.dynamic > 0.2


# ---- every mixer ----------------------------------------------------------------------------------------------------

OPTIONS = {"swin": {"window": 2, "shift": 1}, "halo": {"block": 2, "halo": 1}, "pvt": {"reduction": 2}}


def built(name, channels=4):
    torch.manual_seed(0)
    mixer = get_mixer(name)(channels, **OPTIONS.get(name, {})).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64), alpha=0.3)
    return mixer


@pytest.mark.parametrize("name", stm_lab.list_mixers())
def test_every_mixer_by_a_naive_loop(name):
    mixer, x = built(name), tokens(count=3, height=4, width=5, channels=4)
    jacobian = naive(mixer, x)
    result = mixing_matrix(mixer, x)
    expected = (jacobian**2).sum((2, 4)).sqrt().numpy()
    np.testing.assert_allclose(result.matrix, expected, rtol=1e-10, atol=1e-12 * expected.max())
    np.testing.assert_allclose(shares(result), naive_shares(jacobian, 4, 5), atol=1e-10)


@pytest.mark.parametrize("name", stm_lab.list_mixers())
def test_only_convolutions_are_static(name):
    result = mixing_matrix(built(name), tokens(channels=4))
    assert result.shared + result.positional + result.dynamic == pytest.approx(1)
    if name in ("convnext", "identity"):
        np.testing.assert_allclose(shares(result), (1, 0, 0, 0), atol=1e-9)
    elif name == "pooling":  # static; its averages at the border are of fewer
        assert result.dynamic == pytest.approx(0, abs=1e-9)
        assert 0 < result.positional < 0.1
    else:
        assert result.dynamic > 0.02


@pytest.mark.parametrize("name", KINDS)
def test_random_signs_are_within_the_error_that_is_stated(name):
    mixer, x = built(name, channels=8), tokens(count=2, channels=8)
    exact = mixing_matrix(mixer, x)
    for probes in (4, 64):
        found = mixing_matrix(mixer, x, probes=probes, seed=1)
        there = exact.matrix > 1e-9 * exact.matrix.max()
        error = (found.matrix[there] / exact.matrix[there]) ** 2 - 1
        assert np.sqrt((error**2).mean()) < 1.5 * np.sqrt(2 / probes)
        assert (found.matrix[~there] <= 1e-8 * exact.matrix.max()).all()
    np.testing.assert_allclose(shares(found), shares(exact), atol=0.1)
    assert found.distance == pytest.approx(exact.distance, rel=0.05)


@pytest.mark.slow
def test_random_signs_have_no_bias():
    mixer, x = built("swin", channels=6), tokens(count=2, height=2, width=3, channels=6)
    exact = mixing_matrix(mixer, x)
    squares = np.mean([mixing_matrix(mixer, x, probes=1, seed=seed).matrix ** 2 for seed in range(300)], axis=0)
    assert squares.sum() == pytest.approx((exact.matrix**2).sum(), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_in_a_network_the_tokens_are_those_that_reach_it(name):
    """The mixer of stage 1, block 1, with what a hook sees; by stage and by name; one token as in the matrix."""
    torch.manual_seed(0)
    model = stm_lab.build_model(name, "nano", layer_scale=0.5).eval()
    images = torch.rand(2, 3, 64, 64)
    result = mixing_matrix(model, images, stage=1, block=1)
    assert (result.layer, result.map_size, result.stride) == ("stages.1.blocks.1.mixer", (8, 8), (8.0, 8.0))
    seen = []
    mixer = model.stages[1].blocks[1].mixer
    hook = mixer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    model((images - mean) / std)
    hook.remove()
    alone = mixing_matrix(mixer, seen[0])
    np.testing.assert_allclose(result.matrix, alone.matrix, rtol=1e-4, atol=1e-6 * alone.matrix.max())
    named = mixing_matrix(model, images, layer="stages.1.blocks.1.mixer", batch_size=1)
    np.testing.assert_allclose(named.matrix, result.matrix, rtol=1e-4, atol=1e-5 * result.matrix.max())
    weights = token_weights(Site(mixer, (seen[0],), {}, "NHWC", None, 0), 3, 6)
    np.testing.assert_allclose(weights.reshape(2, 64), result.matrix[:, 3 * 8 + 6], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["halo", "swin", "pvt", "pvt_v2", "dcn_v3"])
def test_a_head_is_the_mixer_whose_projection_lets_only_that_head_through(name):
    """As if the last projection were the identity on the head's channels, and 0 on all others."""
    mixer = stm_lab.build_model(name, "nano").stages[2].blocks[1].mixer.double().eval()
    tokens = torch.randn(2, 4, 4, mixer.proj.in_features, dtype=torch.float64)
    site = Site(mixer, (tokens,), {}, "NHWC", None, 0)
    assert site.heads == mixer.proj.in_features // 16
    found = [token_weights(site, 1, 2, head) for head in range(site.heads)]
    for head, rows in enumerate(torch.arange(mixer.proj.in_features).split(16)):
        torch.nn.init.zeros_(mixer.proj.weight)
        mixer.proj.weight.data[rows, rows] = 1
        np.testing.assert_allclose(found[head], token_weights(site, 1, 2), rtol=1e-9, atol=1e-12)
    with pytest.raises(UserError, match=f"head 9: the mixer has {site.heads} heads, counted from 0"):
        token_weights(site, 1, 2, 9)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "heads"), [("swin_tiny_patch4_window7_224", 3), ("pvt_v2_b0", 1), ("test_vit", 2)])
def test_heads_of_timms_mixers_add_up_to_them(name, heads):
    """With all heads' channels in the Jacobian and a projection that is the identity, squares add up."""
    model = timm.create_model(name).eval()
    layer = mixer_layers(model)[0]
    images = torch.rand(1, 3, 224 if "224" in name else 160, 224 if "224" in name else 160)
    with torch.no_grad():
        site = mixer_sites(model, images, [layer])[layer.name]
    assert site.heads == heads
    squares = sum(token_weights(site, 2, 3, head) ** 2 for head in range(heads))
    with site.without_projection():
        np.testing.assert_allclose(squares**0.5, token_weights(site, 2, 3), rtol=1e-4, atol=1e-8)


def test_the_whole_block_can_be_asked_for():
    """With the residual branch the token itself is most of it, at the scale that a new network starts with."""
    model = stm_lab.build_model("swin", "nano")
    block = mixing_matrix(model, torch.rand(2, 3, 64, 64), layer="stages.2.blocks.0", probes=2, layout="NHWC")
    assert block.own > 0.999
    assert mixing_matrix(model, torch.rand(2, 3, 64, 64), stage=2, probes=2).own < 0.5


# ---- timm -----------------------------------------------------------------------------------------------------------

TIMM = {
    "test_vit": ("blocks.0.attn", 4),
    "test_convnext": ("stages.1.blocks.0.conv_dw", 4),
    "pvt_v2_b0": ("stages.0.blocks.0.attn", 4),
    "poolformer_s12": ("stages.1.blocks.0.token_mixer", 4),
    "swin_tiny_patch4_window7_224": ("layers.1.blocks.1.attn", 4),
}


@pytest.mark.parametrize("name", TIMM)
def test_mixers_of_timm(name):
    options = {"img_size": 56} if name.startswith("swin") else {}
    torch.manual_seed(0)
    model = timm.create_model(name, **options)
    layer, _ = TIMM[name]
    assert layer in {found.name for found in mixer_layers(model)}
    size = 56 if options else min(64, model.pretrained_cfg["input_size"][-1])
    if name == "test_vit":
        size = model.pretrained_cfg["input_size"][-1]
    result = mixing_matrix(model, torch.rand(2, 3, size, size, generator=GENERATOR), layer=layer, probes=2)
    height, width = result.map_size
    assert result.matrix.shape == (2, height * width, height * width)
    assert result.distance > 0
    if "conv" in layer:
        np.testing.assert_allclose(shares(result), (1, 0, 0, 0), atol=1e-4)
    if "swin" in name:  # the map, not its windows: a shifted block reaches beyond one
        assert result.map_size == (7, 7)
        assert "_attn" not in vars(model.layers[1].blocks[1])


@pytest.mark.slow
def test_our_swin_and_timms_mix_alike():
    """The same weights in both, shifted windows over a map of 14x14."""
    theirs = timm.create_model("swin_tiny_patch4_window7_224", img_size=56).eval()
    block = theirs.layers[0].blocks[1]
    ours = get_mixer("swin")(96, heads=3, window=7, shift=3).eval()
    with torch.no_grad():
        block.attn.relative_position_bias_table.normal_(generator=GENERATOR)
        ours.relative_position_bias_table.copy_(block.attn.relative_position_bias_table)
        ours.load_state_dict(
            {
                "relative_position_bias_table": block.attn.relative_position_bias_table,
                "qkv.weight": block.attn.qkv.weight,
                "qkv.bias": block.attn.qkv.bias,
                "proj.weight": block.attn.proj.weight,
                "proj.bias": block.attn.proj.bias,
            }
        )
    images = torch.rand(2, 3, 56, 56, generator=GENERATOR)
    result = mixing_matrix(theirs, images, layer="layers.0.blocks.1.attn", probes=2)
    seen = []
    hook = block.norm1.register_forward_hook(lambda module, args, out: seen.append(out.detach()))
    mean, std = (torch.tensor(theirs.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    theirs.forward_features((images - mean) / std)
    hook.remove()
    again = mixing_matrix(ours, seen[0], probes=2)
    np.testing.assert_allclose(result.matrix, again.matrix, rtol=1e-3, atol=1e-5 * again.matrix.max())


# ---- and the rest ---------------------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was():
    model = stm_lab.build_model("halo", "nano").train()
    model.stages[0].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    mixing_matrix(model, IMAGES, stage=2, probes=1)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not model.stages[0].training
    assert model.stages[1].training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_one_input_cannot_tell_static_from_dynamic():
    (row,) = mixing_matrix(Convolution(), tokens(count=1)).rows()
    assert row["shared"] is row["positional"] is row["dynamic"] is None
    assert row["over_positions"] == pytest.approx(0, abs=1e-12)


def test_a_map_of_one_token():
    (row,) = mixing_matrix(LinearAttention(), tokens(height=1, width=1)).rows()
    assert row["reach"] is row["lean_inside"] is row["border_strength"] is None
    assert row["own"] == 1


def test_rows_are_json_and_layers_are_listed():
    import json

    model = stm_lab.build_model("swin", "nano")
    layers = mixer_layers(model)
    assert [layer.stage for layer in layers] == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3]
    assert layers[5] == MixerLayer("stages.2.blocks.1.mixer", 2, 1)
    json.dumps(mixing_matrix(model, torch.rand(2, 3, 64, 64), stage=-1, block=-1, probes=1).rows(), allow_nan=False)


def test_a_dataset_and_labels_are_taken():
    model = stm_lab.build_model("convnext", "nano")
    pixels = (torch.rand(2, 3, 64, 64, generator=GENERATOR) * 255).to(torch.uint8)
    one = mixing_matrix(model, (pixels, torch.tensor([0, 1])), stage=3)
    np.testing.assert_allclose(one.matrix, mixing_matrix(model, pixels, stage=3).matrix)


class Smaller(nn.Module):
    def forward(self, x):
        return x[:, ::2]


class Bent(nn.Module):
    def forward(self, x):
        return F.pad(x, (0, 0, 1, 0))[:, :, :-1] * float("nan")


SWIN = stm_lab.build_model("swin", "nano")
IMAGES = torch.rand(1, 3, 64, 64)


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (Convolution(), torch.rand(0, 4, 4, 3), {}, "at least one"),
        (Convolution(), torch.full((1, 4, 4, 3), float("nan")), {}, "finite"),
        (Convolution(), torch.ones(1, 4, 4, 3, dtype=torch.uint8), {}, "floats"),
        (Convolution(), "shapes", {}, "a str"),
        (Smaller(), tokens(), {}, "must keep their shape"),
        (Bent(), tokens(), {}, "not finite"),
        (nn.Threshold(100.0, 0.0), tokens(), {}, "Jacobian is zero"),
        (SWIN, IMAGES, {"stage": 4}, "no mixers in stage 4; in 0, 1, 2, 3"),
        (SWIN, IMAGES, {"stage": 0, "block": 2}, "no block 2; known: 0 to 1"),
        (SWIN, IMAGES, {"layer": "stages.0.blocks.0.mixr"}, "did you mean 'stages.0.blocks.0.mixer'"),
        (SWIN, IMAGES, {"layer": "head.fc"}, "not called|no tokens"),
        (SWIN, IMAGES, {"stage": 0, "probes": 0}, "probes is 0"),
        (SWIN, IMAGES, {"stage": 0, "layout": "NHCW"}, "unknown layout"),
        (SWIN, IMAGES, {"stage": 0, "device": "cpuu"}, "did you mean 'cpu'"),
        (SWIN, torch.full((1, 3, 64, 64), float("nan")), {"stage": 0}, "nan"),
        (SWIN, IMAGES[:0], {"stage": 0}, "no images"),
        (timm.create_model("test_resnet"), IMAGES, {"stage": 0}, "no token mixer"),
    ],
)
def test_bad_input(model, data, options, message):
    with pytest.raises(UserError, match=message) as error:
        mixing_matrix(model, data, **options)
    assert "\n" not in str(error.value)
