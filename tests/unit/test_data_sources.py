"""Folders, shards and the hub: the same images by whatever way they come, and plain words where they do not."""

import errno
import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Image
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from stm_lab import cli, data
from stm_lab.data import shards, sources
from stm_lab.data.prepare import prepare, verify
from stm_lab.util.errors import UserError

pytestmark = pytest.mark.usefixtures("data_home")

CLASSES = {"n03": "cliff", "n01": "goldfish", "n02": "snail"}
NUMBERS = (2, 10, 1, 9)  # of the training images of a class, in the order in which they are written
REVISION = "0123456789abcdef" * 2 + "01234567"


def jpeg(seed: int, size: tuple[int, int] = (32, 40)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


# split -> [(file's name, class, encoded image)]; names and numbers as Tiny ImageNet has them
IMAGES = {
    "train": [(f"{c}_{n}.JPEG", c, jpeg(100 * k + n)) for k, c in enumerate(sorted(CLASSES)) for n in NUMBERS],
    "validation": [(f"val_{n}.JPEG", c, jpeg(1000 + n)) for n, c in ((11, "n01"), (2, "n03"), (3, "n02"))],
}
ORDER = {
    "train": [f"{c}_{n}" for c in ("n01", "n02", "n03") for n in (1, 2, 9, 10)],
    "validation": ["val_2", "val_3", "val_11"],
}


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def as_tiny_imagenet(root: Path) -> None:
    write(root / "wnids.txt", "\n".join(CLASSES))
    for name, label, image in IMAGES["train"]:
        write(root / "train" / label / "images" / name, image)
        write(root / "train" / label / f"{label}_boxes.txt", "boxes")
    for name, _, image in IMAGES["validation"]:
        write(root / "val" / "images" / name, image)
    lines = [f"{name}\t{label}\t0\t0\t9\t9\n" for name, label, _ in IMAGES["validation"]]
    write(root / "val" / "val_annotations.txt", "".join(lines))


def as_ilsvrc(root: Path) -> None:
    for split, folder in (("train", "train"), ("validation", "val")):
        for name, label, image in IMAGES[split]:
            write(root / folder / label / name, image)


def as_kaggle(root: Path) -> None:
    inner = root / "ILSVRC" / "Data" / "CLS-LOC"
    for name, label, image in IMAGES["train"]:
        write(inner / "train" / label / name, image)
    for name, _, image in IMAGES["validation"]:
        write(inner / "val" / name, image)
    lines = [f"{Path(name).stem},{label} 1 2 3 4 {label} 5 6 7 8\n" for name, label, _ in IMAGES["validation"]]
    write(root / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "".join(lines))


def as_parquet(root: Path) -> None:
    root.mkdir(parents=True)
    features = Features({"image": Image(), "label": ClassLabel(names=sorted(CLASSES))})
    for split, images in IMAGES.items():
        columns = {
            "image": [{"bytes": image, "path": name} for name, _, image in images],
            "label": [sorted(CLASSES).index(label) for _, label, _ in images],
        }
        Dataset.from_dict(columns, features=features).to_parquet(root / f"{split}.parquet")


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def as_shards(root: Path) -> None:
    for split, images in IMAGES.items():
        for k in range(2):
            members = []
            for i, (name, label, image) in enumerate(images[k::2]):
                ending, content = ("cls", label) if i % 2 else ("json", json.dumps({"label": label}))
                members += [(f"{Path(name).stem}.{ending}", content.encode()), (name, image)]
            write_shard(root / f"{split}-{k + 9:02d}.tar", members)


SHARDS = {"kind": "webdataset", "shards": {"train": "train-{09..10}.tar", "validation": "validation-{09..10}.tar"}}
LAYOUTS = {
    "tiny-imagenet": (as_tiny_imagenet, {"kind": "folder", "layout": "tiny-imagenet"}),
    "ilsvrc": (as_ilsvrc, {"kind": "folder", "layout": "ilsvrc"}),
    "kaggle": (as_kaggle, {"kind": "folder", "layout": "ilsvrc"}),
    "parquet": (as_parquet, {"kind": "parquet"}),
    "webdataset": (as_shards, SHARDS),
}


def recipe(folder: Path, source, **changes) -> Path:
    values = {
        "title": "Photographs",
        "question": "none",
        "licence": "none",
        "image_size": 32,
        "classes": CLASSES,
        "counts": {"train": 12, "validation": 3},
        "source": source,
    }
    path = folder / "mine.yaml"
    write(path, yaml.safe_dump(values | changes, sort_keys=False))
    return path


def everything(dataset: Dataset) -> list[tuple[str, str, bytes]]:
    names = dataset.features["label"].names
    images = map(sources.stored_bytes, sources.stored_images(dataset))
    return [(i, names[k], image) for i, k, image in zip(dataset["id"], dataset["label"], images, strict=True)]


def complaint(*args, **kwargs) -> str:
    with pytest.raises(UserError) as error:
        data.load(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- the same images by every way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_in_the_same_order(tmp_path, layout):
    make, source = LAYOUTS[layout]
    make(tmp_path / "raw")
    path = recipe(tmp_path, source)
    for split, images in IMAGES.items():
        dataset = data.load(path, split, data_root=tmp_path / "raw")
        assert dataset.features["label"].names == list(CLASSES)
        by_name = {Path(name).stem: (Path(name).stem, label, image) for name, label, image in images}
        assert everything(dataset) == [by_name[name] for name in ORDER[split]]
        assert dataset[0]["image"].size == (32, 40)


def test_every_layout_has_the_same_fingerprint(tmp_path):
    prints = set()
    for layout, (make, source) in LAYOUTS.items():
        make(tmp_path / layout)
        prints.add(data.fingerprint(recipe(tmp_path, source), data_root=tmp_path / layout))
    assert len(prints) == 1


def test_every_layout_is_prepared_to_the_same(tmp_path, data_home):
    """Once for all: what one layout's images were prepared to serves every other's."""
    prepared = []
    for layout, (make, source) in LAYOUTS.items():
        make(tmp_path / layout)
        loaded = data.load_recipe(recipe(tmp_path, source))
        shutil.rmtree(data_home, ignore_errors=True)
        place = prepare(loaded, data_root=tmp_path / layout, workers=1)
        prepared.append([file.read_bytes() for file in sorted(place.rglob("*.arrow"))])
        assert [data.load(loaded, split)["id"][:] for split in IMAGES] == list(ORDER.values())
    assert all(one == prepared[0] for one in prepared)
    for layout, (_, source) in LAYOUTS.items():
        assert verify(data.load_recipe(recipe(tmp_path, source)), data_root=tmp_path / layout)[1] == []


def test_a_changed_removed_or_relabelled_image_changes_the_fingerprint(tmp_path):
    make, source = LAYOUTS["ilsvrc"]
    make(tmp_path / "a")
    before = data.fingerprint(recipe(tmp_path, source), data_root=tmp_path / "a")
    one = Path("train") / "n01" / "n01_9.JPEG"

    def changed(name: str, change, **changes) -> str:
        shutil.copytree(tmp_path / "a", tmp_path / name)
        change(tmp_path / name)
        return data.fingerprint(recipe(tmp_path, source, **changes), data_root=tmp_path / name)

    def flip_a_bit(root: Path) -> None:
        content = bytearray((root / one).read_bytes())
        content[-5] ^= 1
        (root / one).write_bytes(content)

    prints = [
        before,
        changed("b", flip_a_bit),
        changed("c", lambda root: (root / one).unlink(), counts={"train": 11, "validation": 3}),
        changed("d", lambda root: (root / one).rename(root / "train" / "n02" / "n01_9.JPEG")),
        changed("e", lambda root: (root / one).rename(root / one.parent / "n01_8.JPEG")),
    ]
    assert len(set(prints)) == len(prints)
    assert changed("f", lambda root: None) == before


def test_large_sets_are_known_by_sizes_without_being_read(tmp_path, monkeypatch):
    make, source = LAYOUTS["ilsvrc"]
    make(tmp_path / "raw")
    path = recipe(tmp_path, source)
    hashed = data.fingerprint(path, data_root=tmp_path / "raw")
    monkeypatch.setattr("stm_lab.data.found.HASHED_UP_TO", 1000)
    monkeypatch.setattr(sources, "stored_bytes", None)  # reading would fail
    sized = data.fingerprint(path, data_root=tmp_path / "raw")
    assert sized != hashed
    with (tmp_path / "raw" / "train" / "n01" / "n01_9.JPEG").open("ab") as file:
        file.write(b"more")
    assert data.fingerprint(path, data_root=tmp_path / "raw") != sized


def test_imagefolder_knows_images_by_class_and_name(tmp_path):
    for split, count in (("train", 3), ("validation", 1)):
        for k, label in enumerate(CLASSES):
            for i in range(count):
                write(tmp_path / "raw" / split / label / f"{i}.png", jpeg(10 * k + i))
    path = recipe(tmp_path, {"kind": "folder", "layout": "imagefolder"}, counts={"train": 9, "validation": 3})
    dataset = data.load(path, data_root=tmp_path / "raw")
    assert dataset["id"][:4] == ["n01/0", "n01/1", "n01/2", "n02/0"]
    assert dataset["label"][:4] == [1, 1, 1, 2]


def test_the_first_source_that_is_there_is_taken_also_under_the_name_of_a_base(tmp_path, data_home):
    both = [{"kind": "parquet"}, {"kind": "folder", "layout": "tiny-imagenet"}]
    path = recipe(tmp_path, both)
    child = tmp_path / "child.yaml"
    child.write_text("extends: mine.yaml\nsubset: {classes: [n01, n02]}\ncounts: {train: 8, validation: 2}\n")
    message = complaint(child)
    assert all(word in message for word in ("train.parquet", "tiny-imagenet", "raw/child", "raw/mine", "--data-root"))
    as_tiny_imagenet(data_home / "raw" / "mine")
    assert data.load(child)["id"][:] == ORDER["train"][:8]
    assert data.load(child).features["label"].names == ["n01", "n02"]
    as_parquet(data_home / "raw" / "child")
    (data_home / "raw" / "mine").rename(data_home / "raw" / "away")
    assert data.load(child)["id"][:] == ORDER["train"][:8]
    assert "no train.parquet" in complaint(path)


# ---- subsets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["ilsvrc", "parquet"])
def test_subsets_go_by_identifiers_and_seed(tmp_path, layout):
    make, source = LAYOUTS[layout]
    make(tmp_path / "raw")

    def ids(**subset) -> list[str]:
        size = round(12 * subset["fraction"]) if "fraction" in subset else 3 * subset["per_class"]
        path = recipe(tmp_path, source, subset=subset, counts={"train": size, "validation": 3})
        assert len(data.load(path, "validation", data_root=tmp_path / "raw")) == 3
        dataset = data.load(path, data_root=tmp_path / "raw")
        assert np.ptp(np.bincount(dataset["label"], minlength=3)) <= 1
        assert dataset["id"][:] == [name for name in ORDER["train"] if name in set(dataset["id"])]
        return dataset["id"][:]

    assert set(ids(per_class=1)) < set(ids(per_class=2)) == set(ids(fraction=0.5))
    assert {tuple(ids(per_class=1, seed=seed)) for seed in range(8)} != {tuple(ids(per_class=1))}
    # an independent statement of which they are: the smallest hash of "<seed> <identifier>" in each class
    smallest = [min((n for n in ORDER["train"] if n.startswith(c)), key=lambda n: hash64(f"4 {n}")) for c in CLASSES]
    assert set(ids(per_class=1, seed=4)) == set(smallest)


def hash64(text: str) -> int:
    return int(hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), 16)


SYNSETS = ("n01440764", "n01443537")


def named_as_imagenet() -> dict[str, list[tuple[str, str, bytes]]]:
    """(file's name in a folder, class, image)"""
    return {
        "train": [
            (f"{c}_{n}.JPEG", c, jpeg(50 * k + n)) for k, c in enumerate(SYNSETS) for n in (2, 10026, 37, 9, 415)
        ],
        "validation": [(f"ILSVRC2012_val_{n:08d}.JPEG", SYNSETS[n % 2], jpeg(200 + n)) for n in (1, 2, 11, 4)],
    }


def as_imagenets_folder(root: Path) -> None:
    for split, folder in (("train", "train"), ("validation", "val")):
        for name, label, image in named_as_imagenet()[split]:
            write(root / folder / label / name, image)


def as_imagenets_hub_files(root: Path) -> None:
    """Names end in the class there, and the rows are shuffled."""
    root.mkdir()
    features = Features({"image": Image(), "label": ClassLabel(names=list(SYNSETS))})
    for split, images in named_as_imagenet().items():
        rows = [
            {"image": {"bytes": image, "path": f"{Path(name).stem}_{label}.JPEG"}, "label": SYNSETS.index(label)}
            for name, label, image in images[::-1]
        ]
        Dataset.from_list(rows, features=features).to_parquet(root / f"{split}.parquet")


def as_imagenets_shards(root: Path) -> None:
    for split, images in named_as_imagenet().items():
        members = [
            (f"{folder}{Path(name).stem}.{ending}", content)
            for i, (name, label, image) in enumerate(images[1:] + images[:1])
            for folder in ("" if i % 2 else f"{label}/",)
            for ending, content in (("jpg", image), ("cls", label.encode()))
        ]
        write_shard(root / f"{split}-0.tar", members)


@pytest.mark.parametrize("subset", [{}, {"fraction": 0.4}, {"per_class": 3}], ids=["all", "fraction", "per_class"])
def test_imagenet_is_the_same_by_whatever_names_its_files_come(tmp_path, subset):
    ways = {
        "folder": (as_imagenets_folder, {"kind": "folder", "layout": "ilsvrc"}),
        "imagefolder": (as_imagenets_folder, {"kind": "folder", "layout": "imagefolder"}),
        "hub": (as_imagenets_hub_files, {"kind": "parquet"}),
        "shards": (as_imagenets_shards, SHARDS | {"shards": {split: f"{split}-0.tar" for split in IMAGES}}),
    }
    seen = []
    for way, (make, source) in ways.items():
        make(tmp_path / way)
        counts = {"train": {"fraction": 4, "per_class": 6}.get(next(iter(subset), ""), 10), "validation": 4}
        path = recipe(tmp_path, source, classes=list(SYNSETS), counts=counts, subset=subset)
        splits = [data.load(path, split, data_root=tmp_path / way) for split in IMAGES]
        few = data.take(splits[0], 3)["id"][:]
        seen.append(([*map(everything, splits)], few, data.fingerprint(path, data_root=tmp_path / way)))
    assert all(one == seen[0] for one in seen)
    if not subset:
        assert [name for name, _, _ in seen[0][0][0]][:3] == ["n01440764_2", "n01440764_9", "n01440764_37"]
        assert seen[0][0][1][0][0] == "ILSVRC2012_val_00000001"


@pytest.mark.parametrize("subset", [{"fraction": 0.5}, {"per_class": 2}])
def test_images_without_names_are_not_chosen_by_their_rows(tmp_path, subset):
    rows = [{"image": {"bytes": jpeg(i), "path": None}, "label": i % 3} for i in range(12)]
    features = Features({"image": Image(), "label": ClassLabel(names=sorted(CLASSES))})
    (tmp_path / "raw").mkdir()
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "raw" / "train.parquet")
    source = {"kind": "parquet"}
    message = complaint(recipe(tmp_path, source, subset=subset, counts={"train": 6}), data_root=tmp_path / "raw")
    assert all(word in message for word in ("train.parquet", "no names of their own", "subset"))
    assert len(data.load(recipe(tmp_path, source, counts={"train": 12}), data_root=tmp_path / "raw")) == 12


