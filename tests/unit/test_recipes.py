"""Recipes, the sources they name, fingerprints, subsets and the cache."""

import hashlib
import io
import os
import re
import shutil
import threading
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Image
from timm.data import ImageNetInfo

from stm_lab import data
from stm_lab.data import sources
from stm_lab.util import paths
from stm_lab.util.errors import UserError

pytestmark = pytest.mark.usefixtures("data_home")

PHOTOGRAPHS = {
    "title": "Three kinds of photographs",
    "question": "none",
    "licence": "none",
    "image_size": 32,
    "classes": {"n03": "cliff", "n01": "goldfish"},
    "counts": {"train": 8, "validation": 4},
    "source": {"kind": "parquet"},
}
DRAWN = {
    "title": "Few shapes",
    "question": "none",
    "licence": "none",
    "image_size": 64,
    "classes": list(data.load_recipe("shapes").classes),
    "counts": {"train": 30, "validation": 20},
    "source": {"kind": "generator", "name": "shapes", "seed": 3},
}

HUB = {
    "kind": "hub",
    "name": "somebody/photographs",
    "revision": "0123456789abcdef" * 2 + "01234567",
    "files": {"train": "data/train-*.parquet", "validation": "data/validation-*.parquet"},
}


def write_recipe(folder: Path, values: dict, name: str = "mine") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def write_parquet(folder: Path, per_class: dict[str, int], names=("n01", "n02", "n03"), shade=0) -> None:
    """`<split>.parquet` files whose images show their class: red is 50 times its place in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, number in per_class.items():
        images, labels = [], []
        for i in range(number * len(names)):
            label = i % len(names)
            buffer = io.BytesIO()
            PIL.Image.new("RGB", (32, 32), (50 * label, shade, i)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": f"{split}_{i}.png"})
            labels.append(label)
        features = Features({"image": Image(), "label": ClassLabel(names=list(names))})
        Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(folder / f"{split}.parquet")


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# ---- recipes ---------------------------------------------------------------------------------------------------------


def test_all_that_is_missing_is_told_and_nothing_that_follows_from_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("image_size: 64\nclasses: [a, b]\nlicence: none\nquestion: none\n")
    with pytest.raises(UserError, match=r"mine\.yaml: 'title', 'counts' and 'source' are missing$"):
        data.load_recipe(path)
    more = "title: mine\ncounts: {train: 2}\nsource: {kind: folder, layout: imagefoldr}\n"
    path.write_text(path.read_text() + more)
    with pytest.raises(UserError, match=r"did you mean 'imagefolder'\?$"):
        data.load_recipe(path)


def test_shipped_recipes_load():
    assert {"shapes", "tiny-imagenet-40"} <= set(data.list_recipes())
    for name in data.list_recipes():
        recipe = data.load_recipe(name)
        assert recipe.name == name
        by_path = data.load_recipe(paths.recipes_dir() / f"{name}.yaml")
        assert recipe.model_dump() == by_path.model_dump()  # but for how it was asked for
        assert (paths.recipes_dir() / f"{name}.yaml").read_text().startswith("# ")


def test_tiny_imagenet_names_wordnet_ids():
    recipe = data.load_recipe("tiny-imagenet-40")
    assert len(recipe.classes) == 40
    assert list(recipe.classes) == sorted(recipe.classes)
    assert all(re.fullmatch(r"n\d{8}", identifier) for identifier in recipe.classes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"titel": "x"}, ["unknown key 'titel'", "'title'"]),
        ({"title": None}, ["title"]),
        ({"name": "x"}, ["'name'"]),
        ({"image_size": 0}, ["image_size", "0", "1"]),
        ({"image_size": "large"}, ["image_size", "large"]),
        ({"classes": ["ring"]}, ["classes", "2"]),
        ({"classes": ["ring", "ring"]}, ["classes", "twice"]),
        ({"classes": []}, ["classes"]),
        ({"counts": {"train": 0}}, ["counts.train", "0"]),
        ({"counts": {}}, ["counts"]),
        ({"counts": {"trian": 5}}, ["trian", "'train'"]),
        ({"source": {"kind": "generatr"}}, ["generatr", "'generator'"]),
        ({"source": {"kind": "generator", "name": "shaps"}}, ["shaps", "'shapes'"]),
        ({"source": {"kind": "generator", "name": "shapes", "sed": 1}}, ["sed", "'seed'"]),
        ({"source": {"kind": "generator", "name": "shapes", "seed": -1}}, ["seed", "-1"]),
        ({"source": {"kind": "parquet", "path": "x"}}, ["path"]),
        ({"source": {}}, ["source"]),
        ({"source": []}, ["source"]),
        ({"source": [DRAWN["source"], {"kind": "hubb"}]}, ["hubb", "'hub'"]),
        ({"source": {"kind": "folder", "layout": "imagnet"}}, ["layout", "imagnet", "'imagefolder'"]),
        ({"source": {"kind": "folder", "layuot": "ilsvrc"}}, ["layuot", "'layout'"]),
        ({"source": {"kind": "folder"}}, ["layout", "missing"]),
        ({"source": HUB | {"revision": "main"}}, ["revision", "main", "{40}"]),
        ({"source": {k: v for k, v in HUB.items() if k != "revision"}}, ["revision", "missing"]),
        ({"source": HUB | {"name": "imagenet-1k"}}, ["name", "imagenet-1k", "pattern"]),
        ({"source": HUB | {"files": {"train": "a"}}}, ["files", "'validation'"]),
        ({"source": HUB | {"files": HUB["files"] | {"test": "a"}}}, ["files", "'test'"]),
        ({"source": HUB | {"gated": "perhaps"}}, ["gated", "perhaps"]),
        ({"source": HUB | {"revison": "x"}}, ["revison", "'revision'"]),
        ({"source": {"kind": "webdataset", "shards": {"train": "a.tar"}}}, ["shards", "'validation'"]),
        ({"source": {"kind": "webdataset", "shards": "a.tar"}}, ["shards", "a.tar"]),
        ({"source": {"kind": "parquet", "labels": "nothing.txt"}}, ["labels", "nothing.txt", "No such file"]),
        ({"subset": {"fraction": 1.5}}, ["subset.fraction", "1.5"]),
        ({"subset": {"fraction": 0}}, ["subset.fraction", "0"]),
        ({"subset": {"per_class": 0}}, ["subset.per_class", "0"]),
        ({"subset": {"per_class": 2, "fraction": 0.5}}, ["per_class or fraction"]),
        ({"subset": {"clases": ["ring"]}}, ["clases", "'classes'"]),
        ({"subset": {"classes": ["ring", "strar"]}}, ["strar", "'star'"]),
        ({"subset": {"classes": ["ring"]}}, ["subset.classes"]),
        ({"subset": {"seed": -1}}, ["subset.seed", "-1"]),
        ({"subset": {"classes": "lists/none.txt"}}, ["none.txt", "No such file"]),
        ({"classes": "lists/none.txt"}, ["classes", "none.txt", "No such file"]),
        ({"fingerprint": "abc"}, ["fingerprint", "abc"]),
        ({"max_broken": -1}, ["max_broken", "-1"]),
        ({"image_size": "64"}, ["image_size", "'64'"]),
        ({"image_size": 64.0}, ["image_size", "64.0"]),
        ({"max_broken": True}, ["max_broken", "True"]),
        ({"counts": {"validation": True}}, ["counts.validation", "True"]),
        ({"source": DRAWN["source"] | {"seed": "3"}}, ["seed", "'3'"]),
        ({"source": HUB | {"gated": "yes"}}, ["gated", "'yes'"]),
        ({"subset": {"fraction": "0.5"}}, ["subset.fraction", "'0.5'"]),
        ({"subset": {"per_class": 2.0}}, ["subset.per_class", "2.0"]),
        ({"counts": {"train": "many"}}, ["counts.train", "many"]),
        ({"extends": "shaps"}, ["extends", "shaps", "'shapes'"]),
        ({"extends": "nothing.yaml"}, ["nothing.yaml", "No such file"]),
        ({"extends": 3}, ["extends", "3"]),
        ({"extends": "mine.yaml"}, ["extends itself"]),
        ({"bases": ["shapes"]}, ["'bases'"]),
    ],
)
def test_faulty_recipe_is_refused_in_one_line(tmp_path, change, words):
    path = write_recipe(tmp_path, DRAWN | change)
    with pytest.raises(UserError) as error:
        data.load_recipe(path)
    assert all(word in one_line(error) for word in [str(path), *words])


@pytest.mark.parametrize(("text", "word"), [("title: [a\nb: c", "line 2"), ("- a", "key: value"), ("", "key: value")])
def test_malformed_yaml_is_refused(tmp_path, text, word):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        data.load_recipe(path)
    assert str(path) in one_line(error)
    assert word in one_line(error)


def test_unknown_recipe_split_and_file(tmp_path):
    with pytest.raises(UserError, match="'shaps'; did you mean 'shapes'"):
        data.load("shaps")
    with pytest.raises(UserError, match="'valid'; did you mean 'validation'"):
        data.load("shapes", "valid")
    with pytest.raises(UserError, match=r"nothing\.yaml: No such file"):
        data.load(tmp_path / "nothing.yaml")


def test_a_recipe_extends_another(tmp_path):
    write_recipe(tmp_path, PHOTOGRAPHS | {"subset": {"seed": 5}}, "base")
    child = {"extends": "base.yaml", "title": "Fewer", "counts": {"train": 2}, "subset": {"per_class": 1}}
    recipe = data.load_recipe(write_recipe(tmp_path, child, "child"))
    base = data.load_recipe(tmp_path / "base.yaml")
    assert (recipe.name, recipe.bases) == ("child", ("base",))
    assert (recipe.title, recipe.counts) == ("Fewer", {"train": 2})
    assert (recipe.subset.per_class, recipe.subset.seed) == (1, 5)
    same = {"classes", "question", "licence", "source", "image_size"}
    assert recipe.model_dump(include=same) == base.model_dump(include=same)
    grandchild = data.load_recipe(write_recipe(tmp_path, {"extends": "child.yaml", "image_size": 48}, "last"))
    assert (grandchild.bases, grandchild.image_size) == (("child", "base"), 48)
    assert grandchild.subset == recipe.subset


def test_a_fingerprint_is_not_taken_over(tmp_path):
    write_recipe(tmp_path, PHOTOGRAPHS | {"fingerprint": "0123456789abcdef"}, "base")
    child = write_recipe(tmp_path, {"extends": "base.yaml", "counts": {"train": 2}}, "child")
    assert data.load_recipe(child).fingerprint is None
    assert data.load_recipe(tmp_path / "base.yaml").fingerprint == "0123456789abcdef"


def test_classes_come_from_list_files_and_keep_the_order_of_the_base(tmp_path):
    (tmp_path / "all.txt").write_text("# everything\nn03 steep cliff\nn01\n\nn02 snail # slow\n")
    (tmp_path / "few.txt").write_text("n02\nn03\n")
    values = PHOTOGRAPHS | {"classes": "all.txt", "subset": {"classes": "few.txt"}}
    recipe = data.load_recipe(write_recipe(tmp_path, values))
    assert list(recipe.classes.items()) == [("n03", "steep cliff"), ("n02", "snail")]
    (tmp_path / "few.txt").write_text("n02\nn03\nn02\n")
    with pytest.raises(UserError, match=r"few\.txt, line 3: 'n02' is listed twice"):
        data.load_recipe(write_recipe(tmp_path, values))


def test_shipped_class_lists_are_those_of_imagenet():
    """timm's list of the 1,000 synsets is the independent truth; every other list is a part of it."""
    imagenet = data.load_recipe("imagenet-1k")
    truth = ImageNetInfo()
    assert list(imagenet.classes) == truth.label_names()
    for identifier, name in imagenet.classes.items():
        assert truth.label_name_to_description(identifier).split(",")[0] == name
    sizes = {"imagenet-100": 100, "imagenette": 10, "imagewoof": 10, "tiny-imagenet": 200, "tiny-imagenet-40": 40}
    for name, size in sizes.items():
        classes = data.load_recipe(name).classes
        assert len(classes) == size
        assert list(classes) == sorted(classes)
        assert classes.items() <= imagenet.classes.items()
    assert data.load_recipe("imagenet-1pct").counts["train"] == round(0.01 * imagenet.counts["train"])
    assert data.load_recipe("imagenet-10pct").counts["train"] == round(0.1 * imagenet.counts["train"])


