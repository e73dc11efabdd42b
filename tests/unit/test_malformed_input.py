"""Malformed input of every kind is refused in one short line that names field, place and the nearest right thing."""

import contextlib
import io
import json
import re
import shutil
import sys
import time
from types import SimpleNamespace

import pytest
import small_course
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from kinds import once

from stm_lab import cli, data
from stm_lab.cli.console import print_table
from stm_lab.course.sweep import load_sweep, parse_shard
from stm_lab.train import load_config
from stm_lab.util import yaml12
from stm_lab.util.errors import LONGEST_MESSAGE, UserError, nearest
from stm_lab.util.overrides import parse_overrides

RECIPE = {
    "title": "Few shapes",
    "question": "none",
    "licence": "none",
    "image_size": 64,
    "classes": ["ring", "arch"],
    "counts": {"train": 30, "validation": 20},
    "source": {"kind": "generator", "name": "shapes", "seed": 3},
}


def refusal(function, *arguments, **keywords):
    """The message of a refusal: one printable line of readable length, at once."""
    started = time.perf_counter()
    with pytest.raises(UserError) as error:
        function(*arguments, **keywords)
    assert time.perf_counter() - started < 10
    message = str(error.value)
    assert message.isprintable()
    assert len(message) <= LONGEST_MESSAGE
    return message


# ---- what is read of YAML -------------------------------------------------------------------------------------------

LAUGHS = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('a: 1\nb: "x\\0"', "line 2, column 4: text with the character U+0000"),
        ("a: 1\nb: x\0", "line 2, column 5: the character U+0000"),
        ('a: "\\ud800"', "U+D800"),
        ('a: "\\U00110000"', "too large"),
        ("a: \ud800", "U+D800"),
        ("a: !!timestamp 2024-13-45", "'!!timestamp' is not read here; leave it out"),
        ("a: !!python/name:os.system", "'!!python/name:os.system' is not read here"),
        ("a: !!int three", "'three' is no int"),
        ("a: 1\nb: " + "9" * 5000, "line 2, column 4: an integer of 5000 digits is beyond 64 bits"),
        (f"a: {2**63}", "beyond 64 bits; write it in quotes"),
        ("a: 1e999", "'1e999' is larger than any number"),
        ("[" * 3000, "more than 40 deep"),
        ("a: " + "{a: " * 3000, "more than 40 deep"),
        ("- " * 3000, "more than 40 deep"),
        ("a: &a [*a]", "more than 40 deep"),
        (LAUGHS, "200,000 values, with every alias written out"),
        ("x: &x {a: 1}\ny: {<<: *x}", "line 2, column 5: merge keys (<<) are not read"),
        ("a: {b: 1, b: 2}", "key 'b' stands twice"),
        ("a: {b: 1, 'b': 2}", "key 'b' stands twice"),
        ("a:\n\tb: 1", "line 2, column 1: a tab; YAML is indented by spaces"),
        ("a:\n- {0: cat}", "line 2, column 4: the key 0 is not text; write it in quotes: '0'"),
        ("null: 1", "the key None is not text; write it in quotes: 'null'"),
        ("{[1]: a}", "the key [1] is not text"),
        ("a: 1\n---\na: 2", "line 2, column 1: another document begins here; a file holds one"),
        ("a: b: c", "write text that holds one in quotes"),
        ("a: [1", "a [ or { is not closed"),
        ("a: 'x", "a quote is not closed"),
        ("k" * 2000 + ": 1", "quotes"),
    ],
    ids=lambda text: text[:20] if len(text) < 100 else None,
)
def test_yaml_that_is_not_read_says_what_is_wrong_and_where(text, says):
    assert says in refusal(yaml12.parse, text, "here")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),  # an alias is a value like any other
        ("'<<': 1", {"<<": 1}),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        ("-.inf", float("-inf")),
        ("!!str 3", "3"),
        ("'\\0'", "\\0"),
        ("12:30:45", "12:30:45"),  # 45,045 in YAML 1.1
        ("[" * 40 + "]" * 40, None),
    ],
)
def test_what_is_unusual_but_yaml_is_read(text, value):
    found = yaml12.parse(text, "here")
    assert found == value if value is not None else yaml.safe_load(text) == found


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "it is empty; expected `key: value` lines"),
        ("# nothing\n", "it is empty"),
        ("- 1\n- 2", "found a list"),
        ("word " * 1000, "expected `key: value` lines, found 'word"),
        ("a: " + "x" * 2**22, "larger than 4 MiB"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, says):
    (tmp_path / "some.yaml").write_text(content)
    message = refusal(yaml12.read_mapping, tmp_path / "some.yaml")
    assert "some.yaml: " in message
    assert says in message