# ---- folders that are not what they should be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "change", "words"),
    [
        ("tiny-imagenet", lambda root: shutil.rmtree(root / "train"), ["no folder train"]),
        ("tiny-imagenet", lambda root: (root / "train" / "n02").rename(root / "train" / "n2"), ["'n02'", "'n2'"]),
        ("tiny-imagenet", lambda root: shutil.rmtree(root / "train" / "n02" / "images"), ["no image of class 'n02'"]),
        ("tiny-imagenet", lambda root: (root / "train" / "n02" / "images" / "n02_1.JPEG").unlink(), ["11", "has 12"]),
        ("ilsvrc", lambda root: (root / "train" / "n02" / "n02_1.JPEG").unlink(), ["11 images", "has 12"]),
        ("ilsvrc", lambda root: write(root / "train" / "n02" / "n01_1.JPEG", b""), ["n01_1", "another image"]),
        ("ilsvrc", lambda root: shutil.rmtree(root / "train"), ["no folder train"]),
        ("webdataset", lambda root: write(root / "train-09.tar", b"no tar" * 200), ["train-09.tar", "not a tar file"]),
        ("webdataset", lambda root: (root / "train-10.tar").unlink(), ["train-10.tar", "No such file"]),
        ("webdataset", lambda root: write_shard(root / "train-09.tar", [("a.jpg", b"")]), ["'a'", "no label"]),
        ("webdataset", lambda root: write_shard(root / "train-09.tar", [("a.cls", b"4")]), ["a.cls", "4", "`labels`"]),
        ("webdataset", lambda root: write_shard(root / "train-09.tar", [("a.json", b"[]")]), ["a.json", "'label'"]),
        ("webdataset", lambda root: shutil.copy(root / "train-09.tar", root / "train-10.tar"), ["another image"]),
    ],
)
def test_faulty_training_folders_are_refused_in_one_line(tmp_path, layout, change, words):
    make, source = LAYOUTS[layout]
    make(tmp_path / "raw")
    change(tmp_path / "raw")
    message = complaint(recipe(tmp_path, source), data_root=tmp_path / "raw")
    assert all(word in message for word in [str(tmp_path / "raw"), *words]), message