# ---- parquet ---------------------------------------------------------------------------------------------------------


def test_parquet_keeps_the_recipes_classes_in_its_order(tmp_path):
    write_parquet(tmp_path / "raw", {"train": 4, "validation": 2})
    recipe = write_recipe(tmp_path, PHOTOGRAPHS)
    dataset = data.load(recipe, data_root=tmp_path / "raw")
    assert dataset.column_names[:3] == ["id", "image", "label"]
    assert dataset.features["label"].names == ["n03", "n01"]
    red = {0: 100, 1: 0}  # n03 was number 2 in the file, n01 number 0
    for row in dataset:
        assert row["image"].getpixel((0, 0))[0] == red[row["label"]]
    assert dataset["id"][:3] == ["train_0", "train_2", "train_3"]
    assert len(data.load(recipe, "validation", data_root=tmp_path / "raw")) == 4


def test_parquet_is_found_under_each_data_root(tmp_path, monkeypatch):
    write_parquet(tmp_path / "second" / "raw" / "mine", {"train": 4, "validation": 2})
    recipe = write_recipe(tmp_path, PHOTOGRAPHS)
    with pytest.raises(UserError) as error:
        data.load(recipe)
    message = one_line(error)
    assert all(word in message for word in ["train.parquet", str(tmp_path / "home"), "--data-root", "STM_LAB_DATA"])
    monkeypatch.setenv("STM_LAB_DATA", f"{tmp_path / 'home'}{os.pathsep}{tmp_path / 'second'}")
    assert len(data.load(recipe)) == 8


