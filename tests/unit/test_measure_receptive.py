"""Effective receptive fields whose form is known beforehand."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import stm_lab
from stm_lab.errors import UserError
from stm_lab.measure import effective_receptive_field, high_contribution_area
from stm_lab.measure.receptive import high_contribution_side


class Stack(nn.Sequential):
    """Layers whose outputs can be asked for as timm's models allow it."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.feature_info = [{"module": str(i)} for i in range(len(layers))]

    def forward_intermediates(self, x, indices, intermediates_only):
        maps = []
        for layer in self:
            x = layer(x)
            maps.append(x)
        return [maps[i] for i in indices]


def conv(inputs, kernel, **options):
    """A convolution to one channel with the same non-negative (k, k) kernel for all inputs."""
    kernel = torch.as_tensor(kernel, dtype=torch.float32)
    layer = nn.Conv2d(inputs, 1, kernel.shape, bias=False, **options)
    layer.weight.data[:] = kernel
    return layer


IMAGES = torch.rand(5, 3, 24, 31, generator=torch.Generator().manual_seed(0))


def test_one_by_one_convolution_sees_one_pixel():
    result = effective_receptive_field(Stack(conv(3, [[0.5]])), IMAGES)
    assert result.map.shape == (24, 31)
    assert result.cell == (12, 15)
    assert np.argwhere(result.map).tolist() == [[12, 15]]
    assert result.map[12, 15] == pytest.approx(3 * 0.5)  # three colours
    assert result.high_contribution_area(0.99) == pytest.approx(1 / (24 * 31))


def test_two_averages_make_a_triangle():
    average = np.full((3, 3), 1 / 9)
    result = effective_receptive_field(Stack(conv(3, average, padding=1), conv(1, average, padding=1)), IMAGES)
    triangle = np.array([1, 2, 3, 2, 1]) / 9
    expected = np.zeros((24, 31))
    expected[10:15, 13:18] = 3 * np.outer(triangle, triangle)
    np.testing.assert_allclose(result.map, expected, rtol=1e-5)
    # The middle pixel has 1/9 of it, the 3x3 square (7/9)^2, so half of it takes 3x3 and 99% all 5x5.
    sides = [high_contribution_side(result.map, threshold) for threshold in (0.1, 0.5, 0.6, 0.61, 0.99)]
    assert sides == [1, 3, 3, 5, 5]


def test_an_asymmetric_kernel_is_not_turned_and_negative_gradients_are_left_out():
    kernel = np.zeros((3, 3))
    kernel[0, 2], kernel[1, 0], kernel[2, 1] = 1.0, 0.25, -0.5  # up right, left, down
    bias = conv(1, [[1.0]])
    bias.bias = nn.Parameter(torch.tensor([10.0]))  # so that the cell is positive and passes its ReLU
    result = effective_receptive_field(Stack(conv(3, kernel, padding=1), bias), IMAGES)
    expected = np.zeros((24, 31))
    expected[11, 16], expected[12, 14] = 3, 0.75
    np.testing.assert_allclose(result.map, expected)


def test_a_cell_below_zero_has_no_field():
    result = effective_receptive_field(Stack(conv(3, [[-1.0]])), IMAGES)
    assert not result.map.any()
    with pytest.raises(UserError, match="no pixel contributes"):
        result.high_contribution_area(0.5)