@pytest.mark.parametrize(
    ("layout", "change", "words"),
    [
        (
            "tiny-imagenet",
            lambda root: (root / "val" / "val_annotations.txt").unlink(),
            ["val_annotations.txt", "No such"],
        ),
        ("tiny-imagenet", lambda root: write(root / "val" / "val_annotations.txt", "x\n"), ["line 1", "tabs"]),
        ("tiny-imagenet", lambda root: write(root / "val" / "images" / "val_4.JPEG", b""), ["val_4.JPEG", "no label"]),
        (
            "kaggle",
            lambda root: (root / "LOC_val_solution.csv").unlink(),
            ["LOC_val_solution.csv", "synset_labels.txt"],
        ),
        (
            "kaggle",
            lambda root: (root / "LOC_val_solution.csv").rename(root / "ILSVRC2012_validation_ground_truth.txt"),
            ["LOC_val_solution.csv", "order of its own"],
        ),
        ("ilsvrc", lambda root: shutil.rmtree(root / "val"), ["validation or val"]),
        ("parquet", lambda root: (root / "validation.parquet").unlink(), ["no validation.parquet"]),
    ],
)
def test_faulty_validation_folders_are_refused_in_one_line(tmp_path, layout, change, words):
    make, source = LAYOUTS[layout]
    make(tmp_path / "raw")
    change(tmp_path / "raw")
    message = complaint(recipe(tmp_path, source), "validation", data_root=tmp_path / "raw")
    assert all(word in message for word in [str(tmp_path / "raw"), *words]), message