# ---- what a message holds -------------------------------------------------------------------------------------------


def test_a_message_is_one_printable_line_whatever_is_put_into_it():
    assert str(UserError("a\nb \x1b[31m\u202e \ud800")) == r"a b \x1b[31m\u202e \ud800"
    long = str(UserError("the beginning " + "x" * 10**6 + " the end"))
    assert len(long) == LONGEST_MESSAGE
    assert long.startswith("the beginning x")
    assert long.endswith("x the end")


def test_of_many_names_as_many_are_offered_as_one_reads():
    said = nearest("?", [f"model_{i}" for i in range(1000)])
    assert re.fullmatch(r"known: model_0, model_1, .* and (\d+) more", said)
    assert len(said) < 250
    assert 1000 - int(said.split()[-2]) == said.count("model_")


def test_a_table_shows_strange_characters_and_obeys_none(capsys):
    print_table("title", ["column"], [["a\x1b[31m\ud800"], ["two\nlines"]])
    said = capsys.readouterr().out
    assert r"a\x1b[31m\ud800" in said
    assert "two " in said
    assert "\x1b" not in said


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 5000, "a\0b", "\ud800", "~nobody_here/x"])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    refusal(data.load_recipe, f"{name}.yaml")
    refusal(load_config, f"{name}.yaml")
    refusal(load_sweep, f"{name}.yaml")
    refusal(data.load_recipe, write(tmp_path, {"extends": f"{name}.yaml"}) if name.isprintable() else f"{name}.yaml")


# ---- recipes, configurations, sweeps --------------------------------------------------------------------------------


