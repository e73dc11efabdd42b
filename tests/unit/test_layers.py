"""The linear layer that is called as a convolution, and what mixers may cost: facts that need no clock."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from stm_lab import build_model
from stm_lab.layers import LinearByConvolution


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
