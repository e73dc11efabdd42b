"""The tables of `notebooks/RESULTS.md` are those of the shipped rows, with intervals that scipy computes."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from stm_lab import paper
from stm_lab.util.paths import notebooks_dir

ROOT = notebooks_dir().parent
TEXT = (notebooks_dir() / "RESULTS.md").read_text(encoding="utf-8")
BASELINE = "identity"


def _table(heading):
    """Lines of the first table after a heading that has a mean, as {mixer: {column: text}}."""
    lines = [line.strip("| \n").split(" | ") for line in TEXT.partition(heading)[2].splitlines() if line[:2] == "| "]
    header = next(number for number, cells in enumerate(lines) if cells[0] == "mixer")
    found = {}
    for cells in lines[header + 1 :]:
        if len(cells) < 3 or cells[0] == "mixer" or not re.match(r"\d", cells[1]):
            break
        cells = [cell.strip() for cell in cells]
        found[cells[0]] = dict(zip(lines[header], cells + [""] * 9, strict=False))
    return found


def _rows(name):
    rows = [json.loads(line) for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return [(row["parameters"]["recipe"], row["metrics"]["mixer"], row["seed"], row["metrics"]["top1"]) for row in rows]


def _by_mixer(rows, recipe, seeds):
    found = {}
    for of, mixer, seed, top1 in rows:
        if of == recipe and seed in seeds:
            found.setdefault(mixer, {})[seed] = top1
    return {mixer: np.array([scores[seed] for seed in seeds]) for mixer, scores in found.items()}


def _seed_0_of_the_weights():
    lines = (ROOT / "stm_lab/weights/rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [("shapes", row["config"]["mixer"], 0, row["metrics"]["top1"]) for row in map(json.loads, lines)]


TRAININGS, SWEEP = "notebooks/sweeps/rows_of_trainings.jsonl", "notebooks/sweeps/rows_of_shapes.jsonl"
ONE_SEED = ("pvt_v2", "pooling")  # of `shapes`; they are in the text, not in the table


def _drawn():
    rows = [row for row in [*_rows(TRAININGS), *_seed_0_of_the_weights()] if row[1] not in ONE_SEED]
    return _by_mixer(rows, "shapes", (0, 1, 2))


TABLES = {
    "## Photographs": lambda: _by_mixer(_rows(TRAININGS), "tiny-imagenet-40", (0, 1, 2)),
    "## Drawn images": _drawn,
    "## The demo": lambda: _by_mixer([row for row in _rows(SWEEP) if row[2] < 3], "shapes", (0, 1, 2)),
}


def test_mixers_of_one_seed_are_those_of_the_weights():
    scores = {mixer: top1 for _, mixer, _, top1 in _seed_0_of_the_weights()}
    said = re.search(r"pvt_v2 and pooling have that seed alone: ([\d.]+) and ([\d.]+)%", TEXT)
    assert all(map(_is, said.groups(), (scores[mixer] for mixer in ONE_SEED)))


def _is(text, value):
    """Whether a text is that value, rounded to its digits; half may go either way."""
    return abs(float(text) - value) <= 0.05 + 1e-9


@pytest.mark.parametrize("heading", TABLES)
def test_a_table_is_that_of_its_rows(heading):
    table, scores = _table(heading), TABLES[heading]()
    assert set(table) == set(scores)
    for mixer, written in table.items():
        values = scores[mixer]
        assert _is(written.get("mean") or written["top-1 %"], values.mean()), mixer
        assert _is(written["spread"], values.std(ddof=1)), mixer
        assert all(_is(written.get(f"seed {seed}", value), value) for seed, value in enumerate(values)), mixer
        if mixer == BASELINE:
            assert written["difference"] == written["95% interval"] == ""
            continue
        assert _is(written["difference"], (values - scores[BASELINE]).mean()), mixer
        ends = stats.ttest_rel(values, scores[BASELINE]).confidence_interval(0.95)
        assert all(map(_is, written["95% interval"].split(" .. "), ends)), mixer
    means = [scores[mixer].mean() for mixer in table]
    assert means == sorted(means, reverse=True), "the highest mean stands first"


def test_eight_seeds_of_two_are_those_of_their_rows():
    scores = _by_mixer([row for row in _rows(SWEEP) if row[1] in ("swin", BASELINE)], "shapes", tuple(range(8)))
    said = re.search(r"swin has ([\d.]+) and identity ([\d.]+), (\S+) from (\S+) to (\S+\d)", " ".join(TEXT.split()))
    difference = scores["swin"] - scores[BASELINE]
    ends = stats.ttest_rel(scores["swin"], scores[BASELINE]).confidence_interval(0.95)
    wanted = scores["swin"].mean(), scores[BASELINE].mean(), difference.mean(), *ends
    assert all(map(_is, said.groups(), wanted))


def test_the_order_on_photographs_is_the_opposite_of_the_papers():
    scores = _by_mixer(_rows(TRAININGS), "tiny-imagenet-40", (0, 1, 2))
    published = {row.mixer: row.top1 for row in paper.published() if row.scale == "micro"}
    tau = stats.kendalltau([scores[mixer].mean() for mixer in published], list(published.values()))
    assert tau.statistic == pytest.approx(-1)
    assert "exactly -1 (Kendall's tau; a random order is as extreme in 1.7% of cases" in " ".join(TEXT.split())
    assert round(tau.pvalue, 3) == 0.017
