"""What a source is found to hold: every class has images, what is passed over is named, whatever the layout."""

import shutil
import tarfile
from pathlib import Path

import PIL.Image
import pytest
import test_data_sources as ways
import yaml
from test_data_sources import HUB, LAYOUTS, complaint, everything, jpeg, recipe, shared, write, write_shard

from stm_lab import cli, data
from stm_lab.data import sources
from stm_lab.data.image_files import IMAGE_FILES
from stm_lab.data.prepare import PrepareFailed, prepare, verify
from stm_lab.util.errors import UserError

pytestmark = pytest.mark.usefixtures("data_home")

LEFTOVERS = ("._0.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png")


def folders_of_class(root: Path, name: str) -> list[Path]:
    return [path for path in root.rglob(name) if path.is_dir()]


# ---- every class -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("layout", [*LAYOUTS, "hub"])
def test_a_class_without_an_image_is_refused_by_name_in_every_source_and_split(tmp_path, monkeypatch, layout, split):
    """The totals are right: another class has the images of the one that has none."""
    moved = [(name, "n01" if label == "n02" else label, image) for name, label, image in ways.IMAGES[split]]
    monkeypatch.setitem(ways.IMAGES, split, moved)
    raw = tmp_path / "raw"
    make, source = (ways.as_parquet, HUB) if layout == "hub" else LAYOUTS[layout]
    make(raw)
    for folder in {path.parent for path in folders_of_class(raw, "n01")}:
        (folder / "n02").mkdir(exist_ok=True)
        (folder / "n02" / "images").mkdir(exist_ok=True)
    monkeypatch.setattr(sources, "snapshot_download", lambda *args, **options: str(raw))
    path, root = recipe(tmp_path, source), None if layout == "hub" else raw
    said = complaint(path, split, data_root=root)
    n01, n03 = (8, 4) if split == "train" else (2, 1)
    assert all(word in said for word in (split, "no image of class 'n02'", f"n01 has {n01}", f"n03 has {n03}")), said
    with pytest.raises(UserError, match="no image of class 'n02'"):
        prepare(data.load_recipe(path), data_root=root, workers=1)


def test_of_many_classes_the_empty_ones_are_counted_and_the_line_stays_short(tmp_path):
    names = [f"c{i:03d}" for i in range(300)]
    for i, name in enumerate(names):
        (tmp_path / "raw" / "train" / name).mkdir(parents=True)
        for k in range(0 if i < 30 else 1 + i % 2):
            write(tmp_path / "raw" / "train" / name / f"{k}.png", b"")
    path = recipe(tmp_path, {"kind": "folder", "layout": "imagefolder"}, classes=names, counts={"train": 405})
    said = complaint(path, data_root=tmp_path / "raw")
    assert "'c000', 'c001', 'c002' and of 27 more classes; 270 classes, images in each: 1 to 2" in said
    assert len(said) < 300


def test_broken_images_do_not_leave_a_class_empty(tmp_path):
    """However many of them the recipe lets pass."""
    ways.as_ilsvrc(tmp_path / "raw")
    for file in (tmp_path / "raw" / "train" / "n02").iterdir():
        file.write_bytes(b"no image")
    loaded = data.load_recipe(recipe(tmp_path, LAYOUTS["ilsvrc"][1], max_broken=100))
    with pytest.raises(PrepareFailed, match=r"4 broken images in train.*no image of class 'n02'; n03 has 4, n01 has 4"):
        prepare(loaded, data_root=tmp_path / "raw", workers=1)


