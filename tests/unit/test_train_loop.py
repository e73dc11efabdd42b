"""A training run: reproducible, counted rightly, kept in a folder that gives the model back."""

import itertools
import json
import pickle
import re

import pytest
import torch
from kinds import once, soaked
from torch.nn import functional as F

import stm_lab
from stm_lab import data
from stm_lab.train import __main__ as command
from stm_lab.train import evaluate, fit, list_presets, load_config, load_run
from stm_lab.train.batches import Batches
from stm_lab.train.trainer import Trainer
from stm_lab.util.errors import UserError


@pytest.fixture
def short(few, tmp_path):
    """A configuration of five steps with everything on that is random."""
    return {
        "mixer": "identity", "recipe": few, "epochs": 2.5, "batch_size": 16, "warmup_epochs": 0.5, "train_size": 40,
        "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "drop_path_rate": 0.2, "ema_decay": 0.9, "device": "cpu",
        "augmentation": {"flip": True, "crop": "pad", "erasing": 0.3}, "out": str(tmp_path / "run"),
    }  # fmt: skip


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# ---- order, seeds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "batch_size"), [(10, 3), (64, 64), (65, 64), (1000, 7)])
def test_an_epoch_is_a_permutation_of_its_own(size, batch_size):
    batches, orders = Batches(size, batch_size, seed=3), []
    for epoch in range(4):
        batches.epoch = epoch
        rows = list(itertools.chain.from_iterable(batches))
        assert len(list(batches)) == len(batches) == size // batch_size
        assert len(rows) == len(set(rows)) == batch_size * len(batches)
        assert set(rows) <= set(range(size))
        orders.append(tuple(rows))
    assert len(set(orders)) == 4
    assert tuple(itertools.chain.from_iterable(Batches(size, batch_size, seed=4))) != orders[0]


@pytest.mark.slow
@pytest.mark.parametrize(("mixer", "workers"), [("identity", 2), ("dcn_v3", 0)])
def test_one_configuration_gives_one_result_bit_for_bit(short, mixer, workers):
    """However many processes prepare its batches."""
    first = fit(short, mixer=mixer)
    torch.rand(3)  # whatever was drawn in between
    second = fit(short, mixer=mixer, workers=workers, force=True)
    assert_same(weights(first.model), weights(second.model))
    times = {"seconds", "images_per_second", "data_wait"}
    for one, other in zip(first.rows, second.rows, strict=True):
        assert {k: v for k, v in one.items() if k not in times} == {k: v for k, v in other.items() if k not in times}


@pytest.mark.slow
def test_another_seed_is_another_run(short):
    one, other = (weights(fit(short, epochs=1, seed=seed, force=True).model) for seed in (0, 1))
    assert not torch.equal(one["head.fc.weight"], other["head.fc.weight"])


@pytest.mark.slow
def test_mixers_of_one_seed_see_the_same_images_in_the_same_order(short):
    """What makes their results comparable in pairs."""
    orders = [list(Trainer(load_config(short, mixer=mixer), force=True).batches) for mixer in ("identity", "convnext")]
    assert orders[0] == orders[1]


# ---- what is optimized -----------------------------------------------------------------------------------------------


