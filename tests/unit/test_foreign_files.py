"""Files from other systems and editors: marks, forms of Unicode, leftovers, encodings; files that cannot be opened."""

import errno
import io
import os
import signal
import socket
import sys
import unicodedata
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from stm_lab import UserError, cli, data, zoo
from stm_lab.data import folders, sources
from stm_lab.explore.parts import picture
from stm_lab.pixels import EvaluationView
from stm_lab.predict import predict

CLASSES = ("Kätzchen", "Vögel")
NFD = {name: unicodedata.normalize("NFD", name) for name in CLASSES}
RECIPE = """\
title: Pets
question: none
licence: none
image_size: 32
counts: {{train: {train}, validation: 2}}
classes: {classes}
source: {source}
max_broken: {broken}
"""


def write_set(root: Path, names=CLASSES) -> None:
    """Two images of each class for training, one for validation; no two are alike."""
    draw = np.random.default_rng(0)
    for split, number in (("train", 2), ("val", 1)):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for place in range(number):
                pixels = draw.integers(0, 256, (40, 40, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(root / split / name / f"ü{place}.png")


def recipe(folder: Path, *, train=4, broken=0, classes="[Kätzchen, Vögel]", layout="imagefolder", source="") -> Path:
    source = source or f"{{kind: folder, layout: {layout}}}"
    text = RECIPE.format(train=train, broken=broken, classes=classes, source=source)
    (folder / "pets.yaml").write_text(text, encoding="utf-8")
    return folder / "pets.yaml"


def complaint(capsys, arguments: list) -> tuple[int, str]:
    """The exit status and the one line that the command line writes."""
    status = cli.main(list(map(str, arguments)))
    err = capsys.readouterr().err
    told = [line for line in err.splitlines() if not line.startswith("pets at 32: ")]  # its progress
    assert len(told) == 1, err
    return status, told[0]


# ---- names and text --------------------------------------------------------------------------------------------------


def test_a_set_is_the_same_in_either_form_of_unicode_and_among_leftovers(tmp_path, data_home):
    composed, decomposed = tmp_path / "composed", tmp_path / "decomposed"
    write_set(composed)
    write_set(decomposed, NFD.values())
    for file in list(decomposed.rglob("*.png")):
        file.rename(file.with_name(unicodedata.normalize("NFD", file.name)))
        (file.parent / f"._{file.name}").write_bytes(b"\0\5\26\7" + bytes(60))  # AppleDouble
    for folder in [decomposed, *(path for path in decomposed.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\0")
        (folder / "__MACOSX").mkdir()
    found = [data.load(recipe(tmp_path), split, data_root=composed)["id"][:] for split in ("train", "validation")]
    for classes in ("[Kätzchen, Vögel]", f"[{', '.join(NFD.values())}]"):
        again = recipe(tmp_path, classes=classes)
        assert [data.load(again, split, data_root=decomposed)["id"][:] for split in ("train", "validation")] == found
        assert data.fingerprint(again, data_root=decomposed) == data.fingerprint(again, data_root=composed)
    assert found == [[f"{name}/ü{k}" for name in CLASSES for k in range(n)] for n in (2, 1)]


def test_leftovers_do_not_hide_that_validation_images_lie_flat(tmp_path):
    write_set(tmp_path, ("n01", "n02"))
    for name in ("n01", "n02"):
        (tmp_path / "val" / name / "ü0.png").rename(tmp_path / "val" / f"{name}.png")
        (tmp_path / "val" / name).rmdir()
    (tmp_path / "val" / "__MACOSX").mkdir()
    (tmp_path / "val" / "._n01.png").write_bytes(b"\0")
    (tmp_path / "LOC_val_solution.csv").write_bytes(
        "ImageId,PredictionString\nn01,n01 1\nn02,n02 1\n".encode("utf-8-sig")
    )
    found, _ = folders.images("ilsvrc", "validation", tmp_path, ["n01", "n02"])
    assert sorted(one[:2] for one in found) == [("n01", "n01"), ("n02", "n02")]


def tiny_imagenet(root: Path) -> None:
    write_set(root, ("n01", "n02"))
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            inner = root / split / (f"{name}/images" if split == "train" else "images")
            inner.mkdir(exist_ok=True)
            for file in (root / split / name).glob("*.png"):
                file.rename(inner / f"{name}_{file.name}")
            if split == "val":
                (root / split / name).rmdir()
    (root / "val" / "val_annotations.txt").write_text("n01_ü0.png\tn01\nn02_ü0.png\tn02\n", encoding="utf-8")


TEXTS = ["pets.yaml", "list.txt", "val/val_annotations.txt"]


@pytest.mark.parametrize("file", TEXTS)
def test_a_byte_order_mark_is_no_part_of_a_text(file, tmp_path, data_home):
    """As Windows' editors write them, with their ends of lines."""
    tiny_imagenet(tmp_path)
    (tmp_path / "list.txt").write_text("n01 a cat\nn02 a bird\n")
    path = recipe(tmp_path, classes="list.txt", layout="tiny-imagenet")
    known = data.fingerprint(path, data_root=tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    (tmp_path / file).write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert data.fingerprint(path, data_root=tmp_path) == known
    assert data.load_recipe(path).classes == {"n01": "a cat", "n02": "a bird"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize("file", TEXTS)
def test_text_in_another_encoding_is_one_line(file, encoding, tmp_path, data_home, capsys):
    tiny_imagenet(tmp_path)
    (tmp_path / "list.txt").write_text("n01 a cät\nn02 a bird\n", encoding="utf-8")
    path = recipe(tmp_path, classes="list.txt", layout="tiny-imagenet")
    path.write_text(path.read_text(encoding="utf-8").replace("Pets", "Häustiere"), encoding="utf-8")
    (tmp_path / file).write_bytes((tmp_path / file).read_text(encoding="utf-8").encode(encoding))
    status, err = complaint(capsys, ["data", "prepare", path, "--data-root", tmp_path, "--workers", "1"])
    assert status == 2
    assert f"{Path(file).name}: not a UTF-8 text file, see line 1; " in err


def test_a_file_whose_name_is_not_utf8_is_one_line(tmp_path, data_home, capsys):
    write_set(tmp_path)
    try:
        (tmp_path / "train" / CLASSES[0] / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system refuses such names")
    status, err = complaint(capsys, ["data", "prepare", recipe(tmp_path, train=5), "--data-root", tmp_path])
    assert status == 2
    assert "caf\\xe9.png': the name is not UTF-8; rename it" in err


@pytest.mark.parametrize("names", [["5²3", "5³2", "53"], ["1", "01", "001"], ["٣", "3", "x"]])
def test_every_name_has_its_place_in_natural_order(names):
    keys = [sorted(order, key=sources._natural) for order in (names, names[::-1])]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_console_can_be_written_to(encoding, monkeypatch, capfd):
    """The list of the course has dots and the errors have arrows; file names may be no Unicode at all."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    assert cli.main(["course", "list"]) == 0
    assert cli.main(["data", "show", "\udce9→.yaml"]) == 2
    for stream in streams:
        stream.flush()
    assert b"Quickstart" in streams[0].buffer.getvalue()
    assert b".yaml: No such file" in streams[1].buffer.getvalue()


# ---- files that cannot be opened -------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))  # the path of a socket must be short


def cut(path: Path) -> None:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path: Path) -> None:
    """A PNG that says that it has 4 * 10^8 pixels."""
    PIL.Image.new("L", (1, 1)).save(path)
    content = path.read_bytes()
    head = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + content[24:29]
    path.write_bytes(content[:12] + head + zlib.crc32(head).to_bytes(4, "big") + content[33:])


FAULTY = {  # kind -> how it is made, and what is said of it
    "link to nowhere": (lambda path: path.symlink_to("nowhere.png"), "No such file"),
    "loop of links": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
    "named pipe": (fifo, "not a regular file"),
    "socket": (bound_socket, "not a regular file"),
    "empty file": (lambda path: path.write_bytes(b""), "it is empty"),
    "text": (lambda path: path.write_bytes(b"no image"), "cannot identify image file"),
    "half an image": (cut, "truncated"),
    "bomb": (bomb, "decompression bomb"),
}


@pytest.fixture
def in_time():
    """Reading a pipe waits for ever; then this ends the test."""

    def late(*_):
        raise TimeoutError("waited for a file")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
def test_a_text_file_that_never_ends_is_refused_without_waiting(tmp_path, capsys, in_time):
    fifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        status, err = complaint(capsys, ["data", "show", path])
        assert (status, err) == (2, f"error: {path}: not a regular file")


@pytest.mark.skipif(os.name != "posix", reason="links, pipes and sockets")
@pytest.mark.parametrize("kind", FAULTY)
def test_what_cannot_be_opened_is_one_line_or_a_broken_image(kind, tmp_path, data_home, capsys, monkeypatch, in_time):
    make, words = FAULTY[kind]
    write_set(tmp_path)
    faulty = tmp_path / "train" / CLASSES[0] / "x.png"
    monkeypatch.chdir(faulty.parent)
    make(faulty)
    path = recipe(tmp_path, train=5)
    status, err = complaint(capsys, ["data", "prepare", path, "--data-root", tmp_path, "--workers", "1"])
    assert status in (1, 2)
    assert words in err
    assert "x.png" in err
    if faulty.is_file():  # its bytes are there, and are no image
        recipe(tmp_path, train=5, broken=1)
        assert cli.main(["data", "prepare", str(path), "--data-root", str(tmp_path), "--workers", "1"]) == 0
        assert len(data.load(path)) == 4
    subject = SimpleNamespace(name="none", recipe=None, classes=None, view=lambda: EvaluationView(32))
    monkeypatch.setattr(zoo, "load", lambda names, weights, device: [subject])
    for given in (faulty, faulty.parent) if not faulty.is_dir() else ():
        with pytest.raises(UserError, match=rf"x\.png: cannot be read as an image \(.*{words}"):
            predict(given, "pretrained", device="cpu")
    with pytest.raises(UserError, match=rf"^picture = '.*x\.png': [^\n]*{words}[^\n]*$"):
        picture(faulty, 32)


@pytest.mark.parametrize("place", ["train/Kätzchen/ü0.png", "train/Kätzchen", "val", "."])
def test_without_permission_it_is_one_line(place, tmp_path, data_home, capsys, monkeypatch):
    """Tests may run as root, whom nothing is forbidden; so the system's answer is made up."""
    write_set(tmp_path)
    path, forbidden = recipe(tmp_path), os.path.abspath(tmp_path / place)

    def refusing(real):
        def function(path, *args, **kwargs):
            inside = isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(forbidden)
            if inside and not str(path).endswith("pets.yaml"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *args, **kwargs)

        return function

    with monkeypatch.context() as patch:
        for module, name in ((os, "scandir"), (os, "stat"), (io, "open")):
            patch.setattr(module, name, refusing(getattr(module, name)))
        status, err = complaint(capsys, ["data", "prepare", path, "--data-root", tmp_path, "--workers", "1"])
    assert status in (1, 2)
    assert "Permission denied" in err


def parquet(folder: Path, images: list) -> Path:
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=list(CLASSES))})
    rows = Dataset.from_dict({"image": images, "label": [k % 2 for k in range(len(images))]}, features=features)
    for split, table in (("train", rows.with_format("arrow")[:]), ("validation", rows.with_format("arrow")[:2])):
        pa.parquet.write_table(table.cast(features.arrow_schema), folder / f"{split}.parquet")
    return recipe(folder, train=len(images), broken=1, source="{kind: parquet}")


@pytest.mark.parametrize("missing", [None, {"bytes": None, "path": "https://example.org/x.png"}], ids=["null", "path"])
def test_rows_without_an_image_are_one_line(missing, tmp_path, data_home, capsys):
    write_set(tmp_path)
    whole = [{"bytes": file.read_bytes(), "path": None} for file in sorted((tmp_path / "train").rglob("*.png"))]
    path = parquet(tmp_path, [*whole, missing])
    status, err = complaint(capsys, ["data", "prepare", path, "--data-root", tmp_path])
    assert status == 2
    assert "1 of 5 images have no bytes" in err
    own = Dataset.from_dict(
        {"image": [*whole, missing], "label": [0] * 5}, features=Features(image=Image(), label=Value("int64"))
    )
    with pytest.raises(UserError, match=r"^broken image in row 4 \(.*\): [^\n]*(empty|No such file)[^\n]*$"):
        data.to_tensors(own, 32)
