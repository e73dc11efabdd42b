"""One test per property, over all mixers."""

import inspect
import subprocess
import sys

import naive_mixers
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stm_lab import UserError, list_mixers
from stm_lab.mixers import get_mixer, option_names, register_mixer, registry

MIXERS = list_mixers()
# small windows, so that small maps have several; what a mixer's signature has not is left out
VARIANTS = [
    {"heads": 2, "block": 4, "halo": 2, "window": 4, "shift": 2, "reduction": 2, "kernel": 5},
    {"heads": 4, "block": 3, "halo": 1, "window": 3, "shift": 0, "reduction": 1, "kernel": 7},
]
SIZES = [(8, 8), (9, 6), (5, 11), (2, 7), (3, 3), (1, 1), (1, 4)]


def make(name: str, dim: int = 16, seed: int = 0, **options) -> torch.nn.Module:
    """A mixer with weights large enough that every part of it matters, in float64."""
    torch.manual_seed(seed)
    mixer = get_mixer(name)(dim, **{k: v for k, v in options.items() if k in option_names(name)}).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            std = 0.5 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(std * torch.randn_like(parameter))
    return mixer


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("options", VARIANTS, ids=["shifted", "plain"])
@pytest.mark.parametrize("name", MIXERS)
def test_equals_its_definition(name, options, size):
    """At any size, padded or not, the fast mixer is the naive one: so nothing in the padding is ever heard."""
    mixer, x = make(name, **options), tokens(2, *size, 16)
    with torch.no_grad():
        wanted = torch.stack([getattr(naive_mixers, name)(mixer, image) for image in x])
        torch.testing.assert_close(mixer(x), wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", MIXERS)
def test_another_default_device_changes_nothing(name):
    mixer, x = make(name, **VARIANTS[0]), tokens(1, 6, 7, 16)
    with torch.no_grad():
        wanted = mixer(x)
        with torch.device("meta"):
            assert torch.equal(mixer(x), wanted)


@pytest.mark.parametrize("name", MIXERS)
def test_default_options_do(name):
    mixer = get_mixer(name)(64)
    assert mixer(torch.randn(1, 14, 9, 64)).shape == (1, 14, 9, 64)


@pytest.mark.parametrize("size", [(8, 8), (7, 10)], ids=str)
@pytest.mark.parametrize("name", MIXERS)
def test_gradients_are_true(name, size):
    """Every parameter has a gradient, and it is the slope (finite differences along one random direction)."""
    mixer, x = make(name, dim=8, **VARIANTS[0]), tokens(1, *size, 8)
    leaves = [x.requires_grad_(), *mixer.parameters()]
    weight = tokens(1, *size, 8, seed=2)
    grads = torch.autograd.grad((mixer(x) * weight).sum(), leaves)
    assert all(grad.abs().sum() > 0 for grad in grads)
    directions = [torch.randn(leaf.shape, generator=torch.Generator().manual_seed(3)).double() for leaf in leaves]
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for leaf, direction in zip(leaves, directions, strict=True):
                leaf += sign * step * direction
            values.append((mixer(x) * weight).sum().item())
            for leaf, direction in zip(leaves, directions, strict=True):
                leaf -= sign * step * direction
    slope = (values[0] - values[1]) / (2 * step)
    expected = sum((grad * direction).sum().item() for grad, direction in zip(grads, directions, strict=True))
    assert slope == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", MIXERS)
def test_images_do_not_hear_each_other(name):
    mixer, x = make(name, **VARIANTS[0]), tokens(3, 9, 6, 16)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x)[1:2], mixer(x[1:2]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("options", VARIANTS, ids=["shifted", "plain"])
@pytest.mark.parametrize("name", MIXERS)
def test_no_images_are_no_images(name, options, size):
    mixer, x = make(name, **options), tokens(0, *size, 16).requires_grad_()
    out = mixer(x)
    assert out.shape == x.shape
    out.sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in mixer.parameters())


@pytest.mark.parametrize("name", MIXERS)
def test_no_memory_of_sizes_and_dtypes(name):
    """The same mixer gives the same answer after any other size and dtype went through it."""
    mixer, x = make(name, **VARIANTS[0]), tokens(1, 9, 6, 16)
    with torch.no_grad():
        before = mixer(x)
        for size in [(5, 11), (2, 2), (12, 8)]:
            mixer(tokens(1, *size, 16))
        mixer.float()(x.float())
        torch.testing.assert_close(mixer.double()(x), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MIXERS)
