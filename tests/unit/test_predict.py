"""Predictions: images and models as in training, every finished one of a run, and one line for what is wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from filler import fill
from PIL import Image

from stm_lab import UserError, build_model, cli, data
from stm_lab.predict import predict
from stm_lab.train import fit

FEW = (48, 50)
MANIFESTS = Path(__file__).parents[1] / "golden" / "manifests"


@pytest.fixture(scope="module")
def run(few, tmp_path_factory):
    """A notebook run's folder with two trainings, at sizes of their own, and one that was not finished."""
    folder = tmp_path_factory.mktemp("run")
    short = {"recipe": few, "epochs": 2, "batch_size": 16, "warmup_epochs": 0.5, "device": "cpu"}
    for mixer, seed, size, crop_pct in (("identity", 3, 32, 0.8), ("convnext", 4, 48, 1.0)):
        out = str(folder / "train" / f"{mixer}-s{seed}")
        fit(short, mixer=mixer, seed=seed, image_size=size, crop_pct=crop_pct, out=out)
    (folder / "train" / "unfinished").mkdir()
    (folder / "train" / "unfinished" / "config.yaml").write_text("mixer: halo\n")
    return folder


@pytest.fixture(scope="module")
def validation(few):
    return data.load(few, "validation")


@pytest.fixture(scope="module")
def images(validation, tmp_path_factory):
    """The validation images as files, named so that their order by name is that of the rows."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(validation["image"]):
        image.save(folder / f"{number:03d}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_answers_are_as_good_as_the_training_said(run, images, validation):
    """The accuracy by predicted names is the top1 that the training recorded, to the last image."""
    table = predict(images, run, top=1, device="cpu")
    names = list(data.load_recipe("shapes").classes.values())
    truth = [names[label] for label in validation["label"]]
    for model, lines in table.groupby("model"):
        (*_, last) = (run / "train" / model / "metrics.jsonl").read_text().splitlines()
        recorded = float(re.search(r'"top1": ([\d.]+)', last)[1])
        assert 100 * np.mean(lines["class"].to_numpy() == truth) == pytest.approx(recorded)


def test_every_finished_model_of_a_run_answers_for_every_image(run, images):
    files = sorted(images.glob("*.png"))[:3]
    table = predict(files[::-1], run, top=2, device="cpu")
    assert list(table["image"].drop_duplicates()) == [str(file) for file in files[::-1]]
    assert set(zip(table["model"], table["mixer"], table["seed"], strict=True)) == {
        ("identity-s3", "identity", 3), ("convnext-s4", "convnext", 4),
    }  # fmt: skip
    assert len(table) == 3 * 2 * 2
    assert list(table["rank"][:2]) == [1, 2]
    alone = predict(files[0], run / "train" / "identity-s3", top=2, device="cpu")
    together = table[(table["image"] == str(files[0])) & (table["model"] == "identity-s3")]
    assert list(alone["class"]) == list(together["class"])
    assert list(alone["confidence"]) == pytest.approx(list(together["confidence"]), rel=1e-4)


def test_confidences_are_percent_of_all_classes(run, images):
    table = predict(images / "000.png", run, top=99, device="cpu")
    for _, lines in table.groupby("model"):
        assert len(lines) == 10
        assert lines["confidence"].sum() == pytest.approx(100, abs=1e-3)
        assert lines["confidence"].is_monotonic_decreasing


def test_a_weights_file_stands_for_its_folder(run, images):
    folder, image = run / "train" / "identity-s3", images / "000.png"
    assert predict(image, folder / "model.safetensors").equals(predict(image, folder))


def test_a_file_of_weights_that_tells_its_model(images, tmp_path):
    """The shipped ones under another name: the same answers, by numbers: nobody wrote its ten names down."""
    model = build_model("halo", "nano", pretrained=True)
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "mine.pth")
    files = sorted(images.glob("*.png"))[:4]
    table, known = (
        predict(files, tmp_path / "mine.pth", top=2, device="cpu"),
        predict(files, "pretrained", top=2, device="cpu"),
    )
    known = known[known["mixer"] == "halo"]
    assert list(table["confidence"]) == pytest.approx(list(known["confidence"]), rel=1e-4)
    names = list(data.load_recipe("shapes").classes.values())
    assert list(table["class"]) == [f"class {names.index(name)}" for name in known["class"]]
    assert set(table["model"]) == {"halo"}


def test_a_file_of_the_published_code_answers_with_imagenets_names(images, tmp_path):
    state = fill(json.loads((MANIFESTS / "unified_swin_micro.json").read_text()))
    torch.save({"model": state}, tmp_path / "unified_swin_micro.pth")
    table = predict(images / "000.png", tmp_path / "unified_swin_micro.pth", top=5, device="cpu")
    assert set(table["class"]) < set(data.load_recipe("imagenet-1k").classes.values())
    assert set(table["mixer"]) == {"swin"}


def test_the_shipped_weights_know_shapes(images, validation):
    table = predict(images, "pretrained", top=1, device="cpu")
    names = list(data.load_recipe("shapes").classes.values())
    truth = [names[label] for label in validation["label"]]
    right = {mixer: 100 * np.mean(lines["class"].to_numpy() == truth) for mixer, lines in table.groupby("mixer")}
    assert len(right) == 8
    assert right["pvt_v2"] > 85  # 97.1 in README, of 2,000 images; here 50
    assert min(right.values()) > 40


def test_any_kind_of_picture_will_do(run, tmp_path):
    """Grey, transparent, wide, in palettes: what a recipe's reader takes. An image turned by its camera is turned."""
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8))
    for mode in ("L", "RGBA", "P", "1"):
        wide.convert(mode).save(tmp_path / f"{mode}.png")
    wide.save(tmp_path / "plain.PNG")
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned by 90 degrees to the left
    wide.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "turned.png", exif=exif)
    table = predict(tmp_path, run / "train" / "identity-s3", top=10, device="cpu")
    assert table["image"].nunique() == 6
    plain, turned = (table[table["image"].str.endswith(name)]["confidence"] for name in ("plain.PNG", "turned.png"))
    torch.testing.assert_close(torch.tensor(plain.to_numpy()), torch.tensor(turned.to_numpy()))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["001.pgn"], "did you mean '001.png'?"),
        (["notes.txt"], "notes.txt: cannot be read as an image"),
        (["cut.png"], "cut.png: cannot be read as an image"),
        (["empty"], "empty: no images in that folder"),
        (["000.png", "--top", "0"], "top = 0: must be at least 1"),
        (["000.png", "--device", "gpu"], "unknown device 'gpu'"),
        (["000.png", "--weights", "pretraned"], "did you mean 'pretrained'?"),
        (["000.png", "--weights", "nowhere/run"], "'nowhere/run': no such file or folder"),
        (["000.png", "--weights", "."], "other.pth: weights of none of the published mixers"),
        (
            ["000.png", "--weights", "notes.txt"],
            "notes.txt is refused: it is no .safetensors file and no plain file of",
        ),
        (["000.png", "--weights", "other.pth"], "other.pth: weights of none of the published mixers; give"),
        (
            ["000.png", "--weights", "{run}/train/identity-s3/checkpoints/step-1.safetensors"],
            "a checkpoint of a training",
        ),
        (["000.png", "--weights", "{run}/train/unfinished"], "no model.safetensors: the run is not finished"),
        ([], "IMAGE"),
    ],
)
def test_wrong_input_is_one_line(run, images, tmp_path, monkeypatch, capsys, arguments, expected):
    for name in ("000.png", "001.png", "notes.txt"):
        (tmp_path / name).write_bytes((images / name).read_bytes())
    (tmp_path / "cut.png").write_bytes((images / "000.png").read_bytes()[:90])
    (tmp_path / "empty").mkdir()
    torch.save(build_model("identity", "nano").state_dict(), tmp_path / "other.pth")
    (checkpoints := run / "train" / "identity-s3" / "checkpoints").mkdir(exist_ok=True)
    (checkpoints / "step-1.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    arguments = [argument.format(run=run) for argument in arguments]
    given = arguments if "--weights" in arguments else [*arguments, "--weights", str(run)]
    assert cli.main(["predict", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert expected in err


def test_weights_whose_recipe_changed_are_refused(run, images, few, tmp_path):
    folder = tmp_path / "identity"
    folder.mkdir()
    for file in (run / "train" / "identity-s3").glob("*.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace(few, "imagenet-100"))
    with pytest.raises(UserError, match="10 classes, but its recipe 'imagenet-100' has 100 by now"):
        predict(images / "000.png", folder)
    (folder / "config.yaml").write_text(config.replace(few, str(tmp_path / "gone.yaml")))
    with pytest.raises(UserError, match=r"the names of its classes are in its recipe: .*gone\.yaml"):
        predict(images / "000.png", folder)


def test_the_command_prints_a_table_for_each_image(run, images, capsys):
    files = [str(images / "000.png"), str(images / "001.png")]
    assert cli.main(["predict", *files, "--weights", str(run), "--top", "2"]) == 0
    said = capsys.readouterr().out
    table = predict(files, run, top=2)
    for answer in table.itertuples():
        assert f"{answer._6} {answer.confidence:.1f}%" in said
    assert all(name in "".join(said.split()) for name in files)


@pytest.mark.parametrize(
    ("weights", "last"),
    [
        ("pretrained", "know only the 10 classes of `shapes`: "),
        ("{run}", "know only the 10 classes of `{few}`: "),
        ("{run}/../published.pth", "know only the 1,000 classes of `imagenet-1k`: "),
        ("{run}/../mine.pth", "│"),  # ten classes that nobody wrote down
    ],
)
def test_the_last_line_says_what_the_weights_can_name_at_all(run, few, images, capsys, weights, last):
    """A photograph is a star to them, and they are sure of it."""
    state = fill(json.loads((MANIFESTS / "unified_swin_micro.json").read_text()))
    torch.save({"model": state}, run / ".." / "published.pth")
    torch.save({"model": build_model("halo", "nano", num_classes=10).state_dict()}, run / ".." / "mine.pth")
    given = ["--weights", weights.format(run=run), "--device", "cpu"]
    assert cli.main(["predict", str(images / "000.png"), *given]) == 0
    said = " ".join(capsys.readouterr().out.split("\n")[-3:])
    assert last.format(few=few) in said
    assert ("know only" in said) == ("know only" in last)