def test_a_synset_a_line_labels_ilsvrcs_validation_images(tmp_path):
    raw, labels = tmp_path / "raw", ["n02", "n01", "n03"]
    for i in range(3):
        write(raw / "val" / f"ILSVRC2012_val_{i + 1:08d}.JPEG", jpeg(i))
    write(raw / "imagenet_2012_validation_synset_labels.txt", "\n".join(labels) + "\n")
    path = recipe(tmp_path, LAYOUTS["ilsvrc"][1], counts={"validation": 3})
    dataset = data.load(path, "validation", data_root=raw)
    assert [list(CLASSES)[label] for label in dataset["label"]] == labels


def test_numbers_in_shards_mean_what_the_source_lists(tmp_path):
    members = [("a.jpg", jpeg(0)), ("a.cls", b"2\n"), ("b.jpg", jpeg(1)), ("b.cls", b"0"), ("c.jpg", jpeg(2))]
    write_shard(tmp_path / "raw" / "v.tar", [*members, ("c.json", b'{"label": 1}')])
    source = {"kind": "webdataset", "shards": {"validation": "v.tar"}, "labels": ["n01", "n02", "n03"]}
    path = recipe(tmp_path, source, counts={"validation": 3})
    dataset = data.load(path, "validation", data_root=tmp_path / "raw")
    assert [list(CLASSES)[label] for label in dataset["label"]] == ["n03", "n01", "n02"]
    write_shard(tmp_path / "raw" / "v.tar", [("a.jpg", jpeg(0)), ("a.cls", b"3")])
    assert "label 3" in complaint(path, "validation", data_root=tmp_path / "raw")