def test_autocast(name, dtype):
    """Forward and backward run in half the bits, and land near float32."""
    mixer, x = make(name, **VARIANTS[0]).float(), tokens(2, 9, 6, 16).float().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        out = mixer(x)
    out.float().square().mean().backward()
    assert torch.isfinite(x.grad).all()
    error = (out.float() - mixer(x)).norm() / mixer(x).norm()
    assert error < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("size", [(14, 14), (9, 6), (5, 11)], ids=str)
@pytest.mark.parametrize("options", [*VARIANTS, {}], ids=["shifted", "plain", "default"])
@pytest.mark.parametrize("name", MIXERS)
def test_cost_formula_equals_the_counter(name, options, size):
    """`macs(H, W)` is what torch counts, attention taken as plain matrix products."""
    with torch.device("meta"):
        mixer = get_mixer(name)(32, **{k: v for k, v in options.items() if k in option_names(name)})
        x = torch.empty(1, *size, 32)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        mixer(x)
    assert mixer.macs(*size) == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["convnext", "pvt", "dcn_v3"])
def test_convolutions_read_tokens_without_a_copy(name, monkeypatch):
    """What reaches conv2d is a channels_last view of contiguous tokens."""
    seen, conv2d = [], torch.nn.functional.conv2d

    def spy(x, *args, **kwargs):
        seen.append(x)
        return conv2d(x, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "conv2d", spy)
    with torch.no_grad():
        make(name, **VARIANTS[0])(tokens(2, 8, 8, 16))
    assert seen
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    assert all(x._base is not None for x in seen), "a view of the tokens, not a new tensor"


def test_list_is_in_the_papers_order():
    assert MIXERS[:8] == ["halo", "pvt", "pvt_v2", "swin", "convnext", "dcn_v3", "identity", "pooling"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("halo", {"heads": 3}, "heads=3 does not divide dim=16"),
        ("swin", {"heads": 5}, "heads=5 does not divide dim=16"),
        ("pvt", {"heads": 0}, "heads=0 does not divide dim=16"),
        ("dcn_v3", {"heads": 7}, "heads=7 does not divide dim=16"),
        ("swin", {"window": 0}, "window=0 must be at least 1"),
        ("swin", {"window": 4, "shift": 4}, "shift=4 must be at least 0 and less than window=4"),
    ],
)
def test_options_that_make_no_mixer(name, options, says):
    with pytest.raises(UserError, match=says):
        get_mixer(name)(16, **options)


def test_unknown_mixer_names_the_nearest():
    with pytest.raises(UserError, match="unknown mixer 'swim'; did you mean 'swin'"):
        get_mixer("swim")


def test_registering_refuses_what_breaks_the_contract():
    class Swallows(torch.nn.Module):
        def __init__(self, dim, **kwargs):
            super().__init__()

    class NeedsMore(torch.nn.Module):
        def __init__(self, dim, *, size):
            super().__init__()

    class OtherName(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()

    for cls, says in [
        (Swallows, "option 'kwargs' must be keyword-only"),
        (NeedsMore, "'size' needs a default"),
        (OtherName, "must be called 'dim', not 'channels'"),
        (len, "must be a subclass of torch.nn.Module"),
    ]:
        with pytest.raises(UserError, match=says):
            register_mixer("broken")(cls)
    with pytest.raises(UserError, match="must be an identifier"):
        register_mixer("my mixer")
    assert "broken" not in list_mixers()


@pytest.mark.parametrize("name", MIXERS)
def test_a_description_without_import_is_that_of_the_class(name, monkeypatch):
    imported = registry.get_mixer(name)
    with_class = registry.described(name)
    monkeypatch.setitem(registry._mixers, name, None)
    assert registry.described(name) == with_class
    assert registry.option_names(name) == list(inspect.signature(imported).parameters)[1:]


@pytest.mark.slow
def test_a_mixer_that_replaces_ours_before_ours_is_imported_stays():
    code = (
        "import stm_lab, torch\n"
        "@stm_lab.register_mixer('swin')\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self, dim): super().__init__()\n"
        "from stm_lab.mixers import ShiftedWindowAttention, get_mixer\n"
        "assert get_mixer('swin') is Mine\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
