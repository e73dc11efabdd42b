"""Effective receptive fields whose form is known beforehand."""

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from kinds import each_kind, soaked
from torch import nn

import stm_lab
from stm_lab.measure import effective_receptive_field, high_contribution_area, receptive
from stm_lab.measure.receptive import (
    contribution_radius,
    high_contribution_side,
    radial_profile,
    replknet_rectangle,
)
from stm_lab.util.errors import UserError


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


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext", "unified_halo_nano"])
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


@each_kind
def test_every_kind_of_mixer_at_an_odd_size(mixer):
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


# ---- known profiles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "kernel"), [(1, 3), (4, 3), (3, 5), (2, 7)])
def test_stacked_convolutions_of_ones_have_their_field_and_its_polynomial_profile(depth, kernel):
    """n layers of k x k ones see n (k - 1) + 1 pixels a side, weighted by the coefficients of (1 + t + ... )^n."""
    layers = [conv(3 if i == 0 else 1, np.ones((kernel, kernel)), padding=kernel // 2) for i in range(depth)]
    result = effective_receptive_field(Stack(*layers).double(), IMAGES)
    line = np.array([1.0])
    for _ in range(depth):
        line = np.polymul(line, np.ones(kernel))
    half = depth * (kernel - 1) // 2
    expected = np.zeros((24, 31))
    expected[12 - half : 13 + half, 15 - half : 16 + half] = 3 * np.outer(line, line)
    np.testing.assert_allclose(result.map, expected, rtol=1e-12)


def test_identity_sees_exactly_its_63_by_63_pixels():
    """Every pixel of the footprint, and no other, at the scale that a new network starts with as well."""
    for scale in (1e-6, 1.0):
        torch.manual_seed(0)
        model = stm_lab.build_model("identity", "nano", layer_scale=scale)
        seen = effective_receptive_field(model, torch.rand(8, 3, 128, 128), protocol="absolute").map > 0
        footprint = np.zeros((128, 128), bool)
        footprint[33:96, 33:96] = True
        assert np.array_equal(seen, footprint)


# ---- protocols ------------------------------------------------------------------------------------------------------


def published_script(model, images):
    """The two steps of RepLKNet's scripts as their text says them: float32, one image a batch, a running average."""
    average = np.zeros(images.shape[-2:], np.float32)
    for count, image in enumerate(images, 1):
        image = image[None].clone().requires_grad_()
        (feature,) = model.forward_intermediates(image, indices=[len(model.feature_info) - 1], intermediates_only=True)
        h, w = feature.shape[2:]
        feature[:, :, h // 2, w // 2].clamp(min=0).sum().backward()
        average += (image.grad.clamp(min=0).sum((0, 1)).numpy() - average) / count
    scores = np.log10(average + 1)
    scores = scores / scores.max()
    found = {}
    for threshold in (0.2, 0.3, 0.5, 0.99):
        size, found[threshold] = len(scores), None
        for i in range(1, size // 2):
            a, b = size // 2 - i, size // 2 + 1 + i
            if scores[a:b, a:b].sum() / scores.sum() > threshold:
                found[threshold] = (2 * i + 1, (2 * i + 1) ** 2 / size**2)
                break
    return average, found


@pytest.mark.parametrize(("mixer", "size"), [("swin", 96), ("convnext", 128)])
def test_replknets_protocol_is_its_script(mixer, size):
    torch.manual_seed(0)
    model = stm_lab.build_model(mixer, "nano", layer_scale=1.0).eval()
    images = torch.rand(4, 3, size, size)
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    average, found = published_script(model, (images - mean) / std)
    result = effective_receptive_field(model, images, protocol="replknet")
    np.testing.assert_allclose(result.map, average, rtol=1e-3, atol=1e-6 * average.max())
    for row in result.rows():
        side, area = found[row["threshold"]] or (None, None)
        assert row["side"] == side
        assert row["area"] == (area and pytest.approx(area))
    assert result.contribution.max() == 1


def test_replknets_rectangle_is_never_one_pixel_nor_the_whole_image():
    point, flat = np.zeros((9, 9)), np.ones((9, 9))
    point[4, 4] = 1
    assert replknet_rectangle(point, 0.5) == (3, 9 / 81)
    assert high_contribution_side(point, 0.5) == 1
    assert replknet_rectangle(flat, 0.99) is None
    assert high_contribution_side(flat, 0.99) == 9
    # Strictly more than the threshold: 9 of 81 is no ninth. A longer side is no reason to run backwards.
    assert replknet_rectangle(flat, 1 / 9)[0] == 5
    assert replknet_rectangle(np.ones((30, 5)), 0.2)[0] == 7


def test_replknet_leaves_out_images_without_a_gradient_and_the_others_refuse():
    class Holes(Stack):
        """No gradient where the picture is black."""

        def forward_intermediates(self, x, indices, intermediates_only):
            return [x.sum(1, keepdim=True) ** 0.5]

    images = IMAGES.clone() + 0.1
    images = images.clamp(max=1)
    images[1] = -1e-4  # a rounding error below black, whose root is no number
    result = effective_receptive_field(Holes(conv(3, [[1.0]])), images, protocol="replknet", batch_size=2)
    assert (result.images, result.skipped) == (4, 1)
    rest = effective_receptive_field(Holes(conv(3, [[1.0]])), images[[0, 2, 3, 4]])
    np.testing.assert_allclose(result.map, rest.map, rtol=1e-6)
    with pytest.raises(UserError, match="not finite"):
        effective_receptive_field(Holes(conv(3, [[1.0]])), images)
    with pytest.raises(UserError, match="not finite"):
        effective_receptive_field(Holes(conv(3, [[1.0]])), images[1:2], protocol="replknet")


def test_protocols_are_what_they_say_of_a_known_kernel():
    kernel = np.array([[0.0, 2.0, 0.0], [-1.0, 3.0, 0.0], [0.0, 0.0, -0.5]])
    last = conv(1, [[1.0]])
    last.bias = nn.Parameter(torch.tensor([100.0]))
    model = Stack(conv(3, kernel, padding=1), last)
    maps = {p: effective_receptive_field(model, IMAGES, protocol=p).map[11:14, 14:17] for p in receptive.PROTOCOLS}
    np.testing.assert_allclose(maps["signed"], 3 * kernel)
    np.testing.assert_allclose(maps["absolute"], 3 * abs(kernel))
    np.testing.assert_allclose(maps["squared"], 3 * kernel**2)
    np.testing.assert_allclose(maps["positive"], 3 * kernel.clip(0))
    np.testing.assert_allclose(maps["replknet"], maps["positive"])


@each_kind
def test_protocols_agree_where_they_must(mixer):
    torch.manual_seed(0)
    model, images = stm_lab.build_model(mixer, "nano", layer_scale=1.0), torch.rand(3, 3, 64, 64)
    found = {p: effective_receptive_field(model, images, protocol=p) for p in receptive.PROTOCOLS}
    maps = {p: field.map for p, field in found.items()}
    np.testing.assert_allclose(
        2 * maps["positive"] - maps["signed"], maps["absolute"], atol=1e-6 * maps["absolute"].max()
    )
    assert (maps["absolute"] + 1e-12 >= abs(maps["signed"])).all()
    assert (3 * maps["squared"] * 1.001 >= maps["absolute"] ** 2).all()  # three colours, and images: Jensen
    for field in found.values():
        assert (field.contribution >= 0).all()
        assert all(row["protocol"] == field.protocol for row in field.rows())


def test_a_plain_sum_behind_a_layer_norm_would_see_nothing():
    """Why the ReLU of the cell stays in every protocol."""
    model = stm_lab.build_model("swin", "nano", layer_scale=1.0).eval().double()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    feature = model.forward_features(image)[:, :, 1, 1]
    plain, rectified = (torch.autograd.grad(f.sum(), image, retain_graph=True)[0] for f in (feature, feature.relu()))
    assert plain.abs().max() < 1e-12 < 1e-6 < rectified.abs().max()


# ---- another cell, by distance --------------------------------------------------------------------------------------


def test_any_cell_can_be_asked_for():
    model = Stack(conv(3, np.ones((3, 3)), stride=2, padding=1))
    result = effective_receptive_field(model, IMAGES, cell=(2, 11))
    assert (result.stage_size, result.cell, result.centre) == ((12, 16), (2, 11), (4, 22))
    rows, columns = np.nonzero(result.map)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 5, 21, 23)
    assert result._square(0.99) == (3, 9 / (24 * 31))
    assert result.radius(1.0) == pytest.approx(2**0.5)
    corner = effective_receptive_field(model, IMAGES, cell=(0, 0))
    assert corner.high_contribution_area(0.99) == 4 / (24 * 31)  # what of the square lies in the image


def test_radial_profile_by_brute_force():
    contribution = np.random.default_rng(1).exponential(size=(14, 9))
    profile = radial_profile(contribution)
    rings = {}
    for (row, column), value in np.ndenumerate(contribution):
        rings.setdefault(round(((row - 7) ** 2 + (column - 4) ** 2) ** 0.5), []).append(value)
    assert profile.distance.tolist() == sorted(rings)
    np.testing.assert_allclose(profile.mean, [np.mean(rings[r]) for r in sorted(rings)])
    np.testing.assert_allclose(profile.held, np.cumsum([sum(rings[r]) for r in sorted(rings)]) / contribution.sum())
    for threshold in (0.1, 0.5, 0.9):
        distance = np.hypot(*np.indices((14, 9)) - np.array([7, 4])[:, None, None])
        wanted = min(
            d for d in distance.ravel() if contribution[distance <= d].sum() >= threshold * contribution.sum() - 1e-12
        )
        assert contribution_radius(contribution, threshold) == pytest.approx(wanted)


def test_the_radius_of_a_disc():
    rows, columns = np.indices((201, 201)) - 100
    disc = (np.hypot(rows, columns) <= 80).astype(float)
    assert contribution_radius(disc, 0.5) == pytest.approx(80 / 2**0.5, abs=0.5)
    assert contribution_radius(disc, 1.0) == 80


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_large_images_go_one_by_one():
    sizes = []

    class Watched(Stack):
        def forward_intermediates(self, x, indices, intermediates_only):
            sizes.append(len(x))
            return super().forward_intermediates(x, indices, intermediates_only)

    for side, count in ((8, 20), (512, 5), (1024, 2)):
        effective_receptive_field(Watched(conv(3, [[1.0]])), torch.rand(count, 3, side, side))
    assert sizes == [16, 4, 4, 1, 1, 1]


class Kept:
    """Counts the bytes that autograd keeps from forward to backward pass, each storage once."""

    def __enter__(self):
        self.storages = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self.hooks = hooks
        hooks.__enter__()
        return self

    def _pack(self, tensor):
        storage = tensor.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    @property
    def bytes(self):
        return sum(self.storages.values())


@each_kind
def test_computing_twice_keeps_less_and_gives_the_same(mixer):
    torch.manual_seed(0)
    model, images = stm_lab.build_model(mixer, "nano", layer_scale=1.0), torch.rand(1, 3, 128, 128)
    model.stages[1].grad_checkpointing = True
    kept, maps = {}, {}
    for checkpointing in (False, True):
        with Kept() as saved:
            maps[checkpointing] = effective_receptive_field(model, images, checkpointing=checkpointing).map
        kept[checkpointing] = saved.bytes
    np.testing.assert_allclose(maps[True], maps[False], rtol=1e-5, atol=1e-9)
    assert kept[True] < 0.5 * kept[False]
    assert [stage.grad_checkpointing for stage in model.stages] == [False, True, False, False]


PEAK = """
import resource, torch
torch.set_num_threads(1)
import stm_lab
from stm_lab import measure
model = stm_lab.build_model({mixer!r}, "micro", layer_scale=1.0)
images = torch.rand(1, 3, 1024, 1024)
measure.effective_receptive_field(model, images[..., :64, :64])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
field = measure.effective_receptive_field(model, images)
assert field.map.shape == (1024, 1024) and field.map.sum() > 0
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux alone")
@pytest.mark.parametrize(
    "mixer", soaked(("halo", "dcn_v3", "swin", "pvt", "convnext"), besides=["halo"])
)  # all five in `make test-slow`
def test_a_micro_network_at_1024_pixels_stays_below_a_gigabyte(mixer):
    child = subprocess.run(
        [sys.executable, "-c", PEAK.format(mixer=mixer)], capture_output=True, text=True, timeout=600, check=True
    )
    assert int(child.stdout.split()[-1]) < 1000  # MB above what the process held before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "replnet"}, "did you mean 'replknet'"),
        ({"cell": (24, 0)}, "rows 0 to 23"),
        ({"cell": (0, -1)}, "columns to 30"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message) as error:
        effective_receptive_field(Stack(conv(3, [[1.0]])), IMAGES, **options)
    assert "\n" not in str(error.value)
