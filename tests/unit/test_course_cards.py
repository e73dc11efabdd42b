"""Cards: what they refuse, what they make of values, and which course they are of."""

from pathlib import Path

import pytest
import timm
import yaml

from stm_lab import UserError, list_mixers
from stm_lab.course.cards import check_values, load_card, load_cards
from stm_lab.course.folder import run_key
from stm_lab.course.notebooks import header_markdown, parameters_source
from stm_lab.mixers import registry
from stm_lab.util import paths

PARAMETERS = {
    "epochs": {"type": "int", "default": 2, "range": [1, 10], "help": "passes"},
    "lr": {"type": "float", "default": 0.1, "help": "step"},
    "seeds": {"type": "list[int]", "default": [0], "help": "one training each"},
    "mixers": {"type": "list[str]", "default": ["halo"], "choices": "mixers", "help": "what to compare"},
    "kind": {"type": "str", "default": "shift", "choices": ["shift", "rotation"], "help": "of change"},
    "flip": {"type": "bool", "default": False, "help": "mirror"},
    "size": {"type": "int | None", "default": None, "help": "images"},
    "folder": {"type": "path | None", "default": None, "in_key": False, "help": "where"},
    "plugins": {"type": "list[path] | None", "default": None, "help": "mixers"},
}
PROFILES = {"demo": {"epochs": 5, "seeds": [0, 1]}}
ONE = {"minutes": 1, "memory_gb": 0.5}


def message(function, *arguments, **keywords):
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["12_other", 12, "12", "12_other.ipynb", Path("12_other.ipynb")])
def test_a_notebook_has_name_number_and_path(card, name):
    assert load_card(name).name == "12_other"


def test_a_path_that_does_not_exist_is_no_other_notebook_of_that_name(card, tmp_path):
    assert "elsewhere/12_other.ipynb: no course.yaml beside it" in message(load_card, "elsewhere/12_other.ipynb")
    assert "did you mean '12_other" in message(load_card, tmp_path / "12_othr.ipynb")


def test_unknown_notebook(card):
    assert "'12_othr'; did you mean '12_other'?" in message(load_card, "12_othr")
    assert "12_other" in message(load_card, 13)


# ---- which course ---------------------------------------------------------------------------------------------------


@pytest.fixture
def course_of(tmp_path, declared):
    """Make a folder with a course of one notebook; its path."""

    def make(folder, name):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "course.yaml").write_text(yaml.safe_dump({name: declared}, sort_keys=False))
        return tmp_path / folder

    return make


