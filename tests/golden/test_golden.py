"""The published micro models, with deterministic weights, to the last digits: logits, stages, single blocks, counts.

The golden numbers were made by the published code (arXiv 2211.05781) on CPU; `manifests/` are its state dicts' names.
float64 is the comparison with teeth: a wrong eps moves logits by as little as 3e-7.
"""

import json
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from filler import checksum, fill, image_input

import stm_lab

HERE = Path(__file__).parent
MIXERS = ("halo", "pvt", "pvt_v2", "swin", "convnext", "dcn_v3")
MODELS = json.loads((HERE / "models.json").read_text())


@cache
def golden(mixer: str) -> dict:
    return json.loads((HERE / "numbers" / f"unified_{mixer}_micro.json").read_text())


@cache
def published_state(mixer: str) -> dict[str, torch.Tensor]:
    return fill(json.loads((HERE / "manifests" / f"unified_{mixer}_micro.json").read_text()))


@cache
def weights_agree(mixer: str) -> bool:
    """Whether this machine draws the very weights of the numbers: the last bits of torch.randn can differ."""
    n, *sums = checksum(published_state(mixer))
    want_n, *want = golden(mixer)["weights_checksum_n_sum_abs"]
    assert n == want_n
    assert sums == pytest.approx(want, rel=1e-4)
    return all(abs(a - b) <= 1e-12 * abs(b) for a, b in zip(sums, want, strict=True))


@cache
def model(mixer: str, dtype: torch.dtype) -> torch.nn.Module:
    built = stm_lab.build_model(mixer, "micro", num_classes=1000)
    return stm_lab.load_published(built, published_state(mixer)).to(dtype).eval()


def tolerance(mixer: str, dtype: torch.dtype) -> dict:
    exact = dtype == torch.float64 and weights_agree(mixer)
    return {"atol": 1e-9, "rtol": 0} if exact else {"atol": 2e-5, "rtol": 1e-4}


def close(actual: torch.Tensor, wanted: object, **bounds: float) -> None:
    torch.testing.assert_close(actual.double(), torch.tensor(wanted, dtype=torch.float64), **bounds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mixer", MIXERS)
def test_logits_and_stages(mixer, dtype):
    key = str(dtype).removeprefix("torch.")
    wanted = golden(mixer)
    if mixer == "dcn_v3" and dtype == torch.float64:
        key = "float64_exact_reference_points"  # the published code rounds its reference points to float32
    wanted, bounds = wanted[key], tolerance(mixer, dtype)
    with torch.inference_mode():
        last, maps = model(mixer, dtype).forward_intermediates(image_input().to(dtype))
        logits = model(mixer, dtype).forward_head(last)
    close(logits[:, :16], wanted["logits16"], **bounds)
    close(logits.mean(1), wanted["mean"], **bounds)
    close(logits.std(1, unbiased=False), wanted["std"], **bounds)
    close(logits.double().norm(dim=1), wanted["l2"], atol=1e3 * bounds["atol"], rtol=bounds["rtol"])
    assert logits.argmax(1).tolist() == wanted["argmax"]
    for stage, stored in zip(maps, wanted["stages"], strict=True):
        assert list(stage.shape) == stored["shape"]
        _, C, H, W = stage.shape
        at = [(k % 2, (37 * k + 5) % C, (11 * k + 3) % H, (17 * k + 1) % W) for k in range(8)]
        close(torch.stack([stage[i] for i in at]), stored["values"], **bounds)
        close(stage.mean(), stored["mean"], **bounds)
        close(stage.std(unbiased=False), stored["std"], **bounds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mixer", MIXERS)
def test_single_blocks(mixer, dtype):
    blocks = json.loads((HERE / "numbers" / "blocks_micro.json").read_text())["models"][f"unified_{mixer}_micro"]
    bounds = tolerance(mixer, dtype)
    if mixer == "dcn_v3":  # only the published rounding exists here
        bounds = {"atol": max(bounds["atol"], 1e-6), "rtol": max(bounds["rtol"], 1e-6)}
    for name, wanted in blocks.items():
        stage, depth = (int(part) for part in name.split(".")[1:])
        block = model(mixer, dtype).stages[stage].blocks[depth]
        noise = torch.randn(wanted["shape"], generator=torch.Generator().manual_seed(1000 + 10 * stage + depth))
        x = tokens = noise.to(dtype).permute(0, 2, 3, 1)
        if depth == 0:
            x = model(mixer, dtype).stages[stage].position_embedding(x)
        entering_second_norm = []
        hook = block.norm2.register_forward_pre_hook(lambda _, args, kept=entering_second_norm: kept.append(args[0]))
        with torch.inference_mode():
            out = block(x)
        hook.remove()
        (mid,) = entering_second_norm
        stored = wanted[str(dtype).removeprefix("torch.")]
        close((mid - tokens).double().norm(), stored["mixer_branch_l2"], atol=1e3 * bounds["atol"], rtol=bounds["rtol"])
        for actual, kept in ((mid, stored["mid"]), (out, stored["out"])):
            actual = actual.permute(0, 3, 1, 2)
            close(torch.stack([actual[tuple(i)] for i in wanted["positions_nchw"]]), kept["values"], **bounds)
            close(actual.mean(), kept["mean"], **bounds)
            close(actual.std(unbiased=False), kept["std"], **bounds)


@pytest.mark.parametrize("name", MODELS)
def test_parameters(name):
    """All 25 models of the paper, in total and by part."""
    with torch.device("meta"):
        built = timm.create_model(name)
    assert sum(p.numel() for p in built.parameters()) == MODELS[name]["params"]
    for part, wanted in MODELS[name]["params_by_part"].items():
        assert sum(p.numel() for p in _parts(built, part)) == wanted, part


def _parts(built: torch.nn.Module, published: str) -> list[torch.nn.Parameter]:
    """The parameters that the published code keeps under this name."""
    kind, _, i = published.partition(".")
    if kind == "downsample_layers":
        return list((built.stages[int(i)].downsample if int(i) else built.stem).parameters())
    if kind == "stages":
        stage = built.stages[int(i)]
        return [*stage.blocks.parameters(), *stage.position_embedding.parameters()]
    if kind == "stage_norms":
        return list(built.stages[int(i)].norm.parameters())
    conv_head = [built.head.conv.weight, *built.head.norm.parameters()]
    return list(built.head.fc.parameters()) if kind == "head" else conv_head