def write(folder, values):
    path = folder / "mine.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classes": [["cat"], ["dog"]]}, "classes: ['cat'] is not text"),
        ({"classes": [0, 1]}, "classes: 0 is not text; write a class's identifier in quotes"),
        ({"classes": {"cat": 1, "dog": 2}}, "classes.cat = 1: should be a valid string; write it in quotes: '1'"),
        ({"extend": "imagenet-1k"}, "unknown key 'extend'; did you mean 'extends'?"),
        ({"IMAGE_SIZE": 3}, "unknown key 'IMAGE_SIZE'; did you mean 'image_size'?"),
        ({"subset": {"zzz": 3}}, "unknown key 'subset.zzz'; known: classes, fraction, per_class, seed"),
        ({"subset": [1]}, "subset = [1]: should be a mapping"),
        ({"subset": {"classes": []}}, "subset.classes = []: tuple should have at least 2 items, not 0"),
        ({"nam": "mine"}, "unknown key 'nam'; known: classes, counts, extends, fingerprint"),
        ({"name": "mine"}, "'name' is not a key"),
        ({"source": {"name": "shapes"}}, "source: unknown kind None; known: folder, generator, hub"),
        ({"source": {"kind": "generator", "name": "shapes", "sed": 1}}, "'source.sed'; did you mean 'seed'?"),
        ({"source": {"kind": "generator", "name": "shapes", "seed": -1}}, "source.seed = -1: should be greater than"),
        ({"image_size": True}, "image_size = True: should be a valid integer"),
        ({"image_size": 64.0}, "image_size = 64.0: should be a valid integer"),
        ({"title": "x" * 10000, "licence": None}, "licence = None: should be a valid string"),
        ({"title": ["x" * 10000]}, "title = ['xxx"),
    ],
)
def test_a_recipe_names_the_field_and_the_nearest_right_thing(tmp_path, change, says):
    message = refusal(data.load_recipe, write(tmp_path, RECIPE | change))
    assert says in message
    assert "mine.yaml: " in message


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"extend": "quick"}, "unknown key 'extend'; did you mean 'extends'?"),
        ({"extends": ["quick"]}, 'extends: unknown training preset "[\'quick\']"; did you mean \'quick\'?'),
        ({"augmentation": {"flip": 1}}, "augmentation.flip = 1: should be a valid boolean"),
        ({"mixer": 3}, "mixer = 3: should be a valid string; write it in quotes: '3'"),
        ({"plugins": ["x" * 5000, 3]}, "plugins.1 = 3: should be a valid string"),
        ({"x" * 5000: 1}, "unknown key 'xxx"),
    ],
)
def test_a_configuration_names_the_field_and_the_nearest_right_thing(tmp_path, values, says):
    message = refusal(load_config, write(tmp_path, values))
    assert says in message
    assert "mine.yaml: " in message


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"notebook": [0]}, "notebook = [0]: should be a valid string or a valid integer"),
        ({"notebook": 0, "lists": [{}]}, "unknown key 'lists'; did you mean 'list'?"),
        ({"notebook": 0, "grid": {"mixers": "halo"}}, "grid.mixers = 'halo': should be a valid list"),
        ({"notebook": 0, "seeds": [0, "1"]}, "seeds.1 = '1': should be a valid integer"),
        ({"notebook": 0, "seeds": [True]}, "seeds.0 = True: should be a valid integer"),
    ],
)
def test_a_sweep_names_the_field_and_the_nearest_right_thing(tmp_path, values, says):
    assert says in refusal(load_sweep, write(tmp_path, values))


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("seed=" + "9" * 5000, "an integer of 5000 digits"),
        (".".join("a" * 3000) + "=1", "more than 40 keys in one another"),
        ("a=" + "[" * 3000, "more than 40 deep"),
        ("a={1: 2}", "the key 1 is not text; write it in quotes: '1'"),
        ("a\nb", "expected key=value"),
    ],
)
def test_an_override_is_cut_where_it_is_told(assignment, says):
    message = refusal(parse_overrides, [assignment])
    assert says in message
    assert len(message) < 250


@pytest.mark.parametrize("split", RECIPE["counts"])
@pytest.mark.parametrize("command", [("train", "quick"), ("run", "0")], ids=" ".join)
def test_more_images_than_there_are_is_refused_by_name_before_anything_begins(
    tmp_path, monkeypatch, capsys, command, split
):
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "runs"))
    sizes = {"train_size": 20, "validation_size": 20, f"{split}_size": 100000000}
    given = {"recipe": write(tmp_path, RECIPE), **sizes}
    assert cli.main([*command, *(word for name, value in given.items() for word in ("-p", f"{name}={value}"))]) == 2
    count = RECIPE["counts"][split]
    assert f"{split}_size = 100000000: mine has {count} {split} images" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("shard", ["9" * 5000 + "/" + "9" * 5000, "1/0", "²/³", "1", "1/2/3", ""])
def test_a_shard_is_two_small_numbers(shard):
    assert "expected i/n" in refusal(parse_shard, shard)


# ---- whatever the document ------------------------------------------------------------------------------------------

