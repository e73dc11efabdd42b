"""Malformed input of every kind is refused in one short line that names field, place and the nearest right thing."""

import re
import time

import pytest
import yaml

from stm_lab import data, yaml12
from stm_lab.course.sweep import load_sweep, parse_shard
from stm_lab.errors import LONGEST_MESSAGE, UserError, nearest
from stm_lab.overrides import parse_overrides
from stm_lab.train import load_config

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
        ("a: 1\nb: " + "9" * 5000, "line 2, column 4: an integer of 5000 digits has more than 64 bits"),
        (f"a: {2**63}", "more than 64 bits; write it in quotes"),
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
        ({"classes": [["cat"], ["dog"]]}, "classes: ['cat'] is not a class's identifier"),
        ({"classes": [0, 1]}, "classes: 0 is not a class's identifier, which is text; write it in quotes: '0'"),
        ({"classes": {"cat": 1, "dog": 2}}, "classes.cat = 1: should be a valid string; write it in quotes: '1'"),
        ({"extend": "imagenet-1k"}, "unknown key 'extend'; did you mean 'extends'?"),
        ({"nam": "mine"}, "unknown key 'nam'; known: classes, counts, extends, fingerprint"),
        ({"name": "mine"}, "'name' is not a key"),
        ({"source": {"name": "shapes"}}, "source: 'kind' is missing; known: folder, generator, hub"),
        ({"source": [{"knd": "generator"}]}, "source: unknown key 'knd'; did you mean 'kind'?"),
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
        ({"extends": ["quick"]}, "extends = ['quick']: should be a preset's name or a file"),
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


@pytest.mark.parametrize("shard", ["9" * 5000 + "/" + "9" * 5000, "1/0", "²/³", "1", "1/2/3", ""])
def test_a_shard_is_two_small_numbers(shard):
    assert "expected i/n" in refusal(parse_shard, shard)
