"""`prepare` and `verify`: once and for all, whatever comes in between; and what differs is named."""

import errno
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from children import hears_ctrl_c
from filelock import FileLock

from stm_lab import cli, data
from stm_lab.data import prepare as module
from stm_lab.data import sources
from stm_lab.data.prepare import FORMAT, PrepareFailed, prepare, verify
from stm_lab.util import files
from stm_lab.util.errors import UserError

pytestmark = pytest.mark.usefixtures("data_home")

CLASSES = ["n01", "n02"]
SIZES = {"train": 7, "validation": 3}  # images of each class


@pytest.fixture(autouse=True)
def several_parts(monkeypatch):
    monkeypatch.setattr(module, "PART", 4)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no machine stops here


@pytest.fixture
def raw(tmp_path) -> Path:
    """Images of many shapes and kinds: wide, tall, square, small, grey, with a palette."""
    draw = np.random.default_rng(0)
    for split, number in SIZES.items():
        for label in CLASSES:
            for i in range(number):
                width, height = draw.integers(40, 110, 2)
                mode = ("RGB", "L", "RGBA", "P")[i % 4]
                coarse = PIL.Image.fromarray(draw.integers(0, 256, (9, 9, 3), np.uint8))
                image = coarse.resize((int(width), int(height))).convert(mode)
                place = tmp_path / "raw" / split / label / f"{i}.{'png' if i % 2 else 'jpg'}"
                place.parent.mkdir(parents=True, exist_ok=True)
                image.convert(mode if i % 2 else "RGB").save(place)
    return tmp_path / "raw"


