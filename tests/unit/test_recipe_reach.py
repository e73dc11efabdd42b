"""A recipe or a sweep of a stranger: what it may read, and how much memory and time its numbers may take."""

import os
import random
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from test_data_sources import HUB, SHARDS, as_parquet, complaint, jpeg, recipe, write

from stm_lab import data
from stm_lab.course import sweep
from stm_lab.util.errors import UserError

pytestmark = pytest.mark.usefixtures("data_home")

SECRET = "hunter2 a\nletmein b\n"  # reads well as a list of classes
SHAPES = {"classes": list(data.load_recipe("shapes").classes), "image_size": 64}


@pytest.fixture
def home(tmp_path) -> Path:
    """A recipe's folder with a list, folders and links, of which some lead to what lies beside it."""
    folder = tmp_path / "home"
    write(folder / "inner" / "list.txt", "n01\nn02\n")
    write(folder / "list.txt", "n03\nn04\n")
    write(tmp_path / "list.txt", SECRET)
    write(tmp_path / "inner" / "list.txt", SECRET)
    for name in ("base.yaml", "base.txt"):
        (tmp_path / name).write_text("title: hunter2\n")
    for name, target in {"out": tmp_path, "in": folder / "inner", "file.txt": tmp_path / "list.txt"}.items():
        (folder / name).symlink_to(target)
    (folder / "fine.txt").symlink_to(folder / "list.txt")
    (folder / "base.yaml").symlink_to(tmp_path / "base.yaml")
    return folder


def test_a_list_is_read_only_below_the_recipes_folder(home):
    """However the path is spelled: os.path.realpath is the truth about where it leads."""
    draw = random.Random(0)
    parts, files = ["..", ".", "inner", "out", "in", "home", ""], ["list.txt", "file.txt", "fine.txt"]
    spelled = {"/".join([*draw.choices(parts, k=draw.randrange(4)), draw.choice(files)]) for _ in range(200)}
    spelled |= {str(home / "list.txt"), str(home.parent / "list.txt")}
    read = 0
    for path in sorted(spelled):
        place = os.path.realpath(home / path)
        below = place.startswith(f"{os.path.realpath(home)}{os.sep}")
        asked = recipe(home, {"kind": "parquet"}, classes=path)
        if below and os.path.isfile(place) and ".." not in path and not os.path.isabs(path):
            assert list(data.load_recipe(asked).classes) == Path(place).read_text().split(), path
            read += 1
            continue
        with pytest.raises(UserError) as error:
            data.load_recipe(asked)
        assert "hunter2" not in str(error.value), path
    assert read > 5


OUT = [
    "../list.txt",
    "inner/../../list.txt",
    "./../list.txt",
    "{}/list.txt",
    "..\\list.txt",
    "C:\\list.txt",
    "\\list.txt",
]
LINKS = ["out/list.txt", "file.txt", "in/../out/list.txt"]
KEYS = {
    "classes": lambda path: {"classes": path},
    "subset": lambda path: {"subset": {"classes": path}},
    "labels of shards": lambda path: {"source": SHARDS | {"labels": path}},
    "labels of the hub": lambda path: {"source": [{"kind": "parquet"}, HUB | {"labels": path}]},
    "extends": lambda path: {"extends": path.replace("list.txt", "base.yaml").replace("file.txt", "base.yaml")},
    "extends no recipe": lambda path: {"extends": path.replace("list.txt", "base.txt").replace("file.txt", "base.txt")},
    "shards": lambda path: {"source": SHARDS | {"shards": SHARDS["shards"] | {"train": path}}},
    "range": lambda path: {"source": SHARDS | {"shards": SHARDS["shards"] | {"train": path + "{0..3}.tar"}}},
    "files": lambda path: {"source": HUB | {"files": HUB["files"] | {"train": path.replace("list", "*")}}},
}


@pytest.mark.parametrize("key", KEYS)
def test_no_key_of_a_recipe_leads_out(home, key):
    """Links in the data root are the user's, in the recipe's folder they came with the recipe."""
    for path in OUT + LINKS * (key not in ("shards", "range", "files")):
        changes = {"source": {"kind": "parquet"}} | KEYS[key](path.format(home.parent))
        asked = recipe(home, changes.pop("source"), **changes)
        with pytest.raises(UserError) as error:
            data.load_recipe(asked)
        assert "hunter2" not in str(error.value)
        assert "\n" not in str(error.value)


