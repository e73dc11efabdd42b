"""Notebook 19: its template, loaded out of it, keeps the contract; its code by hand does what it says."""

import ast

import exercises
import pytest
import torch
from kinds import once
from torch import nn

import stm_lab
from stm_lab import checks, measure
from stm_lab.course.notebooks import read_notebook, tags
from stm_lab.mixers import get_mixer, registry
from stm_lab.mixers.plugins import write_plugin

PATH = next(path for path in exercises.NOTEBOOKS if path.stem.startswith("19"))
hand = exercises.by_hand("19")


@pytest.fixture(scope="module")
def template():
    """The class of the cell tagged `template`, run with nothing else; what it registers is taken back."""
    (cell,) = [cell for cell in read_notebook(PATH)["cells"] if "template" in tags(cell)]
    scope = {"__name__": "__main__"}
    exercises.execute(cell["source"], scope)
    yield scope["MyMixer"]
    registry._mixers.pop("my_mixer", None)


def randomised(mixer):
    torch.manual_seed(0)
    mixer = mixer.double().requires_grad_(False)
    for parameter in mixer.parameters():
        parameter.normal_()
    return mixer


@pytest.mark.parametrize("dim", [8, 16, 33])
def test_template_keeps_the_contract(template, dim, capsys):
    contract = checks.mixer_contract(template, dim=dim, reach=3)
    assert contract.is_kept
    assert contract.reach == 3
    assert contract.macs == 14 * 14 * (2 * dim * dim + 14 * dim)
    assert "✗" not in capsys.readouterr().out


def test_template_stands_by_itself_and_is_registered(template, tmp_path):
    assert get_mixer("my_mixer") is template
    source = next(cell["source"] for cell in read_notebook(PATH)["cells"] if "template" in tags(cell))
    imported = {
        name.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) for name in node.names
    }
    assert imported == {"nn", "register_mixer"}
    file = tmp_path / "my_mixer.py"
    file.write_text(source)
    stm_lab.mixers.plugins.load_plugins([file])
    assert get_mixer("my_mixer") is not template
    assert get_mixer("my_mixer").__module__ == stm_lab.mixers.plugins.module_name(file)
    assert write_plugin(get_mixer("my_mixer"), tmp_path / "copy.py").read_text() == source.rstrip() + "\n"
    stm_lab.register_mixer("my_mixer")(template)


@pytest.mark.parametrize("kernel", [1, 2, 5, 6, 11])
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 1, 9, 3), once((1, 7, 4, 5))], ids=str)
def test_the_cross_is_its_slow_version(template, shape, kernel):
    mixer, x = randomised(template(shape[-1], kernel=kernel)), torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(hand.cross_slow(x, mixer), mixer(x))


@pytest.mark.parametrize("kernel", [3, 5, 9])
def test_the_cross_hears_its_row_and_column_and_nothing_else(template, kernel):
    found = measure.mixing_matrix(randomised(template(4, kernel=kernel)), torch.randn(1, 9, 11, 4, dtype=torch.float64))
    matrix = torch.from_numpy(found.matrix[0]).view(9, 11, 9, 11)
    row, column = torch.meshgrid(torch.arange(9), torch.arange(11), indexing="ij")
    for r, c in [(0, 0), (4, 5), (8, 3)]:
        wanted = ((row == r) & ((column - c).abs() <= kernel // 2)) | ((column == c) & ((row - r).abs() <= kernel // 2))
        assert torch.equal(matrix[r, c] > 1e-9, wanted)


@pytest.mark.parametrize(
    ("name", "clauses", "says"),
    [
        ("Wraps", ["reach"], "a roll without a mask"),
        ("Scrambles", ["reach"], "are still heard, 1 were promised"),
        ("Remembers", ["memory"], "kept from the last size"),
        ("HearsTheBatch", ["batch", "reach"], "images hear each other"),
        ("CountsTwice", ["cost"], "twice as much; a multiply-add is 1"),
    ],
)
def test_each_broken_mixer_breaks_what_it_should(name, clauses, says, capsys):
    """Who hears the batch hears far as well: the matrix is measured on copies of the tokens that share a batch."""
    with pytest.raises(checks.Wrong) as caught:
        checks.mixer_contract(getattr(hand, name), reach=1)
    broken = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✗")]
    assert [line[2:].split(":")[0] for line in broken] == clauses
    assert says in str(caught.value)
    assert checks.mixer_contract(hand.Small, reach=1, say=False).is_kept


class Fetches(nn.Module):
    """The answer itself: every token becomes the one two columns to its left."""

    def __init__(self, dim):
        super().__init__()

    def forward(self, x):
        return nn.functional.pad(x, (0, 0, 2, -2))


def test_the_error_of_fetching_is_of_the_answer_0_and_of_silence_1():
    x, scale = torch.randn(2, 5, 9, 4), torch.ones(4)
    assert hand.fetching_error(x, 2, Fetches(4), scale) == 0
    assert hand.fetching_error(x, 2, Fetches(4), 0 * scale) == 1
    assert hand.fetching_error(x, 1, Fetches(4), scale) > 1.5
    assert hand.learn_to_fetch(Fetches, 2, steps=200, dim=4, side=6) < 1e-3


def test_a_cross_learns_to_fetch_from_within_its_reach_and_not_from_beyond(template):
    within, beyond = (hand.learn_to_fetch(template, offset, steps=200, side=9, seed=3) for offset in (3, 4))
    assert within < 0.1
    assert 0.95 < beyond < 1.05