@pytest.mark.parametrize("json_first", [True, False])
def test_a_label_beside_other_words_about_an_image_counts(tmp_path, json_first):
    about = [("a.json", b'{"filename": "a.jpg", "width": 32}'), ("a.cls", b"n02")]
    others = [("b.jpg", jpeg(1)), ("b.cls", b"n01"), ("c.jpg", jpeg(2)), ("c.cls", b"n03")]
    write_shard(tmp_path / "raw" / "v.tar", [("a.jpg", jpeg(0)), *(about if json_first else about[::-1]), *others])
    path = recipe(tmp_path, SHARDS | {"shards": {"validation": "v.tar"}}, counts={"validation": 3})
    dataset = data.load(path, "validation", data_root=tmp_path / "raw")
    assert list(CLASSES)[dataset[0]["label"]] == "n02"


def test_compressed_shards_are_refused(tmp_path):
    as_shards(tmp_path / "raw")
    shard = tmp_path / "raw" / "train-09.tar"
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    message = complaint(recipe(tmp_path, SHARDS), data_root=tmp_path / "raw")
    assert all(word in message for word in (str(shard), "compressed"))


def test_ranges_of_shards():
    assert shards.expanded("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert shards.expanded("a.tar") == ["a.tar"]
    for wrong in ("a-{3..1}.tar", "a-{1..2}{1..2}.tar", "a-{x..y}.tar", "a-{1,2}.tar", "a-}"):
        with pytest.raises(UserError, match=re.escape(repr(wrong))):
            shards.expanded(wrong)


def test_shards_too_large_for_memory_have_to_be_prepared(tmp_path, monkeypatch):
    as_shards(tmp_path / "raw")
    monkeypatch.setattr(sources, "IN_MEMORY_UP_TO", 100)
    file = recipe(tmp_path, SHARDS)
    command = f"stm-lab data prepare {file} --data-root {tmp_path / 'raw'}"
    assert command in complaint(file, data_root=tmp_path / "raw")


# ---- the hub ---------------------------------------------------------------------------------------------------------

HUB = {
    "kind": "hub",
    "name": "somebody/photographs",
    "revision": REVISION,
    "files": {"train": "train*.parquet", "validation": "validation*.parquet"},
}


def test_the_hub_gives_what_its_files_hold_at_that_commit(tmp_path, monkeypatch):
    as_parquet(tmp_path / "snapshot")
    asked = {}

    def snapshot(name, **options):
        asked.update(options, name=name)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(sources, "snapshot_download", snapshot)
    path = recipe(tmp_path, HUB)
    assert data.load(path)["id"][:] == ORDER["train"]
    assert (asked["name"], asked["revision"], asked["repo_type"]) == (HUB["name"], REVISION, "dataset")
    assert set(asked["allow_patterns"]) == set(HUB["files"].values())
    renamed = data.load(recipe(tmp_path, HUB | {"labels": ["n03", "n02", "n01"]}))
    assert [list(CLASSES)[label] for label in renamed["label"][:8:4]] == ["n03", "n02"]
    message = complaint(recipe(tmp_path, HUB | {"files": HUB["files"] | {"train": "nothing*"}}))
    assert "nothing*" in message
    assert REVISION[:12] in message


def test_the_hubs_fingerprint_needs_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "snapshot_download", None)
    prints = {
        data.fingerprint(recipe(tmp_path, HUB | change, **changes))
        for change, changes in (
            ({}, {}),
            ({}, {"title": "other"}),
            ({"revision": REVISION[::-1]}, {}),
            ({}, {"subset": {"per_class": 2}}),
            ({}, {"classes": {"n01": "a", "n02": "b"}}),
        )
    }
    assert len(prints) == 4


