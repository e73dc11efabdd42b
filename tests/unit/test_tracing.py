"""Networks that other tools take apart: torch.fx, torchvision's feature extractor, torch.jit and torch.export."""

import copy
import pickle

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.export import Dim, export
from torchvision.models.feature_extraction import create_feature_extractor

from stm_lab import UserError, build_model, list_mixers
from stm_lab.mixers import get_mixer

MIXERS = list_mixers()
CUT = ("halo", "swin")  # they cut the map by its size
SMALL = {"depths": (1, 2, 1, 1), "layer_scale": 1.0}


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("design", ["unified", "original"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_torchvision_extracts_the_maps_that_the_network_computes(mixer, design):
    """The trace is no record of one size: it gives the network's maps, weights and gradients at others, too."""
    model = build_model(mixer, "nano", design=design, **SMALL).eval()
    inner = {} if mixer in ("identity", "pooling") else {"stages.1.blocks.1.mixer": "mixed"}
    net = create_feature_extractor(model, {f"stages.{i}": str(i) for i in range(4)} | {"head": "head"} | inner)
    for x in (images(75, 50), images(28, 28), images(1, 1)):
        seen = []
        hook = model.stages[1].blocks[1].mixer.register_forward_hook(lambda *given, seen=seen: seen.append(given[2]))
        maps, logits = model.forward_intermediates(x, intermediates_only=True), model(x)
        hook.remove()
        found = net(x)
        assert torch.equal(found.pop("head"), logits)
        if inner:
            assert torch.equal(found.pop("mixed"), seen[0])
        assert all(torch.equal(one, other) for one, other in zip(found.values(), maps, strict=True))
    net(images(64, 64))["3"].sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("head.")}


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_mixer_alone_is_traced(mixer):
    module = get_mixer(mixer)(16).eval()
    traced = torch.fx.symbolic_trace(module)
    for size in ((9, 11), (14, 14), (1, 4)):
        x = torch.randn(2, *size, 16)
        assert torch.equal(traced(x), module(x))


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["dcn_v3", "convnext"])
def test_a_network_is_exported_for_images_between_two_sizes(mixer):
    model, x = build_model(mixer, "nano", **SMALL).eval(), images(64, 96)
    sides = {2: Dim("h", min=64, max=256), 3: Dim("w", min=64, max=256)}
    made = export(model, (x,), dynamic_shapes=(sides,))
    for other in (x, images(100, 70)):
        torch.testing.assert_close(made.module()(other), model(other))


@pytest.mark.parametrize("mixer", MIXERS)
def test_an_export_gives_what_the_mixer_gives(mixer):
    """Height and width may be dynamic where nothing is cut by them; where they may not, one line says so."""
    options = {"reduction": 2} if mixer == "pvt" else {}
    module = get_mixer(mixer)(16, **options).eval()
    free, x = {1: Dim("H", min=4, max=64), 2: Dim("W", min=4, max=64)}, torch.randn(2, 9, 11, 16)
    if mixer in CUT:
        with pytest.raises(
            UserError, match=f"{mixer}: torch.export with dynamic height or width.* export for one size"
        ):
            export(module, (x,), dynamic_shapes=(free,))
        made, others = export(module, (x,), dynamic_shapes=({0: Dim("B")},)), (x[:1], torch.cat((x, x)))
    else:
        made, others = export(module, (x,), dynamic_shapes=({0: Dim("B"), **free},)), (x[:1], torch.randn(3, 7, 5, 16))
    for other in (x, *others):
        torch.testing.assert_close(made.module()(other), module(other))


@pytest.mark.slow
def test_an_export_gives_the_networks_logits_at_other_sizes():
    model, x = build_model("pvt", "nano", **SMALL).eval(), images(96, 80)
    dynamic = {0: Dim("B"), 2: Dim("H", min=64, max=512), 3: Dim("W", min=64, max=512)}
    made = export(model, (x,), dynamic_shapes=(dynamic,)).module()
    for other in (x[:1], images(65, 130)):
        torch.testing.assert_close(made(other), model(other), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mixer", ["halo", "swin", "dcn_v3"])
def test_index_tensors_are_kept_but_not_those_of_a_mode(mixer, monkeypatch):
    """A first pass without storage, with fake tensors or in inference mode leaves nothing that breaks a later one."""
    module, size = get_mixer(mixer)(16), (2, 10, 13, 16)  # a size of this test alone
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        module(fake.from_tensor(torch.randn(size)))
    copy.deepcopy(module).to("meta")(torch.empty(size, device="meta"))
    with torch.inference_mode():
        module(torch.randn(size))
    export(module, (torch.randn(size),))
    for one in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        one(torch.randn(size)).sum().backward()
    made = []
    monkeypatch.setattr(torch, "arange", lambda *sizes, **options: made.append(sizes))
    module.eval()(torch.randn(size))
    assert not made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_jit_traces_one_size_and_does_not_script():
    """As the docstring of the backbone says."""
    model, x = build_model("swin", "nano", **SMALL).eval(), images(70, 64)
    torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x))
    with pytest.raises(RuntimeError):
        torch.jit.script(model)
