"""`-p key=value` and the YAML behind it."""

import pytest

from stm_lab.util import yaml12
from stm_lab.util.errors import UserError
from stm_lab.util.overrides import merge, parse_overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("3", 3), ("-2.5", -2.5), ("010", 10), ("true", True), ("null", None), ("", None),
        ("no", "no"), ("on", "on"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("rand-m9", "rand-m9"),
        ("[0, 1]", [0, 1]), ("{flip: true}", {"flip": True}), ("'1'", "1"), (".inf", float("inf")),
    ],
)  # fmt: skip
def test_values_are_yaml_1_2(text, value):
    parsed = parse_overrides([f"key={text}"])["key"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_dotted_keys_nest_and_equals_signs_belong_to_values():
    assignments = ["a.b=1", "a.c=x=y", "d=2"]
    assert parse_overrides(assignments) == {"a": {"b": 1, "c": "x=y"}, "d": 2}


@pytest.mark.parametrize("bad", ["lr", "=3", "a..b=1", ".a=1", "a=[1", "a={b: 1, b: 2}", "a=!!python/name:os.system"])
def test_malformed_assignments_are_named(bad):
    with pytest.raises(UserError) as error:
        parse_overrides([bad])
    assert bad in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pair", [["a=1", "a=2"], ["a=1", "a.b=2"], ["a.b=2", "a=1"]])
def test_a_key_has_one_value(pair):
    with pytest.raises(UserError, match=r"twice|already"):
        parse_overrides(pair)


def test_merge_nests_and_leaves_its_arguments_alone():
    base, changes = {"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "b": {"z": 1}}
    assert merge(base, changes) == {"a": {"x": 1, "y": 3}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": 2}, "b": 1}
    assert changes == {"a": {"y": 3}, "b": {"z": 1}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: 1\nb: [\n", "line"),
        (b"- 1\n", "list"),
        (b"a: 1\na: 2\n", "line 2.*key 'a' stands twice"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"1: 2", "the key 1 is not text; write it in quotes"),
    ],
)
def test_files_that_are_no_mappings_are_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "some.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        yaml12.read_mapping(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        yaml12.read_mapping(tmp_path / "none.yaml")