def write_recipe(folder: Path, **changes) -> Path:
    values = {
        "title": "Small photographs",
        "question": "none",
        "licence": "none",
        "image_size": 48,
        "classes": CLASSES,
        "counts": {split: 2 * number for split, number in SIZES.items()},
        "source": {"kind": "folder", "layout": "imagefolder"},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


@pytest.fixture
def recipe(tmp_path):
    return data.load_recipe(write_recipe(tmp_path))


def contents(folder: Path) -> dict[str, bytes]:
    """What matters of a prepared folder: the parts, and the manifest."""
    files = [*folder.rglob("*.arrow"), folder / "manifest.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# ---- what is prepared ------------------------------------------------------------------------------------------------


def test_prepared_images_are_the_raw_ones_to_the_last_bit(tmp_path, data_home, raw, recipe):
    before = {split: data.load(recipe, split, data_root=raw) for split in SIZES}
    fingerprint = data.fingerprint(recipe, data_root=raw)
    folder = prepare(recipe, data_root=raw, workers=1)
    assert folder == data_home / "prepared" / f"mine-{fingerprint}" / "48"
    raw.rename(tmp_path / "away")
    for split in SIZES:
        after = data.load(recipe, split)
        assert after.column_names == ["id", "image", "label"]
        assert after.features == before[split].features
        assert (after["id"][:], after["label"][:]) == (before[split]["id"][:], before[split]["label"][:])
        assert {min(row["image"].size) for row in after if min(row["image"].size) != 48} < set(range(40, 48))
    (tmp_path / "away").rename(raw)
    for split in SIZES:
        for ours, theirs in zip(
            data.to_tensors(data.load(recipe, split), 48), data.to_tensors(before[split], 48), strict=True
        ):
            assert torch.equal(ours, theirs)
    assert data.fingerprint(recipe) == data.fingerprint(recipe, data_root=raw) == fingerprint


def test_the_parts_are_files_of_datasets_and_the_manifest_tells_all(raw, recipe):
    folder = prepare(recipe, data_root=raw, workers=1)
    files = sorted(map(str, (folder / "train").glob("*.arrow")))
    dataset = datasets.Dataset.from_file(files[0])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == recipe.counts
    assert manifest["recipe"]["classes"] == recipe.classes
    assert [len(hashes) for hashes in manifest["parts"].values()] == [len(files), 2] == [4, 2]
    for row, image in zip(dataset, sources.stored_images(dataset), strict=True):
        (file,) = (raw / "train").glob(f"{row['id']}.*")
        assert row["raw_hash"] == sources.content_hash(file.read_bytes())
        assert row["hash"] == sources.content_hash(image["bytes"])
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "train", "validation"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [f".48-format{FORMAT}.lock", "48"]


def test_folders_with_the_description_of_datasets_are_read_too(raw, recipe):
    """Those of version 0.1 also hold `state.json` and `dataset_info.json`, and the same parts."""
    folder = prepare(recipe, data_root=raw, workers=1)
    before = data.to_tensors(data.load(recipe), 48)[0]
    for split in SIZES:
        for name in ("state.json", "dataset_info.json"):
            (folder / split / name).write_text("{}")
    assert torch.equal(data.to_tensors(data.load(recipe), 48)[0], before)
    assert verify(recipe, data_root=raw)[1] == []


def test_large_images_are_jpeg_and_close_to_the_resized_one(tmp_path):
    y, x = np.mgrid[:300, :400]
    pixels = np.stack([x * 255 // 400, y * 255 // 300, 128 + 100 * np.sin(x / 20) * np.cos(y / 15)], -1)
    for label in CLASSES:
        (tmp_path / "raw" / "train" / label).mkdir(parents=True)
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "raw" / "train" / label / "0.png")
    recipe = data.load_recipe(write_recipe(tmp_path, image_size=112, counts={"train": 2}))
    exact = data.to_tensors(data.load(recipe, data_root=tmp_path / "raw"), 128)[0].float()
    folder = prepare(recipe, data_root=tmp_path / "raw", workers=1)
    assert folder.name == "128"
    image = data.load(recipe)[0]["image"]
    assert (image.format, image.size) == ("JPEG", (170, 128))
    assert (data.to_tensors(data.load(recipe), 128)[0].float() - exact).square().mean().sqrt() < 255 / 10 ** (35 / 20)


def test_the_smallest_that_is_large_enough_is_taken(raw, recipe):
    for size in (40, 64):
        prepare(recipe, data_root=raw, size=size, workers=1)

    def shorter_sides(**options) -> set[int]:
        return {min(row["image"].size) for row in data.load(recipe, **options)}

    largest = max(shorter_sides(image_size=100, data_root=raw))  # nothing that large is prepared: the raw images
    assert largest > 64
    assert max(shorter_sides(image_size=40)) == 40
    assert max(shorter_sides()) == 64
    assert data.state(recipe) == "prepared at 40, 64"


def test_a_class_shares_what_one_has_prepared(tmp_path, data_home, raw, recipe, monkeypatch):
    folder = prepare(recipe, data_root=raw, workers=1)
    monkeypatch.setenv("STM_LAB_DATA", f"{tmp_path / 'own'}{os.pathsep}{data_home}")
    raw.rename(tmp_path / "away")
    assert len(data.load(recipe)) == 14
    assert prepare(recipe, data_root=tmp_path / "away", workers=1) == folder
    assert not (tmp_path / "own").exists()
    monkeypatch.setenv("STM_LAB_DATA", str(tmp_path / "own"))
    with pytest.raises(UserError, match="--data-root"):
        data.load(recipe)


def test_prepared_from_other_images_is_not_taken(tmp_path, raw, recipe):
    prepare(recipe, data_root=raw, workers=1)
    other = shutil.copytree(raw, tmp_path / "other")
    PIL.Image.new("RGB", (50, 50)).save(other / "train" / "n01" / "0.jpg")
    assert data.load(recipe, data_root=other)[0]["image"].getextrema() == ((0, 0),) * 3
    assert data.load(recipe)[0]["image"].getextrema() != ((0, 0),) * 3
    prepare(recipe, data_root=other, workers=1)
    with pytest.raises(UserError, match="different images"):
        data.load(recipe)
    assert data.load(recipe, data_root=other)[0]["image"].getextrema() == ((0, 0),) * 3
    with pytest.raises(UserError, match="was written for 0123456789abcdef"):
        prepare(recipe.model_copy(update={"fingerprint": "0123456789abcdef"}), data_root=raw, workers=1)


def test_drawn_data_are_drawn(data_home):
    recipe = data.load_recipe("shapes").model_copy(update={"counts": {"train": 10}})
    folder = prepare(recipe)
    assert folder == data_home / "prepared" / f"shapes-{data.fingerprint(recipe)}"
    assert verify(recipe) == (["generator: drawn"], [])


# ---- interruptions ---------------------------------------------------------------------------------------------------

WRITES = 2 * 6 + 1  # data and record of 6 parts, the manifest


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=["int", "full"]
)
def test_stopped_anywhere_it_leaves_nothing_half_made_and_goes_on(data_home, raw, recipe, monkeypatch, stop):
    whole = contents(prepare(recipe, data_root=raw, workers=1))
    write, make = files.write_whole, module._make_part
    for at in range(0, WRITES, 1 if isinstance(stop, OSError) else 4):
        shutil.rmtree(data_home)
        written, made = [], []

        def failing(place, content, at=at, written=written, **how):
            if len(written) == at:
                place.with_name(f"{place.name}.4711.part").write_bytes(content[: len(content) // 2])
                raise stop
            written.append(place)
            write(place, content, **how)

        def counted(part, *args, made=made):
            made.append(part)
            make(part, *args)

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_whole", failing)
            with pytest.raises(KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else PrepareFailed) as error:
                prepare(recipe, data_root=raw, workers=1)
        if not isinstance(stop, KeyboardInterrupt):
            assert all(word in str(error.value) for word in ("No space left", "make room", "prepare again"))
        with pytest.raises(UserError, match="--data-root"):
            data.load(recipe)
        assert data.state(recipe) == "needs --data-root"
        monkeypatch.setattr(module, "_make_part", counted)
        assert contents(prepare(recipe, data_root=raw, workers=1)) == whole
        hidden = [*data_home.rglob(".*"), *data_home.rglob("*.part")]
        assert {(place.name, place.stat().st_size) for place in hidden} == {(f".48-format{FORMAT}.lock", 0)}
        assert len(made) == 6 - sum(place.suffix == ".json" and "parts" in place.parts for place in written)
        monkeypatch.setattr(module, "_make_part", make)
        assert verify(recipe, data_root=raw)[1] == []


def test_a_failed_rename_or_folder_is_told_in_one_line(tmp_path, data_home, raw, recipe, monkeypatch, capsys):
    data_home.write_text("in the way")
    assert cli.main(["data", "prepare", str(tmp_path / "mine.yaml"), "--data-root", str(raw), "--workers", "1"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("failed: ")
    assert "STM_LAB_DATA" in err[-1]


def test_two_do_not_prepare_the_same_at_once(tmp_path, data_home, raw, recipe, capsys):
    lock = data_home / "prepared" / f"mine-{data.fingerprint(recipe, data_root=raw)}" / f".48-format{FORMAT}.lock"
    lock.parent.mkdir(parents=True)
    arguments = ["data", "prepare", str(tmp_path / "mine.yaml"), "--data-root", str(raw), "--workers", "1"]
    with FileLock(lock):
        for _ in range(2):  # the refused one has not made way for the next
            assert cli.main(arguments) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert "another process is preparing mine" in line
            assert str(lock) in line
        assert list(lock.parent.iterdir()) == [lock]
    assert cli.main(arguments) == 0


@pytest.mark.soak
def test_a_killed_worker_is_told_in_one_line(raw, recipe, monkeypatch):
    monkeypatch.setattr(module, "_begin_worker", os._exit)
    with pytest.raises(PrepareFailed, match=r"^a worker process was killed.*--workers"):
        prepare(recipe, data_root=raw, workers=2)


SLOWLY = """\
import sys, time
from stm_lab import cli
from stm_lab.data import prepare

prepare.PART, make = 2, prepare._make_part
prepare._make_part = lambda *part: (time.sleep(0.2), make(*part))
if __name__ == "__main__":
    sys.exit(cli.main({arguments}))
"""


@pytest.mark.soak
@pytest.mark.parametrize(("by", "workers"), [(signal.SIGINT, 2), (signal.SIGKILL, 1)], ids=["int", "kill"])
def test_a_stopped_process_goes_on_where_it_was(tmp_path, data_home, monkeypatch, by, workers):
    """And what several processes have begun, one ends: it is what one makes alone."""
    draw = np.random.default_rng(0)
    for label in CLASSES:
        (tmp_path / "raw" / "train" / label).mkdir(parents=True)
        for i in range(20):
            pixels = draw.integers(0, 256, (60, 60, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / "raw" / "train" / label / f"{i}.jpg")
    path = write_recipe(tmp_path, counts={"train": 40})
    arguments = ["data", "prepare", str(path), "--data-root", str(tmp_path / "raw"), "--workers", str(workers)]
    script = tmp_path / "run.py"
    script.write_text(SLOWLY.format(arguments=arguments))
    process = subprocess.Popen(
        [sys.executable, script], start_new_session=True, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c
    )
    while len(records := list(data_home.rglob("parts/train-*.json"))) < 3:
        time.sleep(0.01)
        assert process.poll() is None
    os.killpg(process.pid, by)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if by == signal.SIGINT else -signal.SIGKILL)
    if by == signal.SIGINT:
        assert err.splitlines()[-1] == "interrupted", err
        assert "Traceback" not in err
    assert not list(data_home.rglob("manifest.json"))
    times = {record: record.stat().st_mtime_ns for record in records}
    gathering = records[0].parent.parent
    data_of = {record: gathering / "train" / f"part-{record.stem[6:]}.arrow" for record in records}
    inodes = {place.name: place.stat().st_ino for place in data_of.values()}
    assert times
    recipe = data.load_recipe(path)
    monkeypatch.setattr(module, "PART", 2)
    folder = prepare(recipe, data_root=tmp_path / "raw", workers=1)
    assert {name: (folder / "train" / name).stat().st_ino for name in inodes} == inodes  # not made again
    assert verify(recipe, data_root=tmp_path / "raw")[1] == []
    assert len(data.load(recipe)) == 40
    monkeypatch.setenv("STM_LAB_DATA", str(tmp_path / "other"))
    assert contents(prepare(recipe, data_root=tmp_path / "raw", workers=1)) == contents(folder)


# ---- broken images ---------------------------------------------------------------------------------------------------


def test_broken_images_are_counted_and_named(tmp_path, raw, capsys):
    cut = raw / "train" / "n01" / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    (raw / "train" / "n02" / "3.png").write_bytes(b"no image")
    arguments = ["data", "prepare", str(write_recipe(tmp_path)), "--data-root", str(raw), "--workers", "1"]
    assert cli.main(arguments) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert all(word in err for word in ("failed: ", "2 broken images in train", "n01/2 ", "n02/3 ", "max_broken"))
    assert "BytesIO" not in err
    assert all(str(raw / "train" / name) in err for name in ("n01/2.jpg", "n02/3.png"))
    write_recipe(tmp_path, max_broken=1)
    assert cli.main(arguments) == 1
    recipe = data.load_recipe(write_recipe(tmp_path, max_broken=2))
    assert cli.main(arguments) == 0
    capsys.readouterr()
    ids = data.load(recipe)["id"][:]
    assert len(ids) == 12
    assert not {"n01/2", "n02/3"} & set(ids)
    assert verify(recipe, data_root=raw)[1] == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()], ids=["disk", "memory"])
def test_what_fails_for_a_moment_is_no_broken_image(raw, recipe, data_home, monkeypatch, error):
    recipe = recipe.model_copy(update={"max_broken": 5})
    whole = contents(prepare(recipe, data_root=raw, workers=1))
    shutil.rmtree(data_home)
    broken = (raw / "train" / "n01" / "5.png").read_bytes()
    where, name = (sources, "stored_bytes") if isinstance(error, OSError) else (module, "_reduced")
    real, read = getattr(where, name), []

    def failing(image, *size):
        if broken in (image, real(image, *size)):
            read.append(image)
            if where is module or len(read) == 2:  # the fingerprint has read it before
                raise error
        return real(image, *size)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, failing)
        with pytest.raises(PrepareFailed, match=r"train: .*n01/5") as failed:
            prepare(recipe, data_root=raw, workers=1)
    assert "\n" not in str(failed.value)
    assert contents(prepare(recipe, data_root=raw, workers=1)) == whole


def test_parts_with_too_many_broken_images_are_made_anew(raw, recipe, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_reduced", lambda encoded, size: 1 / 0)
        with pytest.raises(PrepareFailed, match=r"14 broken images in train, .* 6 .* in validation, .*max_broken"):
            prepare(recipe, data_root=raw, workers=1)
    folder = prepare(recipe, data_root=raw, workers=1)
    assert json.loads((folder / "manifest.json").read_text())["counts"] == recipe.counts


# ---- verify ----------------------------------------------------------------------------------------------------------


def replaced(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    file.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("pixel", ["part-00001.arrow: not what was prepared"]),
        ("label", ["part-00001.arrow: not what was prepared"]),
        ("gone", ["part-00001.arrow: not what was prepared"]),
        ("raw changed", ["train: image n01/5 is not the one that was prepared"]),
        ("raw gone", ["train: image n01/5 was there", "not any more", "1 differences"]),
        ("raw more", ["train: image n01/more was not there", "1 differences"]),
        ("raw unreadable", ["train: image n01/5 cannot be read", "1 differences"]),
    ],
)
def test_verify_names_what_differs(tmp_path, raw, recipe, capsys, damage, words):
    folder = prepare(recipe, data_root=raw, workers=1)
    arguments = ["data", "verify", str(tmp_path / "mine.yaml"), "--data-root", str(raw)]
    assert cli.main(arguments) == 0
    assert "all as it should be" in capsys.readouterr().out
    part, file = folder / "train" / "part-00001.arrow", raw / "train" / "n01" / "5.png"
    if damage == "pixel":
        dataset = datasets.Dataset.from_file(str(part))
        encoded = list(sources.stored_images(dataset))[dataset["id"][:].index("n01/5")]["bytes"]
        replaced(part, encoded, encoded[:-20] + bytes([encoded[-20] ^ 1]) + encoded[-19:])
    elif damage == "label":
        replaced(part, b"n01/5", b"n02/5")
    elif damage == "gone":
        part.unlink()
    elif damage == "raw more":
        PIL.Image.new("RGB", (50, 50)).save(file.with_name("more.png"))
    elif damage == "raw unreadable":
        file.unlink()
        file.mkdir()
    elif damage == "raw changed":
        PIL.Image.new("RGB", (50, 50)).save(file)
    else:
        file.unlink()
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    assert status == 1
    assert all(word in out + err for word in words), out + err


def test_verify_knows_the_recipes_fingerprint_and_needs_something_to_look_at(tmp_path, raw, recipe, data_home):
    assert verify(recipe, data_root=raw) == (
        [
            f"{raw}: as found",
            "train: n01 has 7, n02 has 7",
            "validation: n01 has 3, n02 has 3",
        ],
        [],
    )
    expected = recipe.model_copy(update={"fingerprint": "0123456789abcdef"})
    (line,) = verify(expected, data_root=raw)[1]
    assert "expected 0123456789abcdef" in line
    with pytest.raises(UserError, match="--data-root"):
        verify(recipe)


def test_nothing_to_look_at_is_not_as_it_should_be(capsys):
    assert cli.main(["data", "verify", "imagenette"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "imagenette: nothing here to verify" in err
    assert "stm-lab data prepare imagenette" in err


def test_the_command_that_is_printed_works(tmp_path, raw, capsys, monkeypatch):
    (tmp_path / "my recipes").mkdir()
    write_recipe(tmp_path / "my recipes")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "show", "my recipes/mine.yaml"]) == 0
    command = yaml.safe_load(capsys.readouterr().out)["command"]
    program, *arguments = shlex.split(command.replace("FOLDER", str(raw)))
    assert program == "stm-lab"
    assert cli.main([*arguments, "--workers", "1"]) == 0


def test_a_folder_that_is_not_there_or_looks_otherwise_is_told(tmp_path, raw, recipe):
    with pytest.raises(UserError, match=r"in \S+/nowhere, which is no folder; pass"):
        data.load(recipe, data_root=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"'imagefolder' \(train/CLASS/\*\.jpg, val/CLASS/\*\.jpg\) in \S+/train; pass"):
        data.load(recipe, data_root=raw / "train")


def test_every_size_is_held_against_the_raw_images(tmp_path, raw, recipe):
    """Also where the first is right: the second was prepared while an image was another."""
    prepare(recipe, data_root=raw, size=40, workers=1)
    file = raw / "train" / "n01" / "5.png"
    content = file.read_bytes()
    PIL.Image.new("RGB", (50, 50)).save(file)
    other = prepare(recipe, data_root=raw, size=48, workers=1)
    file.write_bytes(content)
    (line,) = verify(recipe, data_root=raw)[1]
    assert line == f"train: image n01/5 is not the one that was prepared in {other}"


def test_which_pixels_are_trained_on_is_told(raw, recipe):
    assert data.pixels_of(recipe, data_root=raw) == "raw"
    prepare(recipe, data_root=raw, size=48, workers=1)
    prepare(recipe, data_root=raw, size=100, workers=1)
    assert data.pixels_of(recipe) == data.pixels_of(recipe, data_root=raw) == "prepared-48-png"
    assert data.pixels_of(recipe, image_size=64) == "prepared-100-jpeg"
    assert data.pixels_of(recipe, image_size=128) == "raw"
    assert data.pixels_of("shapes") == "raw"


def test_drawn_images_are_drawn_again_to_verify(data_home, monkeypatch):
    recipe = data.load_recipe("shapes").model_copy(update={"counts": {"validation": 10}})
    prepare(recipe)
    blank = io.BytesIO()
    PIL.Image.new("RGB", (64, 64)).save(blank, "PNG")
    real = sources.GENERATORS["shapes"].examples

    def examples(*args):
        for row in real(*args):
            yield row | {"image": {"bytes": blank.getvalue()}} if row["id"] == 1 else row

    monkeypatch.setattr(sources.GENERATORS["shapes"], "examples", examples)
    (line,) = verify(recipe)[1]
    assert "shapes, validation: image 1" in line


def test_a_damaged_manifest_is_named(raw, recipe):
    folder = prepare(recipe, data_root=raw, workers=1)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"48: damaged; delete that folder"):
        data.load(recipe)


def test_too_small_a_size_is_refused_before_anything_is_made(tmp_path, raw, data_home, capsys):
    arguments = ["data", "prepare", str(write_recipe(tmp_path)), "--data-root", str(raw), "--size", "0"]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == "error: size 0 is too small; at least 1\n"
    assert not data_home.exists()