def test_the_course_is_the_variables_else_the_working_folders_else_the_shipped(course_of, tmp_path, monkeypatch):
    monkeypatch.delenv("STM_LAB_NOTEBOOKS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.notebooks_dir() == paths.shipped_notebooks_dir()
    here, there = course_of("here", "03_here"), course_of("there", "04_there")
    monkeypatch.chdir(here)
    assert (list(load_cards()), load_card(3).path) == (["03_here"], here / "03_here.ipynb")
    monkeypatch.setenv("STM_LAB_NOTEBOOKS", str(there))
    assert (list(load_cards()), load_card(4).path) == (["04_there"], there / "04_there.ipynb")


def test_a_path_is_of_the_course_beside_it(card, course_of, monkeypatch, tmp_path):
    folder = course_of("mine", "12_other")
    assert load_card(folder / "12_other.ipynb").path == folder / "12_other.ipynb"
    assert load_card("12_other").path == tmp_path / "12_other.ipynb"
    monkeypatch.chdir(folder)
    assert load_card("12_other.ipynb").path == folder / "12_other.ipynb"
    assert "did you mean '12_other'?" in message(load_card, "../mine/12_othr.ipynb")


def test_a_notebook_without_a_course_is_not_taken_for_one_of_the_same_name(card, tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "12_other.ipynb").touch()
    assert "no course.yaml beside it" in message(load_card, tmp_path / "alone" / "12_other.ipynb")


# ---- course.yaml ----------------------------------------------------------------------------------------------------


def test_malformed_yaml_is_told_with_line_and_column(write_course):
    write_course("01_small:\n  title: [open\n  question: x\n")
    text = message(load_cards)
    assert "course.yaml" in text
    assert "line 3, column" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"titel": "x"}, ["01_small", "titel", "title"]),
        ({"minutes": "ten"}, ["01_small", "minutes", "'ten'"]),
        ({"difficulty": 6}, ["difficulty", "6"]),
        ({"profiles": {"quick": {}}}, ["quick"]),
        ({"profiles": {"demo": {"epoch": 1}}}, ["profile demo", "'epoch'", "'epochs'"]),
        ({"profiles": {"demo": {"epochs": 11}}}, ["profile demo", "epochs = 11", "less than or equal to 10"]),
        ({"profiles": {"test": {"epochs": 11}}}, ["profile test", "epochs = 11", "less than or equal to 10"]),
        ({"parameters": {"epochs": {"type": "integer", "default": 1, "help": "x"}}}, ["'integer'"]),
        ({"parameters": {"epochs": {"type": "int", "default": "one", "help": "x"}}}, ["epochs = 'one'", "integer"]),
        ({"parameters": {"epochs": {"type": "int", "default": 1, "help": "a = b"}}}, ["help"]),
        ({"parameters": {"epochs": {"type": "int", "default": 1, "hepl": "x", "help": "x"}}}, ["hepl", "'help'"]),
        ({"parameters": PARAMETERS | {"plugins": {"type": "str", "default": "a", "help": "x"}}}, ["plugins", "path"]),
        ({"resources": {"demo": ONE}}, ["01_small", "resources", "'quick' is missing"]),
        ({"resources": {"quick": ONE}}, ["resources", "'demo' is missing"]),
        ({"resources": {"quick": ONE, "demo": ONE, "paper": ONE}}, ["resources", "'paper'"]),
        ({"resources": {"quick": ONE, "demo": ONE, "test": ONE}}, ["resources", "'test'"]),
        ({"resources": {"quick": ONE | {"minutes": 0}, "demo": ONE}}, ["resources.quick.minutes", "greater than 0"]),
        ({"resources": {"quick": ONE | {"minutes": "1"}, "demo": ONE}}, ["resources.quick.minutes", "'1'"]),
        ({"resources": {"quick": ONE | {"cpus": 0}, "demo": ONE}}, ["resources.quick.cpus"]),
        ({"resources": {"quick": ONE | {"gpus": -1}, "demo": ONE}}, ["resources.quick.gpus"]),
        ({"resources": {"quick": ONE | {"memory": 1}, "demo": ONE}}, ["memory", "'memory_gb'"]),
        ({"folder": "/tmp"}, ["01_small", "'folder'"]),
    ],
)
def test_a_card_refuses_what_does_not_fit(write_course, declared, change, expected):
    write_course({"01_small": declared | change})
    text = message(load_cards)
    assert all(part in text for part in expected), text


def test_missing_course_file(write_course):
    assert "course.yaml" in message(load_cards)


def test_every_profile_has_its_resources(card):
    assert card.resources_of("demo").minutes == 0.1
    assert (card.resources_of("quick").cpus, card.resources_of("quick").gpus) == (1, 0)
    assert "01_small" in message(card.resources_of, "paper")
    assert "did you mean 'demo'?" in message(card.resources_of, "dmo")


def test_the_profile_for_tests_costs_what_quick_costs_and_is_offered_to_nobody(write_course, declared):
    profiles = PROFILES | {"test": {"epochs": 1}}
    write_course({"01_small": declared | {"profiles": profiles}, "02_other": declared})
    card, other = load_cards().values()
    assert check_values(card, profile="test") == check_values(card) | {"epochs": 1}
    assert check_values(other, profile="test") == check_values(other)
    assert card.resources_of("test") == card.resources["quick"]
    assert parameters_source(card, profiles["test"]) == parameters_source(card).replace("int = 2", "int = 1")
    assert "test" not in header_markdown(card)
    assert "did you mean" not in message(check_values, card, profile="tst")


# ---- values ---------------------------------------------------------------------------------------------------------