DOCUMENTS = {
    "recipe": [
        RECIPE,
        {"extends": "tiny-imagenet", "subset": {"classes": ["n01629819", "n02233338"], "per_class": 3, "seed": 1}},
        RECIPE
        | {
            "classes": {"n1": "cat", "n2": "dog"},
            "terms": "none",
            "homepage": "none",
            "size": "1 GB",
            "fingerprint": "8cf488b575085f4f",
            "max_broken": 1,
            "source": [
                {"kind": "folder", "layout": "imagefolder"},
                {"kind": "parquet"},
                {"kind": "webdataset", "shards": {"train": "t-{00..02}.tar", "validation": "v.tar"}, "labels": ["n1"]},
                {
                    "kind": "hub",
                    "name": "a/b",
                    "revision": "01234567" * 5,
                    "files": {"train": "t*.parquet", "validation": "v*.parquet"},
                    "gated": True,
                },
            ],
        },
    ],
    "card": [
        {
            "common": {"flip": {"type": "bool", "default": False}},
            "01_small": small_course.CARD,
            "12_other": {
                "title": "Other",
                "question": "?",
                "goals": ["see"],
                "minutes": 10,
                "difficulty": 2,
                "parameters": {
                    "epochs": {"type": "int", "default": 2, "range": [1, None], "help": "passes"},
                    "lr": {"type": "float | None", "default": 0.1, "range": [None, 1.5], "help": "step"},
                    "mixers": {"type": "list[str]", "default": ["halo"], "choices": "mixers", "help": "which"},
                    "kind": {"type": "str", "default": "a", "choices": ["a", "b"], "in_key": False, "help": "which"},
                    "recipe": {"type": "str", "default": "shapes", "choices": "recipes", "help": "which"},
                    "train_size": {"type": "int | None", "default": 20, "help": "how many"},
                    "models": {"type": "list[str] | None", "default": None, "choices": "models", "help": "which"},
                    "weights": {"type": "str | None", "default": "none", "choices": "weights", "help": "which"},
                    "plugins": {"type": "list[path] | None", "default": None, "help": "mixers"},
                    "flip": {"help": "mirrored"},
                },
                "profiles": {"demo": {"epochs": 5}},
                "resources": {
                    "quick": {"minutes": 1, "memory_gb": 0.5},
                    "demo": {"minutes": 1.5, "memory_gb": 2, "cpus": 2, "gpus": 0.5},
                },
                "outputs": ["rows"],
                "exercises": [{"title": "One", "difficulty": 1, "importance": 5, "minutes": 10}],
            },
        }
    ],
    "sweep": [
        {
            "title": "Small",
            "notebook": "01_small",
            "profile": "quick",
            "parameters": {"act": "score"},
            "grid": {"mixer": ["halo", "swin"]},
            "seeds": [0, 1],
            "resources": {"minutes": 1, "memory_gb": 0.5, "cpus": 1, "gpus": 0},
            "max_runs": 10,
            "gather": {"by": "mixer", "metric": "score", "baseline": "halo"},
        },
        {"notebook": 1, "list": [{"mixer": "halo", "seed": 3}, {"mixer": "swin", "seed": 4}]},
    ],
    "configuration": [
        {
            "extends": "quick",
            "mixer": "swin",
            "scale": "nano",
            "model_options": {"window": 4, "depths": [1, 1, 1, 1]},
            "augmentation": {"flip": True, "crop": "pad", "auto_augment": "rand-m9", "erasing": 0.1},
            "train_size": 100,
            "image_size": 64,
            "epochs": 3,
            "lr": 1e-3,
            "drop_path_rate": 0.1,
            "ema_decay": None,
            "precision": "no",
            "plugins": [],
            "weights": "none",
            "seed": 1,
            "device": "cpu",
            "out": "here",
        },
        {"recipe": "shapes", "batch_size": 64, "mixup": 0.8, "warmup_epochs": 1, "num_processes": 1, "workers": 0},
    ],
    "overrides": [
        {"mixer": "halo", "seed": 1, "model_options.block": 8, "lr": 1e-3},
        {"epochs": 3, "lr": 0.1, "mixers": ["halo", "swin"], "kind": "b", "flip": True},
        {"recipe": "shapes", "train_size": 10, "models": ["swin", "resnet18"], "weights": "none"},
    ],
    "rows": [
        [
            {
                "notebook": "00_quickstart",
                "parameters": {"epochs": 2, "mixers": ["halo", "swin"], "recipe": "shapes", "out": None},
                "data": "d",
                "code": "c",
                "revision": "r",
                "device": "cpu",
                "seed": seed,
                "seconds": 1.5,
                "metrics": {"mixer": mixer, "top1": 50.0 + seed, "loss": 1, "step": 10},
            }
            for mixer in ("halo", "swin")
            for seed in (0, 1)
        ]
    ],
}


class Raw(str):
    """Text that stands in a document as it is."""