def test_parquet_that_is_not_what_the_recipe_says(tmp_path):
    recipe = write_recipe(tmp_path, PHOTOGRAPHS)
    raw = tmp_path / "raw"

    def complaint() -> str:
        with pytest.raises(UserError) as error:
            data.load(recipe, data_root=raw)
        message = one_line(error)
        assert "train.parquet" in message
        return message

    write_parquet(raw, {"train": 3})
    assert "6 images" in complaint()
    assert "has 8" in complaint()
    write_parquet(raw, {"train": 4}, names=("n01", "n02", "n04"))
    assert "unknown class 'n03'" in complaint()
    plain = pyarrow.parquet.read_table(raw / "train.parquet").replace_schema_metadata()
    pyarrow.parquet.write_table(plain.rename_columns(["picture", "label"]), raw / "train.parquet")
    assert "no column 'image'" in complaint()
    pyarrow.parquet.write_table(plain, raw / "train.parquet")
    assert "must be a ClassLabel" in complaint()
    (raw / "train.parquet").write_bytes(b"PAR1 but not really")
    assert "not a parquet file" in complaint()


def test_shared_tiny_imagenet(request):
    folder = Path(request.config.rootpath).parent / "shared" / "data" / "tiny-imagenet-40"
    if not folder.is_dir():
        pytest.skip("needs ../shared; test_parquet_keeps_the_recipes_classes_in_its_order is the same without it")
    dataset = data.load("tiny-imagenet-40", "validation", data_root=folder)
    lines = (folder / "classes.txt").read_text().splitlines()
    assert dataset.features["label"].names == [line.split("\t")[0] for line in lines]
    assert dataset[0]["image"].size == (64, 64)
    assert np.bincount(dataset["label"]).tolist() == [50] * 40
    recipe = data.load_recipe("tiny-imagenet-40")
    assert all(line.split("\t")[1].startswith(name) for line, name in zip(lines, recipe.classes.values(), strict=True))


