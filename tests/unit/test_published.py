"""Checkpoints of the published code: read safely, translated, fitted, refused as a whole if anything does not fit."""

import argparse
import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from filler import fill

from stm_lab import UserError, build_model, list_scales, load_published
from stm_lab.published import CheckpointMismatch, _kind, kind_of

MANIFESTS = Path(__file__).parents[1] / "golden" / "manifests"
FAMILIES = ("halo", "pvt", "pvt_v2", "swin", "convnext", "dcn_v3")


def published(mixer: str) -> dict[str, torch.Tensor]:
    return fill(json.loads((MANIFESTS / f"unified_{mixer}_micro.json").read_text()))


def micro(mixer: str, **options) -> torch.nn.Module:
    return build_model(mixer, "micro", num_classes=1000, **options).eval()


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def swin():
    return published("swin")


@pytest.mark.slow
def test_every_number_of_every_family_arrives_once():
    """Nothing is lost or doubled: the multiset of loaded values is that of the file, index and mask buffers aside."""
    for mixer in FAMILIES:
        state = published(mixer)
        model = load_published(micro(mixer), state)
        kept = [t for n, t in state.items() if not n.endswith(("relative_position_index", "attn_mask"))]
        wanted = torch.cat([t.double().flatten() for t in kept]).sort().values
        loaded = torch.cat([t.double().flatten() for t in model.state_dict().values()]).sort().values
        torch.testing.assert_close(loaded, wanted, rtol=0, atol=0)


@pytest.mark.slow
def test_a_file_tells_its_mixer_scale_and_classes():
    """Of every mixer with published weights at every scale, by names and shapes alone."""
    for mixer in FAMILIES:
        for scale in list_scales(mixer):
            with torch.device("meta"):
                state = build_model(mixer, scale, num_classes=17).state_dict()
            assert _kind(state)[:2] == (f"unified_{mixer}_{scale}", 17)
            other = {name: tensor for name, tensor in state.items() if not name.startswith("stages.2.blocks.1.")}
            assert _kind(other)[:2] == (None, 17)  # depths that no scale has
    assert _kind(build_model("identity", "nano").state_dict())[:2] == (None, 10)
    assert _kind({"conv1.weight": torch.zeros(3)})[:2] == (None, None)


@pytest.mark.parametrize("mixer", FAMILIES)
def test_a_published_file_tells_them_too(mixer, tmp_path):
    torch.save({"model": published(mixer)}, tmp_path / "x.pth")
    assert kind_of(tmp_path / "x.pth")[:2] == (f"unified_{mixer}_micro", 1000)