def test_how_many_images_a_class_has_is_shown(tmp_path, capsys):
    ways.as_ilsvrc(tmp_path / "raw")
    arguments = [str(recipe(tmp_path, LAYOUTS["ilsvrc"][1])), "--data-root", str(tmp_path / "raw")]
    assert cli.main(["data", "show", *arguments]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["images_per_class"] == {
        "train": "n03 has 4, n01 has 4, n02 has 4",
        "validation": "n03 has 1, n01 has 1, n02 has 1",
    }
    assert "train: n03 has 4, n01 has 4" in "\n".join(
        verify(data.load_recipe(arguments[0]), data_root=tmp_path / "raw")[0]
    )
    (tmp_path / "raw" / "val" / "n02" / "val_3.JPEG").unlink()
    assert cli.main(["data", "show", *arguments]) == 0
    assert "no image of class 'n02'" in yaml.safe_load(capsys.readouterr().out)["fault"]


# ---- what is passed over ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["ilsvrc", "imagefolder", "tiny-imagenet"])
def test_what_is_no_image_is_named_and_what_systems_leave_is_not(tmp_path, layout):
    raw = tmp_path / "raw"
    (ways.as_tiny_imagenet if layout == "tiny-imagenet" else ways.as_ilsvrc)(raw)
    path = recipe(tmp_path, {"kind": "folder", "layout": layout})
    for folder in {file.parent for file in raw.rglob("*.JPEG")}:
        for name in LEFTOVERS:
            write(folder / name, b"left")
        (folder / ".ipynb_checkpoints").mkdir()
    loaded = data.load_recipe(path)
    before = data.fingerprint(path, data_root=raw)
    (place,) = {file.parent for file in (raw / "train" / "n02").rglob("n02_1.JPEG")}
    write(place / "notes.txt", "notes")
    write(place / "old" / "n02_77.JPEG", jpeg(3))
    write(raw / "train" / "n99" / "n99_1.JPEG", jpeg(4))  # the folder of a class that the recipe does not have
    assert data.fingerprint(path, data_root=raw) == before
    shown = data.describe(loaded, data_root=raw)["images_per_class"]
    assert "passed over: 1 .txt, 2 folders (such as " in shown["train"]
    assert "passed over" not in shown["validation"]
    with pytest.warns(UserWarning, match=r"mine: train: passed over: 1 \.txt, 2 folders \(such as .*notes\.txt\)"):
        prepare(loaded, data_root=raw, workers=1)
    (place / "n02_1.JPEG").rename(place / "n02_1.xyz")
    said = complaint(path, data_root=raw)
    assert all(word in said for word in ("11 images", "has 12", "1 .txt, 1 .xyz, 2 folders")), said
    assert not any(name in said for name in (*LEFTOVERS, ".ipynb_checkpoints"))


def test_members_of_shards_that_are_no_images_are_named(tmp_path):
    members = [(f"{c}.{end}", content) for c in "abc" for end, content in (("jpg", jpeg(1)), ("txt", b"caption"))]
    labels = [(f"{key}.cls", name.encode()) for key, name in zip("abc", ways.CLASSES, strict=True)]
    write_shard(tmp_path / "raw" / "v.tar", [*members, *labels, ("c.xyz", b"")])
    source = ways.SHARDS | {"shards": {"validation": "v.tar"}}
    assert "passed over: 3 .txt, 1 .xyz" in complaint(
        recipe(tmp_path, source, counts={"validation": 4}), "validation", data_root=tmp_path / "raw"
    )


def test_photographs_of_every_usual_format_are_taken(tmp_path):
    """Pillow writes them, so it is the truth about what it reads."""
    endings = [".gif", ".tif", ".tiff", ".jfif", ".jpe", ".jpeg", ".JPG", ".png", ".bmp", ".webp", ".ppm", ".tga"]
    PIL.Image.init()
    for split, name in (("train", "n01"), ("train", "n02"), ("validation", "n01"), ("validation", "n02")):
        for i, ending in enumerate(endings):
            file = tmp_path / "raw" / split / name / f"{i}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            colour = (255, 0, 0) if name == "n02" else (0, 0, 255)
            PIL.Image.new("RGB", (40, 40), colour).save(file, PIL.Image.EXTENSION[ending.lower()])
    count = 2 * len(endings)
    source, counts = {"kind": "folder", "layout": "imagefolder"}, {"train": count, "validation": count}
    path = recipe(tmp_path, source, classes=["n01", "n02"], counts=counts)
    for row in data.load(path, data_root=tmp_path / "raw"):
        red, _, blue = row["image"].convert("RGB").getpixel((20, 20))
        assert (red > 200, blue > 200) == (row["label"] == 1, row["label"] == 0), row["id"]
        assert row["id"].partition("/")[2].isdecimal()
    assert set(PIL.Image.registered_extensions()) >= IMAGE_FILES
    assert not IMAGE_FILES & {".pdf", ".eps", ".ps", ".mpg", ".h5", ".fits", ".ico", ".icns", ".txt", ".cls", ".json"}


# ---- Tiny ImageNet, sorted -------------------------------------------------------------------------------------------


def sort_validation(root: Path, inner: str, tidy: bool) -> None:
    """Move validation images into folders by class, as tutorials do; `tidy`: delete what told the classes."""
    lines = (root / "val" / "val_annotations.txt").read_text().splitlines()
    for name, label in (line.split("\t")[:2] for line in lines):
        (root / "val" / label / inner).mkdir(parents=True, exist_ok=True)
        (root / "val" / "images" / name).rename(root / "val" / label / inner / name)
    if tidy:
        (root / "val" / "images").rmdir()
        (root / "val" / "val_annotations.txt").unlink()
        (root / "wnids.txt").unlink()


@pytest.mark.parametrize(
    ("which", "inner", "tidy"),
    [("small", "images", False), ("small", "", True), ("shared", "images", True), ("shared", "", False)],
)
def test_tiny_imagenet_sorted_by_class_is_the_one_as_distributed(tmp_path, request, which, inner, tidy):
    raw = tmp_path / "raw"
    if which == "shared":
        shutil.copytree(shared(request, "tiny-imagenet-layout"), raw)
        path = "tiny-imagenet-5"
    else:
        ways.as_tiny_imagenet(raw)
        path = recipe(tmp_path, LAYOUTS["tiny-imagenet"][1])
    before = [everything(data.load(path, split, data_root=raw)) for split in ways.IMAGES]
    fingerprint = data.fingerprint(path, data_root=raw)
    sort_validation(raw, inner, tidy)
    assert [everything(data.load(path, split, data_root=raw)) for split in ways.IMAGES] == before
    assert data.fingerprint(path, data_root=raw) == fingerprint
    assert which == "small" or fingerprint == data.load_recipe(path).fingerprint


# ---- shards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda shard: shard.unlink(), "No such file or directory"),
        (lambda shard: (shard.unlink(), shard.mkdir()), "Is a directory"),
        (lambda shard: shard.write_bytes(b"no tar" * 200), "not a tar file"),
        (lambda shard: write_shard(shard, [("a.jpg", b""), ("a.cls", "Käfer".encode("latin-1"))]), "not UTF-8 text"),
        (lambda shard: write_shard(shard, [("a.jpg", b""), ("a.json", b'{"label": "K\xe4fer"}')]), "not UTF-8 text"),
        (lambda shard: write_shard(shard, [("a.jpg", b""), ("a.json", b"[")]), "expected a JSON object"),
        (lambda shard: write_shard(shard, [("a.jpg", b""), ("a.cls", b" " * 2**21)]), "too many for a label"),
    ],
)
def test_what_is_wrong_with_a_shard_is_said(tmp_path, damage, said):
    ways.as_shards(tmp_path / "raw")
    damage(tmp_path / "raw" / "train-10.tar")
    message = complaint(recipe(tmp_path, ways.SHARDS), data_root=tmp_path / "raw")
    assert said in message
    assert "train-10.tar" in message
    assert said == "not a tar file" or "tar file" not in message


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        (tarfile.SYMTYPE, "jpg"),
        (tarfile.LNKTYPE, "jpg"),
        (tarfile.FIFOTYPE, "jpg"),
        (tarfile.SYMTYPE, "cls"),
        (tarfile.LNKTYPE, "json"),
        (tarfile.DIRTYPE, "json"),
    ],
)
def test_members_of_shards_that_are_no_files_are_not_followed(tmp_path, kind, ending):
    write(tmp_path / "secret.txt", "secret")
    write_shard(tmp_path / "raw" / "v.tar", [("a.jpg", jpeg(0)), ("a.cls", b"n01")])
    with tarfile.open(tmp_path / "raw" / "v.tar", "a") as tar:
        member = tarfile.TarInfo(f"b.{ending}")
        member.type, member.linkname = kind, str(tmp_path / "secret.txt")
        tar.addfile(member)
    source = ways.SHARDS | {"shards": {"validation": "v.tar"}}
    path = recipe(tmp_path, source, counts={"validation": 2})
    said = complaint(path, "validation", data_root=tmp_path / "raw")
    assert "1 images" in said
    assert f"passed over: 1 .{ending} (such as {tmp_path / 'raw' / 'v.tar'}: b.{ending})" in said
