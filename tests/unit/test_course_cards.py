"""Cards: what they refuse, what they make of values, and how they hold their notebooks."""

from pathlib import Path

import nbformat
import pytest

from stm_lab import UserError
from stm_lab.course.cards import (
    Parameter,
    check_notebook,
    check_values,
    header_markdown,
    load_card,
    load_cards,
    parameters_source,
    setup_call,
)
from stm_lab.mixers import registry

PARAMETERS = {
    "epochs": {"type": "int", "default": 2, "range": [1, 10], "help": "passes"},
    "lr": {"type": "float", "default": 0.1, "help": "step"},
    "seeds": {"type": "list[int]", "default": [0], "help": "one training each"},
    "mixers": {"type": "list[str]", "default": ["halo"], "choices": "mixers", "help": "what to compare"},
    "kind": {"type": "str", "default": "shift", "choices": ["shift", "rotation"], "help": "of change"},
    "flip": {"type": "bool", "default": False, "help": "mirror"},
    "size": {"type": "int | None", "default": None, "help": "images"},
    "folder": {"type": "path | None", "default": None, "in_key": False, "help": "where"},
}
PROFILES = {"demo": {"epochs": 5, "seeds": [0, 1]}}


def message(function, *arguments, **keywords):
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["12_other", 12, "12", "notebooks/12_other.ipynb", Path("elsewhere/12_other.ipynb")])
def test_a_notebook_has_name_number_and_path(card, name):
    assert load_card(name).name == "12_other"


def test_unknown_notebook(card):
    assert "'12_othr'; did you mean '12_other'?" in message(load_card, "12_othr")
    assert "12_other" in message(load_card, 13)


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
        ({"profiles": {"demo": {"epochs": 11}}}, ["profile demo", "epochs", "at most 10"]),
        ({"parameters": {"epochs": {"type": "integer", "default": 1, "help": "x"}}}, ["'integer'"]),
        ({"parameters": {"epochs": {"type": "int", "default": "one", "help": "x"}}}, ["default", "int", "'one'"]),
        ({"parameters": {"epochs": {"type": "int", "default": 1, "help": "a = b"}}}, ["help"]),
        ({"parameters": {"epochs": {"type": "int", "default": 1, "hepl": "x", "help": "x"}}}, ["hepl", "'help'"]),
    ],
)
def test_a_card_refuses_what_does_not_fit(write_course, declared, change, expected):
    write_course({"01_small": declared | change})
    text = message(load_cards)
    assert all(part in text for part in expected), text


def test_missing_course_file(write_course):
    assert "course.yaml" in message(load_cards)


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
        ({"epochs": "three"}, ["01_small: epochs", "int", "'three'"]),
        ({"epochs": 2.5}, ["epochs", "int", "2.5"]),
        ({"epochs": True}, ["epochs", "int", "True"]),
        ({"epochs": None}, ["epochs", "None"]),
        ({"epochs": 0}, ["epochs = 0", "at least 1"]),
        ({"epochs": 11}, ["epochs = 11", "at most 10"]),
        ({"lr": float("nan")}, ["lr", "nan"]),
        ({"lr": "fast"}, ["lr", "float", "'fast'"]),
        ({"kind": "rotatoin"}, ["kind", "did you mean 'rotation'?"]),
        ({"kind": 3}, ["kind", "str", "3"]),
        ({"mixers": ["halo", "swim"]}, ["mixers", "'swim'", "did you mean 'swin'?"]),
        ({"mixers": "halo"}, ["mixers", "list[str]", '["halo"]']),
        ({"seeds": []}, ["seeds", "empty"]),
        ({"seeds": [1, 1]}, ["seeds", "1 stands twice"]),
        ({"seeds": [0, "x"]}, ["seeds", "int", "'x'"]),
        ({"seeds": "[0, 1"}, ["seeds"]),
        ({"flip": 1}, ["flip", "bool", "1"]),
        ({"folder": 3}, ["folder", "path", "3"]),
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