@pytest.mark.parametrize("key", ["model", "model_ema", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapped_or_not(tmp_path, swin, key, prefix):
    state = {prefix + name: tensor for name, tensor in swin.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}}
    beside = {"optimizer": optimizer, "epoch": 299, "args": argparse.Namespace(lr=1e-3)}
    path = tmp_path / "checkpoint.pth"
    torch.save(state if key is None else {key: state, **beside}, path)
    loaded = load_published(micro("swin"), path)
    torch.testing.assert_close(weights(loaded), weights(load_published(micro("swin"), swin)), rtol=0, atol=0)


def test_safetensors(tmp_path, swin):
    safetensors.torch.save_file(swin, tmp_path / "swin.safetensors")
    loaded = load_published(micro("swin"), str(tmp_path / "swin.safetensors"))
    torch.testing.assert_close(weights(loaded), weights(load_published(micro("swin"), swin)), rtol=0, atol=0)


def test_ema_is_preferred_unless_told_otherwise(swin):
    both = {"model": swin, "model_ema": {name: tensor + 1 for name, tensor in swin.items()}}
    bias = swin["head.bias"]
    assert load_published(micro("swin"), both).head.fc.bias.equal(bias + 1)
    assert load_published(micro("swin"), both, use_ema=False).head.fc.bias.equal(bias)
    with pytest.raises(UserError, match="EMA weights only; call with use_ema=True"):
        load_published(micro("swin"), {"model_ema": swin}, use_ema=False)


def test_another_image_size_resizes_pvts_position_embedding():
    state = published("pvt")
    model = load_published(micro("pvt", img_size=(256, 192)), state)
    for i, stage in enumerate(model.stages):
        size = (64 // 2**i, 48 // 2**i)
        wanted = F.interpolate(state[f"stages.{i}.0.pos_embed"], size, mode="bilinear", align_corners=True)
        torch.testing.assert_close(stage.position_embedding.weight.detach(), wanted.permute(0, 2, 3, 1))


def test_another_window_resizes_swins_table_and_another_block_halos(swin):
    model = load_published(micro("swin", window=12, shift=[0, 6]), swin)
    name = "relative_position_bias_table"
    table = swin[f"stages.2.3.attn.{name}"].t().reshape(1, 4, 13, 13)
    wanted = F.interpolate(table, (23, 23), mode="bicubic", align_corners=False)[0].flatten(1).t()
    torch.testing.assert_close(getattr(model.stages[2].blocks[3].mixer, name).detach(), wanted)

    state = published("halo")
    model = load_published(micro("halo", block=8, halo=4), state)  # window 16, 31 rows
    rows = state["stages.1.0.attn.pos_embed.height_rel"]
    at = torch.linspace(0, 24, 31)  # corners aligned: the ends stay
    wanted = torch.lerp(rows[at.long()], rows[at.long().add(1).clamp(max=24)], at.frac()[:, None])
    torch.testing.assert_close(model.stages[1].blocks[0].mixer.height_rel.detach(), wanted, rtol=0, atol=1e-5)


def test_all_that_does_not_fit_is_listed_at_once_and_nothing_is_changed(swin):
    state = dict(swin)
    del state["head.bias"], state["stages.1.0.norm1.weight"]
    state["extra"] = torch.zeros(1)
    state["stage_norms.0.weight"] = torch.zeros(33)
    model = micro("swin")
    before = weights(model)
    with pytest.raises(CheckpointMismatch) as error:
        load_published(model, state)
    assert error.value.missing == ["head.fc.bias", "stages.1.blocks.0.norm1.weight"]
    assert error.value.unexpected == ["extra"]
    assert error.value.misshapen == ["stages.0.norm.weight: (33,) for (32,)"]
    for name in ("head.fc.bias", "stages.1.blocks.0.norm1.weight", "extra", "stages.0.norm.weight"):
        assert name in str(error.value)
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("mixer", FAMILIES)
def test_a_checkpoint_of_another_model_is_recognised(mixer):
    other = "convnext" if mixer != "convnext" else "halo"
    with pytest.raises(UserError, match=f"of mixer '{other}', it looks like one of mixer '{mixer}'") as error:
        load_published(micro(other), published(mixer))
    assert "\n" not in str(error.value)


def test_another_scale_and_other_classes_are_misshapen(swin):
    with pytest.raises(CheckpointMismatch, match="misshapen"):
        load_published(build_model("swin", "tiny", num_classes=1000), swin)
    with pytest.raises(CheckpointMismatch, match=r"head.fc.bias: \(1000,\) for \(10,\)"):
        load_published(build_model("swin", "micro", num_classes=10), swin)


class Attack:
    """What a hostile pickle looks like: loading it would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def bare_pickle(obj: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(obj, protocol=2))


@pytest.mark.parametrize("write", [torch.save, bare_pickle])
def test_a_pickle_that_wants_to_run_code_does_not(tmp_path, write):
    path, marker = tmp_path / "evil.pth", tmp_path / "ran"
    write({"args": Attack(marker), "epoch": 3}, path)
    with pytest.raises(UserError, match=r"evil.pth is refused: it wants to run (posix|nt)\.system") as error:
        load_published(micro("swin"), path)
    assert "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize("mixer", FAMILIES)
def test_our_own_names_load_as_they_are(tmp_path, mixer):
    own, path = build_model(mixer, "nano").state_dict(), tmp_path / "own.safetensors"
    safetensors.torch.save_file(own, path)
    for source in (own, {"model": own}, path):
        torch.testing.assert_close(weights(load_published(build_model(mixer, "nano"), source)), own, rtol=0, atol=0)


@pytest.mark.slow
def test_files_that_hold_no_weights(tmp_path, swin):
    text, torn, listed = tmp_path / "text.pth", tmp_path / "torn.pth", tmp_path / "list.pth"
    text.write_text("not a checkpoint")
    torch.save(swin, torn)
    torn.write_bytes(torn.read_bytes()[:5000])
    torch.save([torch.zeros(2)], listed)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"12345678901234567890")
    empty = tmp_path / "empty.pth"
    empty.write_bytes(b"")
    for path in (text, torn, bad, empty):
        with pytest.raises(UserError, match=r"is refused: it is no .safetensors file and no plain file of torch.save"):
            load_published(micro("swin"), path)
    with pytest.raises(UserError, match="holds a list, not a dictionary"):
        load_published(micro("swin"), listed)
    with pytest.raises(
        UserError, match=r"no such checkpoint: .*missing\.pth; the published ones are at https://github"
    ):
        load_published(micro("swin"), tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"holds no weights.*'epoch' is a int"):
        load_published(micro("swin"), {"epoch": 3})
    with pytest.raises(UserError, match="it is empty"):
        load_published(micro("swin"), {"model": {}})