def test_quick_is_the_defaults_and_profiles_and_values_come_over_them(card):
    assert check_values(card) == {name: parameter.default for name, parameter in card.parameters.items()}
    values = check_values(card, {"epochs": 7}, profile="demo")
    assert (values["epochs"], values["seeds"], values["lr"]) == (7, [0, 1], 0.1)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "3", 3),
        ("lr", "1e-3", 0.001),
        ("lr", 1, 1.0),
        ("seeds", "[0, 1]", [0, 1]),
        ("seeds", "(0, 1)", [0, 1]),
        ("seeds", (0, 1), [0, 1]),
        ("mixers", "[halo, swin]", ["halo", "swin"]),
        ("mixers", "['halo', \"swin\"]", ["halo", "swin"]),
        ("flip", "true", True),
        ("size", "None", None),
        ("size", "12", 12),
        ("folder", "/some/where", Path("/some/where")),
    ],
)
def test_text_is_read_by_the_type(card, name, text, value):
    read = check_values(card, {name: text})[name]
    assert read == value
    assert type(read) is type(value)


def test_relative_paths_are_of_the_working_folder(card, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert check_values(card, {"folder": "x"})["folder"] == tmp_path / "x"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"epoch": 3}, ["01_small", "'epoch'", "did you mean 'epochs'?"]),
        ({"epochs": "three"}, ["01_small: epochs = 'three'", "valid integer"]),
        ({"epochs": 2.5}, ["epochs = 2.5", "valid integer"]),
        ({"epochs": True}, ["epochs = True", "valid integer"]),
        ({"epochs": None}, ["epochs", "None"]),
        ({"epochs": 0}, ["epochs = 0", "greater than or equal to 1"]),
        ({"lr": float("nan")}, ["lr", "nan"]),
        ({"lr": "fast"}, ["lr = 'fast'", "valid number"]),
        ({"kind": "rotatoin"}, ["kind", "did you mean 'rotation'?"]),
        ({"kind": 3}, ["kind = 3", "valid string"]),
        ({"mixers": ["halo", "swim"]}, ["mixers", "'swim'", "did you mean 'swin'?"]),
        ({"mixers": "halo"}, ["mixers", "list[str]", '["halo"]']),
        ({"seeds": []}, ["seeds = []", "at least 1 item"]),
        ({"seeds": [1, 1]}, ["seeds", "1 stands twice"]),
        ({"seeds": [0, "x"]}, ["seeds.1 = 'x'", "valid integer"]),
        ({"seeds": "[0, 1"}, ["seeds"]),
        ({"flip": 1}, ["flip = 1", "valid boolean"]),
        ({"folder": 3}, ["folder = 3", "Path"]),
        ({"plugins": "mine.py"}, ["plugins", "list[path]", 'such as ["mine.py"]']),
        ({"plugins": ["/no/where.py"]}, ["/no/where.py", "no such file"]),
    ],
)
def test_wrong_values_are_refused_in_one_line(card, values, expected):
    text = message(check_values, card, values)
    assert all(part in text for part in expected), text


def test_unknown_profile(card):
    assert "did you mean 'demo'?" in message(check_values, card, profile="dmo")