def test_a_step_is_adamw_on_the_smoothed_cross_entropy(short):
    """One step against the same one written out with torch alone."""
    config = load_config(short, mixup=0, cutmix=0, drop_path_rate=0, ema_decay=None, augmentation={"erasing": 0})
    trainer = Trainer(config)
    model = stm_lab.build_model("identity", "nano", num_classes=10)
    model.load_state_dict(trainer.raw.state_dict())
    model.train()
    images, labels = torch.rand(16, 3, 64, 64), torch.arange(16) % 10
    decays = [p for n, p in model.named_parameters() if p.ndim > 1]
    spared = [p for n, p in model.named_parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": 0.05}, {"params": spared, "weight_decay": 0.0}], lr=config.warmup_lr
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = model((images - mean[:, None, None]) / std[:, None, None])
    targets = F.one_hot(labels, 10) * 0.9 + 0.01
    loss = -(targets * logits.log_softmax(1)).sum(1).mean()
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    for parameter in model.parameters():
        parameter.grad.mul_((config.clip_grad / norm).clamp(max=1))
    optimizer.step()

    trainer.model.train()
    got_loss, got_norm = trainer.train_step([(images, labels)])
    assert got_loss == pytest.approx(loss.item(), rel=1e-5)
    assert got_norm == pytest.approx(norm.item(), rel=1e-4)
    for (name, expected), got in zip(model.named_parameters(), trainer.raw.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_average_is_of_its_own_run_and_warmed_up(short):
    """After the first step the average is the weights; then it trails them, far less than a plain average would."""
    trainer = Trainer(load_config(short, ema_decay=0.9999))
    trainer.model.train()
    start = weights(trainer.raw)["head.fc.weight"]
    trainer.train_step([(torch.rand(16, 3, 64, 64), torch.arange(16) % 10)])
    assert_same(weights(trainer.ema.module), weights(trainer.raw))
    for _ in range(20):
        trainer.train_step([(torch.rand(16, 3, 64, 64), torch.arange(16) % 10)])
    raw, ema = weights(trainer.raw)["head.fc.weight"], weights(trainer.ema.module)["head.fc.weight"]
    assert not torch.equal(raw, ema)
    assert (ema - start).norm() > 0.5 * (raw - start).norm()


@pytest.mark.slow
def test_it_learns(short):
    """Three kinds of images that differ in brightness are told apart after a few steps."""
    trainer = Trainer(load_config(short, mixup=0, cutmix=0, epochs=100, warmup_epochs=2, lr=3e-3, drop_path_rate=0))
    labels = torch.arange(16) % 3
    trainer.model.train()
    for _ in range(40):
        brightness = (labels * 0.3 + 0.1)[:, None, None, None]
        trainer.train_step([(brightness + 0.1 * torch.rand(16, 3, 64, 64), labels)])
    images = ((labels * 0.3 + 0.1)[:, None, None, None] + 0.1 * torch.rand(16, 3, 64, 64)) * 255
    for model in (trainer.raw, trainer.averaged):
        assert evaluate(model, images.to(torch.uint8), labels)[0] > 90


@pytest.mark.parametrize("precision", ["no", once("bf16")])
def test_precision_leaves_plain_models_behind(short, precision):
    result = fit(short, precision=precision, epochs=1)
    images = torch.rand(4, 3, 64, 64)
    clone = pickle.loads(pickle.dumps(result.model))
    assert result.model(images).dtype == torch.float32
    assert torch.equal(result.model(images), clone(images))
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}


def test_a_loss_that_is_not_finite_stops_the_run(short, monkeypatch):
    trainer = Trainer(load_config(short, ema_decay=None))
    step = trainer.train_step

    def poisoned(parts):
        if trainer.step == 3:
            parts = [(images * float("nan"), labels) for images, labels in parts]
        return step(parts)

    monkeypatch.setattr(trainer, "train_step", poisoned)
    with pytest.raises(RuntimeError, match=r"nan at step 3 of 5, learning rate \d.* the checkpoint of step 2 is good"):
        trainer.run()
    assert len((trainer.folder.path / "metrics.jsonl").read_text().splitlines()) == 1
    assert not (trainer.folder.path / "model.safetensors").exists()


@pytest.mark.parametrize(
    "option", ["channels_last", "grad_checkpointing", "fused", pytest.param("compile", marks=pytest.mark.slow)]
)
def test_what_makes_it_faster_or_smaller_changes_rounding_alone(short, tmp_path, monkeypatch, option):
    # inductor wants a compiler; what is tested is that compiling in place leaves names, averages and saving as they are
    monkeypatch.setattr(torch.nn.Module, "compile", _compile_eagerly)
    plain = {"mixer": "swin", "epochs": 1, "drop_path_rate": 0.0, "lr": 1e-4, "model_options": {"depths": [1] * 4}}
    value = option != "fused"
    runs = [fit(short, **plain, **{option: x}, out=str(tmp_path / str(x))) for x in (value, not value)]
    assert runs[0].metrics["loss"] == pytest.approx(runs[1].metrics["loss"], rel=1e-4)
    assert runs[0].metrics["validation_loss"] == pytest.approx(runs[1].metrics["validation_loss"], rel=1e-3)
    assert weights(load_run(runs[0].run_dir)).keys() == weights(load_run(runs[1].run_dir)).keys()


def _compile_eagerly(module):
    module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")


@pytest.mark.slow
def test_rows_reach_the_tracker(short, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = fit(short, tracker="tensorboard")
    (file,) = result.run_dir.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    for name in ("top1", "loss", "lr", "data_wait"):
        tracked = [(event.step, event.value) for event in events.Scalars(name)]
        assert tracked == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in result.rows]


def test_a_run_starts_from_weights(short, tmp_path):
    first = fit(short, epochs=1, out=str(tmp_path / "first"))
    start = weights(Trainer(load_config(short, weights=str(first.run_dir)), force=True).raw)
    assert_same(start, weights(first.model))
    again = Trainer(load_config(short, weights=str(first.run_dir / "model.safetensors"), seed=5), force=True)
    assert_same(weights(again.raw), weights(first.model))
    with pytest.raises(UserError, match=r"weights = 'nowhere': no such file; expected 'none', 'pretrained'"):
        fit(short, weights="nowhere")


# ---- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), once(7, 3), (8, 4), (50, 256)])
def test_evaluation_counts_each_image_once(count, batch_size):
    model = stm_lab.build_model("identity", "nano", num_classes=3)
    torch.nn.init.normal_(model.head.fc.weight)
    images, labels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 3
    top1, loss = evaluate(model, images, labels, batch_size=batch_size)
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        alone = torch.cat([model.eval()((image[None] / 255 - mean) / std) for image in images])
    assert top1 == pytest.approx(100 * (alone.argmax(1) == labels).float().mean().item())
    assert loss == pytest.approx(F.cross_entropy(alone, labels).item(), rel=1e-4)


@pytest.mark.slow
def test_rows_agree_with_the_saved_weights_on_the_whole_split(short, few):
    result = fit(short)
    images, labels = data.to_tensors(data.load(few, "validation"), 64)
    top1, loss = evaluate(load_run(result.run_dir), images, labels)
    assert top1 == result.rows[-1]["top1"] == result.metrics["top1"]
    assert loss == pytest.approx(result.rows[-1]["validation_loss"], rel=1e-5)
    assert result.metrics["weights"] == "ema"
    raw = fit(short, ema_decay=None, force=True)
    assert raw.metrics["weights"] == "raw"
    assert raw.metrics["top1"] == raw.metrics["top1_raw"]


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_the_folder_holds_the_run(short):
    result = fit(short)
    assert {path.name for path in result.run_dir.iterdir()} == {
        ".lock", "checkpoints", "config.yaml", "environment.json", "metrics.jsonl", "model.safetensors"
    }  # fmt: skip
    assert [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()] == result.rows
    assert [row["epoch"] for row in result.rows] == [1, 2, 2.5]
    assert [row["step"] for row in result.rows] == [2, 4, 5]
    assert all(0 <= row["data_wait"] <= 1 and row["images_per_second"] > 0 for row in result.rows)
    assert load_config(result.run_dir / "config.yaml") == load_config(short)
    environment = json.loads((result.run_dir / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert not result.model.training


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["pvt", "dcn_v3"])
def test_a_folder_gives_its_model_back(short, mixer):
    """Also pvt's, whose position embedding has the size of the images."""
    small = {"image_size": 96, "train_size": 8, "validation_size": 10, "batch_size": 8, "epochs": 1}
    result = fit(short, mixer=mixer, **small)
    loaded = load_run(result.run_dir)
    assert_same(weights(result.model), weights(loaded))
    images = torch.rand(2, 3, 96, 96)
    assert torch.equal(result.model(images), loaded(images))


def test_options_of_the_design_are_part_of_the_run(short):
    result = fit(short, mixer="swin", epochs=1, model_options={"window": 2, "depths": [1, 1, 1, 1]})
    assert sum("bias_table" in name for name in load_run(result.run_dir).state_dict()) == 4


def test_a_forced_run_leaves_nothing_of_the_one_before(short):
    folder = fit(short).run_dir
    Trainer(load_config(short, lr=1e-4), force=True)
    assert not list(folder.glob("checkpoints/*"))
    assert not (folder / "model.safetensors").exists()
    assert (folder / "metrics.jsonl").read_text() == ""
    with pytest.raises(UserError, match="not finished"):
        load_run(folder)


def test_plugins_bring_mixers(short, tmp_path, monkeypatch):
    plugin = tmp_path / "blur.py"
    plugin.write_text(
        "import stm_lab, torch\n\n@stm_lab.register_mixer('blur_of_test')\nclass Blur(torch.nn.Module):\n"
        "    def __init__(self, dim, *, amount=0.5):\n        super().__init__()\n        self.amount = amount\n\n"
        "    def forward(self, x):\n        return x + self.amount * x.mean((1, 2), keepdim=True)\n"
    )
    result = fit(short, mixer="blur_of_test", plugins=[str(plugin)], epochs=1)
    monkeypatch.delitem(stm_lab.mixers.registry._mixers, "blur_of_test")
    assert_same(weights(result.model), weights(load_run(result.run_dir)))
    monkeypatch.delitem(stm_lab.mixers.registry._mixers, "blur_of_test")
    plugin.write_text("import stm_lab\n\nstm_lab.nothing\n")
    with pytest.raises(UserError, match=r"blur.py' line 3: AttributeError"):
        fit(short, plugins=[str(plugin)])


def test_load_run_says_what_is_wrong(short, tmp_path):
    result = fit(short, epochs=1)
    with pytest.raises(UserError, match="no such folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.yaml: it is no training folder"):
        load_run(tmp_path)
    config = result.run_dir / "config.yaml"
    config.write_text(config.read_text().replace("mixer: identity", "mixer: swin"))
    with pytest.raises(UserError, match="does not fit this model of mixer 'swin'") as error:
        load_run(result.run_dir)
    assert "\n" not in str(error.value)
    assert any("relative_position_bias_table" in name for name in error.value.missing)
    (result.run_dir / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not the weights of a training run"):
        load_run(result.run_dir)


# ---- what cannot be trained ------------------------------------------------------------------------------------------

WRONG = {
    "mixer": ({"mixer": "swim"}, "did you mean 'swin'?"),
    "scale": ({"scale": "nanno"}, "did you mean 'nano'?"),
    "option": ({"mixer": "swin", "model_options": {"windwo": 4}}, "did you mean 'window'?"),
    "window": ({"mixer": "swin", "model_options": {"window": 0}}, "window=0 must be at least 1"),
    "argument": ({"model_options": {"num_classes": 5}}, "unknown option 'num_classes'"),
    "recipe": ({"recipe": "shape"}, "did you mean 'shapes'?"),
    "train_size": ({"train_size": 1000}, "train_size = 1000: few has 48 train images"),
    "batch_size": ({"batch_size": 64}, "batch_size = 64 is more than the 40 training images"),
    "precision": ({"precision": "fp16"}, "precision = 'fp16' needs a GPU"),
    "plugin": ({"plugins": ["none.py"]}, "plugin 'none.py': no such file"),
}


@pytest.mark.parametrize(("values", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_refused_before_anything_is_written(short, values, says):
    with pytest.raises(UserError, match=re.escape(says)) as error:
        fit(short, **values)
    assert "\n" not in str(error.value)
    assert not load_config(short).run_dir().exists()


def test_an_unwritable_folder_is_named(short, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out = '.*file/run': Not a directory"):
        fit(short, out=str(tmp_path / "file" / "run"))


def test_command_line(short, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(load_config(short).to_yaml())
    assert command.main([str(path), "-p", "epochs=1", "-p", "augmentation.erasing=0"]) == 0
    captured = capsys.readouterr()
    assert re.match(r"top1 \d+\.\d\d% \(ema\) in \d+\.\d s: /", captured.out)
    assert re.search(r"identity nano on few.*: 2/2 \(100%\) steps", captured.err)
    assert command.main([str(path), "-p", "lr=x"]) == 2
    assert command.main(["quikc"]) == 2
    error = capsys.readouterr().err
    assert "lr = 'x'" in error
    assert "did you mean 'quick'?" in error
    assert len(error.splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("preset", soaked(list_presets(), besides=["quick", "class", "paper-cnn"]))
def test_presets_run(few, tmp_path, preset):
    tiny = {"train_size": 16, "validation_size": 10, "batch_size": 8, "epochs": 1, "warmup_epochs": 0.5, "workers": 0}
    tiny |= {"image_size": 64, "precision": "no"}  # a CPU has no fp16
    result = fit(preset, **tiny, recipe=few, scale="nano", mixer="pvt", device="cpu", out=str(tmp_path / "run"))
    assert load_run(result.run_dir).num_classes == 10