# ---- fingerprints ----------------------------------------------------------------------------------------------------


def test_fingerprint_follows_identifiers_and_files_not_words(tmp_path):
    raw = tmp_path / "raw"
    write_parquet(raw, {"train": 4, "validation": 2})
    recipe = write_recipe(tmp_path, PHOTOGRAPHS)
    before = data.fingerprint(recipe, data_root=raw)
    assert set(before) <= set("0123456789abcdef")
    assert data.fingerprint(write_recipe(tmp_path, PHOTOGRAPHS | {"title": "Other"}), data_root=raw) == before
    shutil.copytree(raw, tmp_path / "copy")
    assert data.fingerprint(recipe, data_root=tmp_path / "copy") == before
    reordered = write_recipe(tmp_path, PHOTOGRAPHS | {"classes": {"n01": "goldfish", "n03": "cliff"}}, "other")
    assert data.fingerprint(reordered, data_root=raw) != before
    write_parquet(raw, {"train": 4, "validation": 2}, shade=1)
    assert data.fingerprint(recipe, data_root=raw) != before


def test_fingerprint_of_drawn_images_has_seed_and_counts(tmp_path):
    prints = {
        data.fingerprint(write_recipe(tmp_path, DRAWN | change))
        for change in (
            {},
            {"title": "other"},
            {"counts": {"train": 31}},
            {"source": DRAWN["source"] | {"seed": 4}},
        )
    }
    assert len(prints) == 3


# ---- subsets ---------------------------------------------------------------------------------------------------------


def labelled(labels: list[int], identifiers: list[str] | None = None) -> Dataset:
    columns = {"label": labels, "row": list(range(len(labels)))}
    return Dataset.from_dict(columns | ({"id": identifiers} if identifiers else {}))


def test_take_is_balanced_nested_and_repeatable():
    dataset = labelled([0] * 50 + [1] * 50 + [2] * 50)
    seven, thirty = data.take(dataset, 7), data.take(dataset, 30)
    assert sorted(np.bincount(seven["label"])) == [2, 2, 3]
    assert np.bincount(thirty["label"]).tolist() == [10, 10, 10]
    assert thirty["row"][:7] == seven["row"][:]
    assert data.take(dataset, 30)["row"][:] == thirty["row"][:]
    assert data.take(dataset, 30, seed=1)["row"][:] != thirty["row"][:]
    assert data.take(dataset, None) is dataset
    assert sorted(data.take(dataset, 150)["row"]) == list(range(150))