def refusal(status: int) -> SimpleNamespace:
    """What the hub's exceptions want to know of an answer."""
    request = SimpleNamespace(headers={"authorization": "Bearer hf_verysecret"}, url="https://huggingface.co/api")
    return SimpleNamespace(status_code=status, headers={}, request=request, text="hf_verysecret")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OfflineModeIsEnabled("HF_HUB_OFFLINE is set"), ["'shapes'", "--data-root", "OfflineModeIsEnabled"]),
        (LocalEntryNotFoundError("no connection"), ["'shapes'", "--data-root"]),
        (ConnectionError("refused"), ["'shapes'", "--data-root"]),
        ("gated", ["https://huggingface.co/datasets/somebody/photographs", "HF_TOKEN", "accept", "--data-root"]),
        (401, ["https://huggingface.co/datasets/somebody/photographs", "HF_TOKEN", "accept"]),
        (500, ["'shapes'", "--data-root"]),
    ],
)
def test_without_network_or_access_the_way_out_is_named_and_no_token(tmp_path, monkeypatch, capfd, error, words):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")

    def fail(*args, **kwargs):
        if error == "gated":
            raise GatedRepoError("with hf_verysecret", response=refusal(403))
        raise HfHubHTTPError("with hf_verysecret", response=refusal(error)) if isinstance(error, int) else error

    monkeypatch.setattr(sources, "snapshot_download", fail)
    path = recipe(tmp_path, HUB | {"gated": True})
    message = complaint(path)
    assert all(word in message for word in ["mine", *words]), message
    assert cli.main(["data", "prepare", str(path)]) == 2
    out, err = capfd.readouterr()
    assert err == f"error: {message}\n"
    assert "hf_verysecret" not in message + out + err