@pytest.mark.parametrize("size", [128, 96])
def test_strided_stack_has_its_theoretical_field(size):
    """Five 3x3 convolutions of stride 2 see 1 + 2 * (1 + 2 + 4 + 8 + 16) = 63 pixels, about H // 2 on even maps."""
    layers = [conv(3 if i == 0 else 1, np.ones((3, 3)), stride=2, padding=1) for i in range(5)]
    for stage in range(5):
        result = effective_receptive_field(Stack(*layers), torch.rand(2, 3, size, size), stage=stage)
        rows, columns = np.nonzero(result.map)
        reach = 2 ** (stage + 1) - 1
        middle = 2 ** (stage + 1) * (result.stage_size[0] // 2)
        assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (middle - reach, middle + reach)
        assert size % 64 or middle == size // 2


def test_identity_sees_what_stem_and_downsamplings_see():
    """The control: 63x63 pixels round the middle, whatever the weights; convnext's 7x7 kernels reach beyond."""
    images = torch.rand(8, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    models = {mixer: stm_lab.build_model(mixer, "nano", layer_scale=1.0) for mixer in ("identity", "convnext")}
    identity, convnext = (effective_receptive_field(model, images).map for model in models.values())
    rows, columns = np.nonzero(identity)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (33, 95, 33, 95)
    assert convnext[:33].any()
    assert convnext[96:].any()


def test_average_over_images_whatever_the_batch():
    model = timm.create_model("test_resnet")
    pixels = (torch.rand(5, 3, 64, 64) * 255).to(torch.uint8)
    together, in_pairs = (effective_receptive_field(model, pixels, stage=2, batch_size=size) for size in (5, 2))
    singly = np.mean([effective_receptive_field(model, image[None], stage=2).map for image in pixels], axis=0)
    np.testing.assert_allclose(together.map, in_pairs.map, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(together.map, singly, rtol=1e-4, atol=1e-9)
    assert (together.stage, together.images) == (2, 5)


def test_the_gradient_is_that_of_the_normalised_image():
    model = Stack(conv(3, [[1.0]]))
    model.pretrained_cfg = {"mean": (0.1, 0.1, 0.1), "std": (0.25, 0.25, 0.25)}
    images = torch.full((1, 3, 8, 8), 0.5)
    assert effective_receptive_field(model, images).map[4, 4] == pytest.approx(3)


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext", "unified_halo_nano", "unified_dcn_v3_nano"])
def test_any_timm_model_is_measured_and_left_as_it_was(name):
    model = timm.create_model(name).train()
    frozen = next(model.children()).eval().requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    size = model.pretrained_cfg["input_size"][-1]
    result = effective_receptive_field(model, torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
    assert result.map.shape == (size, size)
    assert result.map.sum() > 0
    assert result.stage == len(model.feature_info) - 1
    assert [row["threshold"] for row in result.rows()] == [0.2, 0.3, 0.5, 0.99]
    assert model.training
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


@pytest.mark.parametrize("mixer", stm_lab.list_mixers())
def test_every_mixer_at_an_odd_size(mixer):
    result = effective_receptive_field(stm_lab.build_model(mixer, "nano"), torch.rand(2, 3, 75, 50))
    assert result.map.shape == (75, 50)
    assert (result.stage_size, result.cell) == ((3, 2), (1, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("mixer", stm_lab.list_mixers())
def test_cuda_sees_what_the_cpu_sees_and_gives_the_model_back(mixer):
    model, images = stm_lab.build_model(mixer, "nano"), torch.rand(4, 3, 64, 64)
    here, there = (effective_receptive_field(model, images, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there.map, here.map, rtol=0.02, atol=1e-3 * here.map.max())
    assert not any(parameter.is_cuda for parameter in model.parameters())


class Noisy(Stack):
    def forward_intermediates(self, x, indices, intermediates_only):
        return super().forward_intermediates(x * torch.rand_like(x), indices, intermediates_only)


def test_seed_governs_models_that_draw():
    maps = [effective_receptive_field(Noisy(conv(3, [[1.0]])), IMAGES, seed=seed).map for seed in (0, 0, 1)]
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def brute_force_area(contribution, threshold):
    height, width = contribution.shape
    for half in range(max(height, width)):
        top, left = max(height // 2 - half, 0), max(width // 2 - half, 0)
        square = contribution[top : height // 2 + half + 1, left : width // 2 + half + 1]
        if square.sum() >= threshold * contribution.sum():
            return square.size / contribution.size
    raise AssertionError


@pytest.mark.parametrize("shape", [(9, 9), (8, 8), (7, 12), (13, 6), (1, 1)])
@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.5, 0.99])
def test_area_by_brute_force(shape, threshold):
    contribution = np.random.default_rng(0).exponential(size=shape)
    assert high_contribution_area(contribution, threshold) == brute_force_area(contribution, threshold)


def test_area_of_known_maps():
    flat = np.ones((101, 101))
    for threshold in (0.2, 0.3, 0.5, 0.99):
        assert high_contribution_area(flat, threshold) == pytest.approx(threshold, abs=0.04)  # in steps of two pixels
    assert high_contribution_area(flat, 1.0) == 1
    assert high_contribution_area(1e-30 * flat, 0.5) == high_contribution_area(flat, 0.5)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_area_refuses_a_threshold_that_is_no_share(threshold):
    with pytest.raises(UserError, match="share of the contribution"):
        high_contribution_area(np.ones((3, 3)), threshold)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (torch.rand(0, 3, 8, 8), {}, "no images"),
        (torch.rand(2, 1, 8, 8), {}, r"expected \(N, 3, H, W\)"),
        (torch.rand(3, 8, 8), {}, r"expected \(N, 3, H, W\)"),
        (torch.full((1, 3, 8, 8), float("nan")), {}, "nan"),
        (torch.randn(2, 3, 8, 8), {}, "not yet normalised"),
        (torch.ones(1, 3, 8, 8, dtype=torch.int64), {}, "expected uint8"),
        (np.zeros((1, 3, 8, 8)), {}, "a ndarray"),
        ("shapes", {}, "a str"),
        (IMAGES, {"stage": 1}, "no stage 1; known: 0 to 0"),
        (IMAGES, {"stage": -2}, "no stage -2"),
        (IMAGES, {"batch_size": 0}, "batch_size is 0"),
        (IMAGES, {"device": "cpuu"}, "did you mean 'cpu'"),
    ],
)
def test_bad_input(data, options, message):
    with pytest.raises(UserError, match=message) as error:
        effective_receptive_field(Stack(conv(3, [[1.0]])), data, **options)
    assert "\n" not in str(error.value)


def test_models_without_maps_and_without_finite_gradients():
    with pytest.raises(UserError, match="Linear gives no feature maps"):
        effective_receptive_field(nn.Linear(2, 2), IMAGES)
    with pytest.raises(UserError, match="no map"):
        effective_receptive_field(Stack(nn.Flatten()), IMAGES)
    with pytest.raises(UserError, match="not finite"):
        effective_receptive_field(Stack(conv(3, [[float("inf")]])), IMAGES)
