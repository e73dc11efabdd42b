"""The linear layer that is called as a convolution, and what mixers may cost: facts that need no clock."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from stm_lab import build_model
from stm_lab.layers import LinearByConvolution
from stm_lab.mixers import get_mixer, list_mixers


def operators(work) -> dict[str, int]:
    with profile() as made:
        work()
    return {event.key: event.count for event in made.key_averages()}


def by_convolution(module: nn.Module) -> nn.Module:
    """A copy whose linear layers are all called as convolutions, where they are large enough."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = LinearByConvolution
    return module


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(8, 28, 28, 64), (2, 3136, 64), (6273, 64), (3, 57, 37, 64)], ids=str)
def test_a_linear_layer_by_convolution_is_a_linear_layer(shape, bias):
    """Output and all gradients, to float32's rounding, on maps of any shape, views among them."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 96, bias=bias)
    other = by_convolution(nn.Sequential(layer))[0]
    assert other.state_dict().keys() == layer.state_dict().keys()
    for x in (torch.randn(shape), torch.randn(*shape[:-1], 128)[..., ::2]):
        weight, found = torch.randn(*shape[:-1], 96), []
        for each in (layer, other):
            given = x.clone().requires_grad_()
            out = each(given)
            found.append((out, *torch.autograd.grad((out * weight).sum(), (given, *each.parameters()))))
        for one, two in zip(*found, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5 * one.abs().max().item())
    assert "aten::conv2d" in operators(lambda: other(torch.randn(shape)))


def test_what_is_small_or_not_plain_stays_a_product():
    layer, large = LinearByConvolution(64, 96), torch.randn(4, 40, 40, 64)

    def is_product(work):
        return "aten::conv2d" not in operators(work)

    assert not is_product(lambda: layer(large))
    assert is_product(lambda: layer(large[:1, :8]))
    assert is_product(lambda: copy.deepcopy(layer).double()(large.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert is_product(lambda: layer(large))
    with torch.backends.mkldnn.flags(enabled=False):
        assert is_product(lambda: layer(large))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        layer(large[..., :32])
    traced = torch.fx.symbolic_trace(nn.Sequential(layer))
    assert torch.equal(traced(large), nn.functional.linear(large, layer.weight, layer.bias))
    assert "convolution" not in str(torch.jit.trace(layer, large).inlined_graph)
    assert "conv" not in str(torch.export.export(layer, (large,)).graph)


def test_a_network_by_convolutions_has_the_same_logits_and_multiply_adds():
    model, x = build_model("swin", "micro", layer_scale=1.0).eval(), torch.randn(2, 3, 224, 224)
    found = []
    for each in (model, by_convolution(model)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            found.append((each(x), counter.get_total_flops()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-4)
    assert found[0][1] == found[1][1]


@pytest.fixture
def one_thread():
    """Attention's kernels have scratch memory for each thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# mixer: recorded operators, copies and allocated bytes (in maps of tokens), forward without gradients | with backward
RECORDED = {
    "halo": ((152, 5, 24.5), (419, 15, 86.6)),
    "pvt": ((70, 3, 6.4), (228, 6, 22.2)),
    "swin": ((105, 5, 11.9), (288, 10, 36.9)),
    "convnext": ((34, 2, 3.0), (126, 5, 16.2)),
    "dcn_v3": ((239, 20, 24.4), (432, 29, 76.2)),
    "identity": ((0, 0, 0.0), (10, 1, 1.0)),
    "pooling": ((6, 0, 2.0), (36, 3, 6.0)),
}


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", RECORDED)
def test_what_a_pass_launches_copies_and_allocates(name, backward, one_thread):
    """No more than was recorded, with room for another version of torch; no clock is needed to see what got slower."""
    module, x = get_mixer(name)(64), torch.randn(2, 28, 28, 64, requires_grad=backward)

    def work():
        with torch.set_grad_enabled(backward):
            out = module(x)
            if backward:
                out.sum().backward()

    work()  # index tensors are kept from here on
    with profile(profile_memory=True) as made:
        work()
    events = made.key_averages()
    launched = sum(event.count for event in events if event.key.startswith("aten::"))
    copied = sum(event.count for event in events if event.key == "aten::copy_")
    memory = (event.nbytes() for event in made.profiler.kineto_results.events() if event.name() == "[memory]")
    allocated = sum(size for size in memory if size > 0) / x.nbytes
    number, copies, maps = RECORDED[name][backward]
    assert launched <= 1.15 * number + 5
    assert copied <= copies + 1
    assert allocated <= 1.1 * maps + 0.1


def test_every_operator_of_ours_has_a_record():
    assert set(list_mixers()[:8]) - {"pvt_v2"} == set(RECORDED)  # pvt's operator