def test_a_registered_mixer_is_a_choice_at_once(card, monkeypatch):
    monkeypatch.setitem(registry._mixers, "my_own", registry.get_mixer("identity"))
    assert check_values(card, {"mixers": ["my_own"]})["mixers"] == ["my_own"]
    assert "'my_own'" in message(check_values, card, {"mixers": ["my_onw"]})


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A file that registers a mixer `mine`; forgotten after the test."""
    monkeypatch.setattr(registry, "_mixers", dict(registry._mixers))
    path = tmp_path / "mine.py"
    path.write_text("import stm_lab\nstm_lab.register_mixer('mine')(type('Mine', (stm_lab.mixers.Identity,), {}))\n")
    return path


@pytest.mark.parametrize("given", ["[{}]", "['{}']", ["{}"]])
def test_a_plugins_mixer_is_a_choice(card, plugin, given):
    given = [given[0].format(plugin)] if isinstance(given, list) else given.format(plugin)
    assert "'mine'" in message(check_values, card, {"mixers": ["mine"]})
    values = check_values(card, {"mixers": ["mine"], "plugins": given})
    assert (values["mixers"], values["plugins"]) == (["mine"], [plugin])


def test_a_plugin_that_fails_is_told_with_its_line(card, plugin):
    plugin.write_text("import stm_lab\n1 / 0\n")
    text = message(check_values, card, {"plugins": [plugin]})
    assert "line 2: ZeroDivisionError" in text


def test_an_edited_plugin_is_another_run(card, plugin):
    card.path.write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}')

    def key():
        return run_key(card, check_values(card, {"plugins": [plugin]}), None)

    before = key()
    assert before != run_key(card, check_values(card), None)
    assert key() == before
    plugin.write_text(plugin.read_text() + "# edited\n")
    assert key() != before


def test_recipes_by_name_and_by_path(write_course, declared, tmp_path, monkeypatch):
    parameters = {"recipe": {"type": "str", "default": "shapes", "choices": "recipes", "help": "the data"}}
    only = {"profiles": {}, "parameters": parameters, "resources": {"quick": ONE}}
    write_course({"01_small": declared | only})
    card = load_card(1)
    assert check_values(card)["recipe"] == "shapes"
    assert "did you mean 'shapes'?" in message(check_values, card, {"recipe": "shaps"})
    assert "no such file" in message(check_values, card, {"recipe": "mine.yaml"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    assert check_values(card, {"recipe": "mine.yaml"})["recipe"] == str(tmp_path / "mine.yaml")


def test_every_type_there_is(write_course, declared):
    items = {"int": 1, "float": 1.5, "str": "a", "bool": True, "path": Path("/a")}
    forms = {"one": "{}", "many": "list[{}]", "maybe": "{} | None", "any": "list[{}] | None"}
    given, expected, parameters = {}, {}, {}
    for kind, item in items.items():
        for form, text in forms.items():
            name, value = f"{kind}_{form}", [item] if "list" in text else item
            plain = [str(item)] if kind == "path" and "list" in text else str(item) if kind == "path" else value
            parameters[name] = {"type": text.format(kind), "default": None if "None" in text else plain, "help": "x"}
            given[name], expected[name] = plain, value
    write_course({"01_small": declared | {"parameters": parameters, "profiles": {}, "resources": {"quick": ONE}}})
    assert check_values(load_card(1), given) == expected
    assert check_values(load_card(1)) == {k: None if k.endswith(("_maybe", "_any")) else v for k, v in expected.items()}


def test_a_card_takes_what_it_does_not_say_from_the_common_parameters(write_course, declared):
    parameters = {"epochs": {"default": 3}, "lr": {}, "out": {"type": "path | None", "default": None, "help": "mine"}}
    common = PARAMETERS | {"out": {"type": "str", "default": "a", "in_key": False, "help": "x"}}
    only = {"parameters": parameters, "profiles": {}, "resources": {"quick": ONE}}
    write_course({"common": common, "01_small": declared | only})
    card = load_card(1)
    assert check_values(card) == {"epochs": 3, "lr": 0.1, "out": None}
    assert (card.parameters["epochs"].range, card.parameters["out"].help) == ((1, 10), "mine")
    assert not card.parameters["out"].in_key
    write_course({"common": common, "01_small": declared | only | {"parameters": {"momentum": {}}}})
    assert "momentum.default" in message(load_cards)


# ---- the shipped course ---------------------------------------------------------------------------------------------

SHIPPED = load_cards(paths.shipped_notebooks_dir())
NAMED_IN_THE_NOTEBOOK = {
    "04_shifted_window_attention": ["swin"],
    "05_halo_attention": ["halo"],
    "06_deformable_convolution": ["dcn_v3"],
}  # which model a notebook without the parameter `mixers` loads


def test_every_profile_asks_for_weights_that_exist():
    """A profile that asks for the pretrained weights of a model that has none ends in its first minutes."""
    for name, card in SHIPPED.items():
        for profile in ("quick", *card.profiles):
            values = check_values(card, profile=profile)
            if values.get("weights") != "pretrained":
                continue
            models = list(values["mixers"] if "mixers" in values else NAMED_IN_THE_NOTEBOOK[name])
            if "baseline" in values and card.parameters["baseline"].choices == "models":  # loaded with the others
                models.append(values["baseline"])
            at_scale = [f"unified_{model}_{values['scale']}" if model in list_mixers() else model for model in models]
            assert [model for model in at_scale if not timm.is_model_pretrained(model)] == [], (name, profile)