def test_a_full_disk_and_damaged_files_are_not_taken_for_a_missing_network(tmp_path, monkeypatch):
    as_parquet(tmp_path / "snapshot")
    path = recipe(tmp_path, HUB)
    monkeypatch.setattr(sources, "snapshot_download", lambda *args, **options: str(tmp_path / "snapshot"))
    (tmp_path / "snapshot" / "train.parquet").write_bytes(b"PAR1 but not really")
    message = complaint(path)
    assert all(word in message for word in ("somebody/photographs cannot be read", "delete")), message
    assert "network" not in message

    def full(*args, **options):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise DatasetGenerationError("An error occurred while generating the dataset") from error

    monkeypatch.setattr(Dataset, "from_parquet", full)
    message = complaint(path)
    assert all(word in message for word in ("no space left", "HF_HOME")), message


def test_a_set_from_the_hub_alone_refuses_a_folder(tmp_path):
    assert "--data-root" in complaint(recipe(tmp_path, HUB), data_root=tmp_path)


# ---- photographs -----------------------------------------------------------------------------------------------------


def shared(request, name: str) -> Path:
    folder = Path(request.config.rootpath).parent / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip("needs ../shared; test_every_layout_gives_the_same_images_in_the_same_order is the same without it")
    return folder


def test_tiny_imagenet_as_distributed(request):
    folder = shared(request, "tiny-imagenet-layout")
    train, validation = (data.load("tiny-imagenet-5", split, data_root=folder) for split in ("train", "validation"))
    assert np.bincount(train["label"]).tolist() == [24] * 5
    names = train.features["label"].names
    assert all(name.startswith(names[label]) for name, label in zip(train["id"], train["label"], strict=True))
    lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    told = {line.split("\t")[0].removesuffix(".JPEG"): line.split("\t")[1] for line in lines}
    assert {name: names[label] for name, label in zip(validation["id"], validation["label"], strict=True)} == told
    words = dict(line.split("\t") for line in (folder / "words.txt").read_text().splitlines())
    classes = data.load_recipe("tiny-imagenet-5").classes
    assert {name: words[name].split(",")[0] for name in classes} == classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("tiny-imagenet-40", "tiny-imagenet-40"),
        ("tiny-imagenet-5", "tiny-imagenet-layout"),
        ("imagenet-sample", "imagenet-1k-sample"),
    ],
)
def test_shipped_fingerprints_are_those_of_the_images(request, name, folder):
    root = shared(request, folder)
    assert data.load_recipe(name).fingerprint == data.fingerprint(name, data_root=root)


