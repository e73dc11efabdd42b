"""Drawn tasks: right by loops written from their questions, blind to the single token, and a table that is resumed."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stm_lab import cli, figures, tasks
from stm_lab.course import leaderboard
from stm_lab.mixers import get_mixer, register_mixer
from stm_lab.tasks import IGNORE, TASKS, Settings, TableConfig, TokenNetwork, cells, get_task, table, train, verdict
from stm_lab.util.errors import UserError

SHORT = {"steps": 4, "batch_size": 2, "learning_rates": [3e-3], "validation_maps": 2, "test_maps": 2, "processes": 1}
PLUGIN = """
import stm_lab
from stm_lab.mixers import Identity

@stm_lab.register_mixer("still")
class Still(Identity):
    pass
"""


def of_one(values):
    """The only value of some, or IGNORE for none or several."""
    values = set(values)
    return values.pop() if len(values) == 1 else IGNORE


def copied(distance):
    return lambda tokens, row, column: tokens[row, column - distance, 0] if column >= distance else IGNORE


def next_colour(tokens, row, column):
    return next((tokens[row, x, 0] for x in range(column - 1, -1, -1) if tokens[row, x, 0] < 8), IGNORE)


def mirrored(tokens, row, column):
    other = tokens.shape[1] - 1 - column
    return tokens[row, other, 0] if other != column else IGNORE


def recalled(tokens, row, column):
    key, value = tokens[row, column]
    return of_one(v for k, v in tokens.reshape(-1, 2) if k == key and v < 8) if value == 8 and key < 8 else IGNORE


def nearest(tokens, row, column):
    away = {(y, x): (y - row) ** 2 + (x - column) ** 2 for y, x in np.argwhere(tokens[..., 0] < 8)}
    first = min(away.values())
    return of_one(tokens[y, x, 0] for (y, x), far in away.items() if far == first) if first else IGNORE


def relation(tokens, row, column):
    if not tokens[row, column, 0]:
        return IGNORE
    (other,) = ((y, x) for y, x in np.argwhere(tokens[..., 0]) if (y, x) != (row, column))
    return 2 * (other[0] > row) + (other[1] > column)


def majority(tokens, row, column):
    counts = {colour: (tokens[..., 0] == colour).sum() for colour in range(8)}
    most = (colour for colour, count in counts.items() if count == max(counts.values()))
    return of_one(most) if tokens[row, column, 0] == 8 else IGNORE


def counted(tokens, row, column):
    return (tokens[..., 0] == 1).sum() % 3 if tokens[row, column, 0] == 2 else IGNORE


ORACLES = {
    "copy-2": copied(2), "copy-4": copied(4), "copy-6": copied(6), "copy-resized": copied(2), "mirror": mirrored,
    "copy-distractors": next_colour, "recall": recalled, "recall-far": recalled, "nearest": nearest,
    "relation": relation, "majority": majority, "count": counted,
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("size", [(12, 12), (9, 13)])
def test_labels_are_what_a_loop_over_the_question_gives(name, size):
    tokens, labels = TASKS[name].draw((1, 5), range(3), *size)
    assert tokens.shape == (3, *size, len(TASKS[name].symbols))
    assert (tokens >= 0).all()
    assert (tokens < np.array(TASKS[name].symbols)).all()
    for image, row, column in np.ndindex(labels.shape):
        assert labels[image, row, column] == ORACLES[name](tokens[image], row, column), (image, row, column)


@pytest.mark.parametrize("name", TASKS)
def test_draws_depend_on_the_map_alone(name):
    task = TASKS[name]
    whole, part = task.draw((0, 3), range(8), 12, 12), task.draw((0, 3), range(5, 8), 12, 12)
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[5:], other)
    assert (task.draw((0, 4), range(8), 12, 12)[0] != whole[0]).any()


@pytest.mark.parametrize("name", TASKS)
def test_no_function_of_the_single_token_beats_chance(name):
    task, maps = TASKS[name], 4000
    tokens, labels = task.draw((9,), range(maps), *task.sizes(12, 12)[0])
    shown = np.ravel_multi_index(np.moveaxis(tokens, -1, 0), task.symbols)
    right, asked = [], []
    table = np.zeros((shown.max() + 1, task.classes))
    first = labels[: maps // 2] != IGNORE
    np.add.at(table, (shown[: maps // 2][first], labels[: maps // 2][first]), 1)
    for image in range(maps // 2, maps):
        there = labels[image] != IGNORE
        right.append((table.argmax(1)[shown[image][there]] == labels[image][there]).sum())
        asked.append(there.sum())
    reached, error = 100 * sum(right) / sum(asked), 100 * np.std(right) * len(right) ** 0.5 / sum(asked)
    assert abs(reached - task.chance) < 4 * error  # maps are independent, tokens of one map are not


def test_every_task_says_what_theory_expects_of_every_mixer():
    for task in TASKS.values():
        assert task.predictions.keys() == set(tasks.MIXERS), task.name
        assert {word for word, _ in task.predictions.values()} <= {"solves", "partly", "fails"}
    assert [verdict(accuracy, 12.5) for accuracy in (100, 91.3, 91.2, 26, 25, 3)] == [
        "solves", "solves", "partly", "partly", "fails", "fails"
    ]  # fmt: skip


def test_identity_hears_of_no_other_token():
    network = TokenNetwork(get_task("copy-2"), "identity")
    tokens = torch.randint(8, (1, 12, 12, 1))
    changed = tokens.clone()
    changed[0, 3, 4] = (tokens[0, 3, 4] + 1) % 8
    differs = (network(tokens) != network(changed)).any(-1)[0]
    assert differs.nonzero().tolist() == [[3, 4]]


@pytest.mark.slow
def test_a_convolution_copies_and_pvt_does_not():
    few = Settings(height=8, width=8, steps=60, learning_rates=(3e-3,), validation_maps=16, test_maps=64)
    assert train("copy-2", "convnext", few)[1]["accuracy"] > 95
    assert train("copy-2", "pvt", few)[1]["accuracy"] < 20


def test_a_table_is_resumed_where_it_was_killed(tmp_path, monkeypatch):
    config = TableConfig(mixers=["identity", "pooling"], tasks=["copy-2"], seeds=[0, 1], out=str(tmp_path), **SHORT)
    cell, trained = cells._cell, []

    def killed_in_the_third(*job):
        trained.append(job[:3])
        if len(trained) == 3:
            raise KeyboardInterrupt
        return cell(*job)

    monkeypatch.setattr(cells, "_cell", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        table(config)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"notebook": "tasks"}\n{"half": ')
    with pytest.warns(UserWarning, match="left out"):
        rows = table(config)
    assert trained[2:] == [("copy-2", "identity", 1)] * 2 + [("copy-2", "pooling", 1)]
    assert rows == table(config)
    assert len(trained) == 5
    assert [(row["seed"], row["mixer"]) for row in rows] == [
        (0, "identity"), (0, "pooling"), (1, "identity"), (1, "pooling")
    ]  # fmt: skip
    more = config.model_copy(update={"mixers": ("identity", "identity"), "seeds": (0, 1, 0), "steps": 5})
    assert len(table(more)) == 2  # what is named twice is one cell; other settings are other cells of the same file
    assert len(trained) == 7
    ranked = leaderboard(tmp_path, metric="accuracy", baseline="identity")
    assert set(ranked["mixer"]) == {"identity", "pooling"}
    assert set(ranked["parameters.steps"]) == {4, 5}
    stored = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row in stored:
        assert row.keys() == {
            "notebook",
            "parameters",
            "seed",
            "metrics",
            "data",
            "revision",
            "code",
            "device",
            "seconds",
        }
        assert row["parameters"]["learning_rates"] == [3e-3]
    assert all(row["curves"] == {"0.003": row["curves"]["0.003"]} and row["lr"] == 3e-3 for row in rows)


def test_a_plugin_that_replaces_a_mixer_of_ours_is_another_cell(tmp_path):
    config = TableConfig(mixers=["identity"], tasks=["copy-2"], seeds=[0], out=str(tmp_path / "out"), **SHORT)
    table(config)
    plugin = tmp_path / "mine.py"
    lines = [
        "import stm_lab, torch",
        "@stm_lab.register_mixer('identity')",
        "class Mine(torch.nn.Module):",
        "    def __init__(self, dim):",
        "        super().__init__()",
        "    def forward(self, x):",
        "        return x.roll(1, 2)",
    ]
    plugin.write_text("\n".join(lines))
    own = get_mixer("identity")
    try:
        table(config.model_copy(update={"plugins": (str(plugin),)}))
    finally:
        register_mixer("identity")(own)
    stored = [json.loads(line)["metrics"] for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [("plugin" in metrics) for metrics in stored] == [False, True]


@pytest.mark.slow
def test_processes_give_what_one_gives_and_find_plugins(tmp_path):
    (tmp_path / "still.py").write_text(PLUGIN)
    given = {"mixers": ["still", "pooling"], "tasks": ["copy-2"], "seeds": [0], "plugins": [str(tmp_path / "still.py")]}
    alone = table(TableConfig(**given, **SHORT, out=str(tmp_path / "alone")))
    both = table(TableConfig(**given, **SHORT | {"processes": 2}, out=str(tmp_path / "both")))
    for one, other in zip(alone, both, strict=True):
        assert [one[key] for key in ("mixer", "accuracy", "curves")] == [
            other[key] for key in ("mixer", "accuracy", "curves")
        ]
    assert "predicted" not in both[0]
    (tmp_path / "still.py").write_text(PLUGIN + "\nEDITED = True\n")
    again = table(TableConfig(**given, **SHORT, out=str(tmp_path / "alone")))
    assert again[0]["plugin"] != alone[0]["plugin"]


REFUSED = [
    (["--tasks", "coppy-2"], "unknown task 'coppy-2'; did you mean 'copy-2'?"),
    (["--mixers", "swim,pvt"], "tasks: unknown mixer 'swim'; did you mean 'swin'?"),
    (["-p", "width=6", "--tasks", "copy-6"], "task copy-6: a map of 12 x 6 tokens is too small; at least 1 x 7"),
    (["-p", "stps=3"], "tasks: unknown key 'stps'; did you mean 'steps'?"),
    (["--mixers", "pvt", "-p", "model_options={reductoin: 2}"], "did you mean 'reduction'?"),
    (["--mixers", "pvt", "-p", "mixers=[swin]"], "mixers is given twice"),
    (["--figure", "table.pdf"], "the figure is a .png"),
    (["--plugins", "nowhere.py"], "plugin 'nowhere.py': no such file"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_wrong_input_is_refused_in_a_line_before_anything_starts(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STM_LAB_RUNS", str(tmp_path / "runs"))
    assert cli.main(["tasks", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_command_prints_the_table_and_draws_it(tmp_path, capsys):
    given = [f"{name}={json.dumps(value)}" for name, value in {**SHORT, "seeds": [0], "out": str(tmp_path)}.items()]
    overrides = [part for each in given for part in ("-p", each)]
    picture = tmp_path / "table.png"
    called = ["tasks", "--mixers", "identity,pvt", "--tasks", "copy-2", *overrides, "--figure", str(picture)]
    assert cli.main(called) == 0
    said = capsys.readouterr().out
    assert "copy-2" in said
    assert "2 of 2 predictions were right" in said
    assert picture.exists()


ROW = {"task": "copy-2", "seed": 0, "chance": 12.5, "lr": 3e-3, "predicted": "solves"}
ROWS = [
    {**ROW, "mixer": "swin", "accuracy": 99.0, "curves": {"0.003": [[10, 50.0], [20, 99.0]]}},
    {**ROW, "mixer": "pvt", "accuracy": 17.0, "curves": {"0.003": [[10, 12.0], [20, 14.0], [30, 17.0]]}},
]


def test_figures_show_the_numbers_and_which_predictions_were_wrong():
    drawn = figures.task_table(ROWS)
    assert "1 predictions wrong" in drawn.get_label()
    assert [text.get_text() for text in drawn.axes[0].texts] == ["99\n●", "17\n● → ○"]
    curves = figures.task_curves(ROWS)
    (line,) = (line for line in curves.axes[0].lines if line.get_label() == "swin")
    assert line.get_xydata().tolist() == [[10, 50], [20, 99], [30, 99]]  # it ended early, since it was right
    with pytest.raises(UserError, match="no 'accuracy'"):
        figures.task_table([{"task": "copy-2", "mixer": "swin", "seed": 0}])


def test_types_are_strict():
    with pytest.raises(ValidationError):
        TableConfig(steps="many")