# fmt: off
TEXTS = [  # what stands in a document as it is; most of it is not YAML there
    "", "~", "true", "no", ".inf", "-.inf", ".nan", "1e999", "1e308", "1e-400", "010", "0x1F", "12:30:45", "2024-13-45",
    "!!timestamp 2024-13-45", "!!int x", "!!set {a}", "!x y", "&a [*a]", "*b", "- 1", "a: b", "\t", "%", "@", "`", "|",
    ">", "'", '"', "]", "}", ",", "#", "---", "...", "? a", "<<", '"\\ud800"', '"\\U00110000"', '"\\0"', "\0", "\ud800",
    "\ufeff", "\u2028", "\r", "\n", "\na: 1\n---\n", "9" * 5000, "-" + "9" * 400, f"{2**63}", "1" * 30 + ".5",
    "[" * 300, "{a: " * 300, "[" * 30 + "]" * 30, "{<<: {a: 1}}", "{a: 1, a: 2}", "{1: 2}", "{[1]: 2}", "{null: 1}",
    "NaN", "-Infinity",
]
VALUES = [
    None, True, False, 0, 1, -1, 2, 3, 10**6, 10**12, 2**63 - 1, -(2**63), 0.0, -0.0, 0.5, 1.0, 1.5, 1e300, 5e-324,
    "", " ", "x", "None", "null", "nan", "1", "\u00b2", "\u0663", "9" * 5000, "x" * 5000, "x/" * 3000, "../..", "~",
    "~nobody_/x", "a\nb", "a\tb", "\x1b[31mred", "\u202eabc", "\u540d\u524d", "\U0001f98a", "{}", "%s", "[bold]x[/]",
    "shapes", "quick", "halo", "x.yaml", "00_quickstart", "01_small.ipynb", "rand-m9-" * 3000, "{000..999999999}",
    "x-{9..1}.tar", "a=b", "-p", "mine.yaml", ".", "int", "list[float]", "path | None", "paper",
    [], {}, [[]], [{}], [None], [0, 1], [True], ["x"], ["x", "x"], [1.5], [["a"]], {"a": {}}, {"": 1}, {"x": None},
    {"kind": "hub"}, {"a" * 5000: 1}, {"a\nb": [1]}, [1] * 300, list(range(300)), {str(i): i for i in range(300)},
]
# fmt: on