def test_a_declared_fingerprint_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    as_parquet(tmp_path / "snapshot")
    monkeypatch.setattr(sources, "snapshot_download", lambda *args, **options: str(tmp_path / "snapshot"))
    loaded = data.load_recipe(recipe(tmp_path, [{"kind": "parquet"}, HUB], fingerprint="0123456789abcdef"))
    assert prepare(loaded, workers=1).is_dir()
    with pytest.raises(UserError, match="was written for"):
        prepare(loaded, data_root=tmp_path / "snapshot", workers=1)


def test_full_size_photographs(request):
    folder = shared(request, "imagenet-1k-sample")
    dataset = data.load("imagenet-sample", "validation", data_root=folder)
    names = list(data.load_recipe("imagenet-sample").classes.values())
    for row in dataset:  # a file's name ends with its class's
        assert row["id"].split("_", 1)[1].replace("_", " ") == names[row["label"]]
    assert max(max(row["image"].size) for row in dataset) > 400


def test_the_parquet_file_is_in_natural_order(request):
    """So the whole folder, in which images are put into that order, gives what the file gives."""
    folder = shared(request, "tiny-imagenet-40")
    for split in ("train", "validation"):
        stored = Dataset.from_parquet(str(folder / f"{split}.parquet"), keep_in_memory=True).cast_column(
            "image", Image(decode=False)
        )
        loaded = data.load("tiny-imagenet-40", split, data_root=folder)
        assert [Path(image["path"]).stem for image in stored["image"]] == loaded["id"][:]
        assert stored["label"][:] == loaded["label"][:]