def test_recipes_by_name_and_by_path(write_course, declared, tmp_path, monkeypatch):
    parameters = {"recipe": {"type": "str", "default": "shapes", "choices": "recipes", "help": "the data"}}
    write_course({"01_small": declared | {"profiles": {}, "parameters": parameters}})
    card = load_card(1)
    assert check_values(card)["recipe"] == "shapes"
    assert "did you mean 'shapes'?" in message(check_values, card, {"recipe": "shaps"})
    assert "no such file" in message(check_values, card, {"recipe": "mine.yaml"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    assert check_values(card, {"recipe": "mine.yaml"})["recipe"] == str(tmp_path / "mine.yaml")


# ---- the notebook and its card --------------------------------------------------------------------------------------


def stored_notebook(card) -> nbformat.NotebookNode:
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell(header_markdown(card)),
        v4.new_code_cell(parameters_source(card), metadata={"tags": ["parameters"]}),
        v4.new_code_cell(f"import stm_lab.course\n\n{setup_call(card)}"),
        v4.new_code_cell("1 + 1", metadata={"tags": ["by-hand"]}),
    ]
    return v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def problems(card, change, tmp_path) -> str:
    notebook = stored_notebook(card)
    change(notebook)
    nbformat.write(notebook, tmp_path / "01_small.ipynb")
    return "; ".join(check_notebook(tmp_path / "01_small.ipynb", card))


def test_a_notebook_made_from_its_card_agrees_with_it(card, tmp_path):
    assert problems(card, lambda notebook: None, tmp_path) == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda nb: nb.cells[0].update(source="# Small"), "header, line 1: '# Small' should be '# 01 · Small'"),
        (lambda nb: nb.cells[1].update(source=nb.cells[1].source.replace("= 2", "= 3")), "parameters, line 3"),
        (lambda nb: nb.cells[1].metadata.update(tags=["paramters"]), "did you mean 'parameters'?"),
        (lambda nb: nb.cells[1].metadata.update(tags=[]), "tagged 'parameters', found 0"),
        (lambda nb: nb.cells[3].metadata.update(tags=["parameters"]), "tagged 'parameters', found 2"),
        (lambda nb: nb.cells.pop(2), "must contain `lab = stm_lab.course.setup"),
        (lambda nb: nb.cells[3].update(execution_count=4), "cell 3: an execution count"),
        (lambda nb: nb.cells[3].outputs.append(nbformat.v4.new_output("stream", text="2")), "cell 3: outputs"),
        (lambda nb: nb.metadata.update(widgets={}), "widget state"),
        (lambda nb: nb.metadata.pop("kernelspec"), "kernel"),
    ],
)
def test_disagreements_are_named(card, tmp_path, change, expected):
    assert expected in problems(card, change, tmp_path)


def test_what_is_no_notebook(card, tmp_path):
    (tmp_path / "x.ipynb").write_text("{}")
    assert "x.ipynb" in message(check_notebook, tmp_path / "x.ipynb", card)
    assert "y.ipynb" in message(check_notebook, tmp_path / "y.ipynb", card)


def test_the_parameters_cell_is_python_and_papermill_can_read_it(card):
    from papermill.translators import PythonTranslator

    namespace = {}
    exec(parameters_source(card), namespace)
    assert {name: namespace[name] for name in card.parameters} == check_values(card)
    inferred = PythonTranslator.inspect({"source": parameters_source(card)})
    assert [parameter.name for parameter in inferred] == list(card.parameters)
    assert [parameter.help for parameter in inferred] == [parameter.help for parameter in card.parameters.values()]


def test_the_header_says_what_may_be_set(card):
    header = header_markdown(card)
    for name, parameter in PARAMETERS.items():
        assert f"| `{name}` |" in header
        assert parameter["help"] in header
    assert "at least 1, at most 10" in header


@pytest.mark.parametrize("kind", ["int", "float", "str", "bool", "path"])
@pytest.mark.parametrize("form", ["{}", "list[{}]", "{} | None", "list[{}] | None"])
def test_every_type_there_is(kind, form):
    item = {"int": 1, "float": 1.5, "str": "a", "bool": True, "path": "/a"}[kind]
    default = None if "None" in form else [item] if "list" in form else item
    parameter = Parameter(type=form.format(kind), default=default, help="x")
    read = parameter.read([item] if "list" in form else item, "x")
    expected = Path("/a") if kind == "path" else item
    assert read == ([expected] if "list" in form else expected)