def written(value):
    """A document as text; mappings are lists of pairs in a tuple, so that a key can stand twice."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, tuple):
        return f"{{{', '.join(f'{written(key)}: {written(item)}' for key, item in value)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return json.dumps(value, ensure_ascii=False)


def as_pairs(value):
    if isinstance(value, dict):
        return tuple((key, as_pairs(item)) for key, item in value.items())
    return [as_pairs(item) for item in value] if isinstance(value, list) else value


def places(value, place=()):
    """Where something stands in a document: the positions that lead there."""
    items = [item for _, item in value] if isinstance(value, tuple) else value if isinstance(value, list) else []
    return [place] * bool(place) + [one for i, item in enumerate(items) for one in places(item, (*place, i))]


def misspelt(draw, name):
    at = draw(st.integers(0, max(len(name) - 1, 0)))
    return draw(st.sampled_from([name[:at] + name[at + 1 :], name[:at] + "e" + name[at:], name.upper(), name + "s"]))


def changed(draw, value, place):
    """The document with one change at a place: another value or key, a key misspelt, removed, or written twice."""
    first, *rest = place
    if rest:
        item = value[first]
        inner = (item[0], changed(draw, item[1], rest)) if isinstance(value, tuple) else changed(draw, item, rest)
        return type(value)([*value[:first], inner, *value[first + 1 :]])
    new = as_pairs(draw(st.sampled_from([*map(Raw, TEXTS), *3 * VALUES])))
    how = draw(st.sampled_from(["value", "value", "value", "key", "misspelt", "removed", "twice", "wrapped"]))
    item = value[first]
    if isinstance(value, tuple):
        key, old = item
        name = key if isinstance(key, str) else "x"
        another = {
            "value": (key, new),
            "key": (new, old),
            "misspelt": (misspelt(draw, name), old),
            "wrapped": (key, [old]),
        }
    else:
        another = {"wrapped": [item]}
    put = {"removed": [], "twice": [item, item]}.get(how, [another.get(how, new)])
    return type(value)([*value[:first], *put, *value[first + 1 :]])


@st.composite
def documents(draw, kind):
    """A document of a grammar's neighbourhood: one that is right, with one change or several."""
    value = as_pairs(draw(st.sampled_from(DOCUMENTS[kind])))
    for _ in range(draw(st.integers(1, 2))):
        if found := places(value):
            value = changed(draw, value, draw(st.sampled_from(found)))
    return value


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a course of its own, in which nothing is trained and no notebook is run."""
    folder = small_course.write(tmp_path_factory.mktemp("grammar"))
    shutil.copy(folder / "01_small.ipynb", folder / "12_other.ipynb")

    class Ready:
        """Stands for a training: that one would begin is all that is asked."""

        def __init__(self, config, force=False):
            self.config = config

        def run(self, on_row=None):
            return SimpleNamespace(metrics={"top1": 0.0, "weights": "raw", "seconds": 0.0}, run_dir="nowhere")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("STM_LAB_NOTEBOOKS", str(folder))
        patch.setenv("STM_LAB_RUNS", str(folder / "runs"))
        patch.setenv("STM_LAB_DATA", str(folder / "data"))
        patch.setattr("stm_lab.train.runs.Trainer", Ready)
        patch.setattr("stm_lab.train.runs.launch", lambda *_, **__: None)
        patch.setattr("stm_lab.train.runs.finished", lambda folder: Ready(None).run())
        patch.setattr(sys.modules["stm_lab.course.run"], "perform", lambda *_, **__: True)
        yield folder


def done_or_told(*arguments):
    """Run a command: it does what is asked, or refuses in one printable line of readable length."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(list(arguments))
        out.flush()
        err.flush()
    said = err.buffer.getvalue().decode()
    assert status in (0, 2), said
    assert all(line.isprintable() and len(line) <= LONGEST_MESSAGE + 10 for line in said.splitlines())
    if status == 2:
        assert out.buffer.getvalue() == b""
        assert re.fullmatch(r"error: .+\n", said)
    return status


def commands_of(kind, value, place):
    """Write a document where it belongs, and yield the commands that read it."""
    if kind == "overrides":
        given = [word for key, item in value for word in ("-p", f"{key}={written(item)}".replace("\0", ""))]
        yield "train", "quick", *given
        yield "run", "12_other", *given
        return
    name = {"card": "course.yaml", "rows": "rows.jsonl"}.get(kind, "mine.yaml")
    text = "\n".join(map(written, value)) if kind == "rows" and isinstance(value, list) else written(value)
    (place / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    file = str(place / name)
    yield from {
        "recipe": [("data", "show", file, "--classes")],
        "card": [("course", "list"), ("course", "show", "12")],
        "sweep": [("sweep", file, "--dry-run")],
        "configuration": [("train", file)],
        "rows": [("leaderboard", file, "--baseline", "halo")],
    }[kind]


@pytest.fixture
def clean(place):
    """The folder with its cards as they should be."""
    (place / "course.yaml").write_text(json.dumps(DOCUMENTS["card"][0]))
    return place


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, i) for kind, values in DOCUMENTS.items() for i in range(len(values))]
)
def test_the_documents_that_are_changed_are_right(clean, kind, number):
    commands = commands_of(kind, as_pairs(DOCUMENTS[kind][number]), clean)
    assert 0 in [done_or_told(*command) for command in commands]


EXAMPLES = {"recipe": 60, "card": 24, "sweep": 40, "configuration": 36, "overrides": 18, "rows": 30}  # by their cost


@pytest.mark.parametrize("kind", [once(kind) if kind == "sweep" else kind for kind in DOCUMENTS])
def test_any_document_near_a_right_one_is_read_or_refused_in_one_line(clean, kind):
    @settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=EXAMPLES[kind],
        phases=[Phase.generate, Phase.shrink],
    )
    @given(documents(kind))
    def holds(value):
        for command in commands_of(kind, value, clean):
            done_or_told(*command)

    holds()