def test_links_in_a_data_root_are_followed(tmp_path):
    """The hub's cache is made of links, and so are many subsets of ImageNet."""
    as_parquet(tmp_path / "blobs")
    (tmp_path / "raw").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "raw" / f"{split}.parquet").symlink_to(tmp_path / "blobs" / f"{split}.parquet")
    assert len(data.load(recipe(tmp_path, {"kind": "parquet"}), data_root=tmp_path / "raw")) == 12


@pytest.mark.parametrize("feature", [Image(), Value("string")], ids=["image", "text"])
def test_paths_in_parquet_files_are_not_followed(tmp_path, feature):
    write(tmp_path / "secret.png", jpeg(1))
    (tmp_path / "raw").mkdir()
    features = Features({"image": feature, "label": ClassLabel(names=["n01", "n02"])})
    stored = {"bytes": None, "path": str(tmp_path / "secret.png")} if isinstance(feature, Image) else "secret.png"
    rows = Dataset.from_list([{"image": stored, "label": k} for k in (0, 1)], features=features)
    pyarrow.parquet.write_table(rows.with_format("arrow")[:], tmp_path / "raw" / "train.parquet")
    path = recipe(tmp_path, {"kind": "parquet"}, classes=["n01", "n02"], counts={"train": 2})
    assert "2 of 2 images have no bytes" in complaint(path, data_root=tmp_path / "raw")


def test_other_columns_of_images_are_not_decoded(tmp_path):
    rows = [{"image": {"bytes": jpeg(k), "path": None}, "label": k, "size": 32} for k in (0, 1)]
    rows = [row | {"mask": {"bytes": None, "path": str(tmp_path / "secret.png")}} for row in rows]
    features = Features(
        {"image": Image(), "label": ClassLabel(names=["n01", "n02"]), "size": Value("int64"), "mask": Image()}
    )
    (tmp_path / "raw").mkdir()
    table = Dataset.from_list(rows, features=features).with_format("arrow")[:]
    pyarrow.parquet.write_table(table, tmp_path / "raw" / "train.parquet")
    path = recipe(tmp_path, {"kind": "parquet"}, classes=["n01", "n02"], counts={"train": 2})
    row = data.load(path, data_root=tmp_path / "raw")[0]
    assert set(row) == {"id", "image", "label", "size"}


# ---- numbers ---------------------------------------------------------------------------------------------------------


@contextmanager
def within(seconds: float, megabytes: float) -> Iterator[None]:
    """What is done inside takes no more processor time and memory than that."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < seconds
    assert peak < megabytes * 1e6


def drawn(name: str, **counts) -> dict:
    source = {"kind": "generator", "name": name}
    kinds = {"classes": ["same", "different"], "image_size": 128} if name == "shape-pairs" else SHAPES
    return {"source": source, "counts": counts, **kinds}


def of_shards(range_: str) -> dict:
    return {"source": SHARDS | {"shards": SHARDS["shards"] | {"train": f"a-{{{range_}}}.tar"}}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (of_shards("0..99999999999"), "100,000,000,000 shards, more than 100,000"),
        (of_shards("0..100000"), "100,001 shards"),
        (of_shards("0..9" + "9" * 5000), "is not a file name"),
        (drawn("shapes", train=10**12), "1,000,000,000,000 images of train are too many"),
        (drawn("shape-pairs", train=10**8), "100,000,000 images of train are too many"),
        ({"image_size": 10**6}, "image_size"),
    ],
)
def test_huge_numbers_of_a_recipe_are_refused_at_once(tmp_path, changes, said):
    values = {"source": {"kind": "parquet"}} | changes
    path = recipe(tmp_path, values.pop("source"), **values)
    with within(seconds=2, megabytes=100):
        assert said in complaint(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid": {f"p{k}": list(range(300)) for k in range(3)}}, "27,000,000 runs"),
        ({"grid": {f"p{k}": list(range(300)) for k in range(300)}}, "more than 10^15 runs"),
        ({"list": [{"p0": k} for k in range(5000)], "seeds": list(range(5000))}, "25,000,000 runs"),
        ({"grid": {"p": [0]}, "max_runs": 10**9}, "max_runs"),
    ],
)
def test_huge_grids_of_a_sweep_are_counted_before_they_are_built(small, changes, said):
    with within(seconds=2, megabytes=100), pytest.raises(UserError) as error:
        sweep({"title": "t", "notebook": "01_small", "max_runs": 10} | changes)
    assert said in str(error.value)