def test_take_goes_by_identifiers_not_by_rows():
    identifiers = [f"image_{i}" for i in range(60)]
    labels = [i % 3 for i in range(60)]
    shuffled = np.random.default_rng(0).permutation(60)
    first = data.take(labelled(labels, identifiers), 20)
    second = data.take(labelled([labels[i] for i in shuffled], [identifiers[i] for i in shuffled]), 20)
    assert first["id"][:] == second["id"][:]


def test_take_fills_up_when_a_class_runs_out():
    assert np.bincount(data.take(labelled([0] * 2 + [1] * 20), 10)["label"]).tolist() == [2, 8]


@pytest.mark.parametrize("n", [0, -1, 11])
def test_take_refuses_what_is_not_there(n):
    with pytest.raises(UserError, match=f"cannot take {n} images of 10"):
        data.take(labelled([0, 1] * 5), n)


# ---- the cache -------------------------------------------------------------------------------------------------------


def digest(dataset: Dataset) -> str:
    return hashlib.sha256(b"".join(np.asarray(row["image"]).tobytes() for row in dataset)).hexdigest()


def test_drawn_once_then_read(tmp_path, data_home, monkeypatch):
    recipe = write_recipe(tmp_path, DRAWN)
    first = data.load(recipe)
    assert len(first) == 30
    assert len(list((data_home / "prepared").glob("mine-*/train/*.arrow"))) == 1
    monkeypatch.setitem(sources.READERS, "generator", None)  # drawing again would fail
    assert digest(data.load(recipe)) == digest(first)


def test_another_root_may_have_it_already(tmp_path, data_home, monkeypatch):
    recipe = write_recipe(tmp_path, DRAWN)
    first = digest(data.load(recipe))
    nowhere = tmp_path / "file"
    nowhere.write_text("in the way")
    monkeypatch.setenv("STM_LAB_DATA", f"{nowhere}{os.pathsep}{data_home}")
    assert digest(data.load(recipe)) == first
    monkeypatch.setenv("STM_LAB_DATA", str(nowhere))
    with pytest.raises(UserError, match=r"cannot be written.*STM_LAB_DATA"):
        data.load(recipe)


def test_two_at_once_get_the_same_and_leave_nothing_behind(tmp_path, data_home):
    recipe, results, barrier = write_recipe(tmp_path, DRAWN), [], threading.Barrier(2)
    read = sources.READERS["generator"]

    def slowly(*args):
        dataset = read(*args)
        barrier.wait()  # both have drawn before either writes
        return dataset

    sources.READERS["generator"] = slowly
    try:
        threads = [threading.Thread(target=lambda: results.append(digest(data.load(recipe)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sources.READERS["generator"] = read
    assert len(results) == 2
    assert len(set(results)) == 1
    assert [path.name for path in (data_home / "prepared").glob("mine-*/*")] == ["train"]


def test_interrupted_drawing_leaves_nothing_that_looks_whole(tmp_path, data_home, monkeypatch):
    recipe = write_recipe(tmp_path, DRAWN)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "save_to_disk", stop)
        with pytest.raises(KeyboardInterrupt):
            data.load(recipe)
    assert list((data_home / "prepared").glob("mine-*/*")) == []
    assert len(data.load(recipe)) == 30


def test_damaged_cache_is_named(tmp_path, data_home):
    recipe = write_recipe(tmp_path, DRAWN)
    data.load(recipe)
    (state,) = (data_home / "prepared").glob("mine-*/train/state.json")
    state.write_text("{")
    with pytest.raises(UserError, match=r"train: damaged; delete"):
        data.load(recipe)


def test_progress_bars_stay_as_they_were(tmp_path, capfd):
    datasets.enable_progress_bars()
    data.load(write_recipe(tmp_path, DRAWN))
    assert not datasets.are_progress_bars_disabled()
    assert capfd.readouterr().err == ""


def test_generator_draws_its_own_classes_at_its_own_size(tmp_path):
    with pytest.raises(UserError, match="classes must be those of the generator: ring"):
        data.load(write_recipe(tmp_path, DRAWN | {"classes": ["ring", "star"]}))
    with pytest.raises(UserError, match="image_size 96, but the generator's is 64"):
        data.load(write_recipe(tmp_path, DRAWN | {"image_size": 96}))
