"""What checks say: right, nothing written yet, the mistake by name, else where the first difference is."""

import math

import numpy as np
import pytest
import torch

from stm_lab import UserError, checks
from stm_lab.checks.core import Draw, difference, exercise


def _maps(draw):
    height, width = draw.distinct(2, 3, 7)
    return {"x": draw.normal(2, height, width, 5), "factor": draw.integer(2, 4)}


@pytest.fixture
def scaled():
    @exercise("01_small", 3, inputs=_maps, what="mask")
    def scaled(x, factor):
        "The map, so many times."
        return x * factor

    @scaled.mistake("your map is divided by the factor; multiply")
    def divided(x, factor):
        return x / factor

    return scaled


def message(check, function):
    with pytest.raises(checks.Wrong) as caught:
        check(function)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("exercise 3: ")
    return text.removeprefix("exercise 3: ")


def test_right(scaled, capsys):
    scaled(lambda x, factor: factor * x)
    assert capsys.readouterr().out == "exercise 3: right (6 random cases, float64)\n"


def test_nothing_written_yet(scaled):
    def stub(x, factor):
        raise NotImplementedError("your turn")

    with pytest.raises(NotImplementedError, match="exercise 3: nothing written yet"):
        scaled(stub)


def test_a_known_mistake_is_named_and_shown(scaled):
    text = message(scaled, lambda x, factor: x / factor)
    assert text.startswith("your map is divided by the factor; multiply. For x (2, ")
    assert "factor=" in text
    assert "first difference at [0, 0, 0, 0]" in text


def test_an_unknown_one_says_where(scaled):
    def off_by_one_place(x, factor):
        out = x * factor
        out[1, 2, 0, 4] += 0.5
        return out

    text = message(scaled, off_by_one_place)
    assert text.startswith("For x (2, ")
    assert "first difference at [1, 2, 0, 4]" in text
    assert "1 of " in text
    assert "largest difference is 0.5" in text


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x, n: (x * n).mT, "your output is the mask's transpose"),
        (lambda x, n: (x * n).permute(0, 3, 1, 2), "permute(0, 2, 3, 1) would put it right"),
        (lambda x, n: (x * n).flip(1), "turned back to front along axis 1"),
        (lambda x, n: -x * n, "the mask with the sign turned"),
        (lambda x, n: x * n * 3, "a multiple of the mask (3 times): a factor is missing, or there twice"),
        (lambda x, n: x * n + 1, "the mask with a constant added (+1)"),
        (lambda x, n: x, "your output is the input x itself"),
        (lambda x, n: x * 0, "your output is 0 everywhere"),
        (lambda x, n: None, "is the `return` missing?"),
        (lambda x, n: (x * n)[:1], "the shape is (1, "),
        (lambda x, n: (x * n).float(), "the dtype is float32, should be float64; a tensor that you make inside"),
        (lambda x, n: (x - x) / (x - x), "NaN at [0, 0, 0, 0]"),
        (lambda x, n: x.mul_(n), "changes its input x in place"),
        (lambda x, n: x @ x.flatten(), "your function raised RuntimeError: "),
        (lambda x: x, "your function raised TypeError: "),
        (lambda x, n: 3.0, "a float came back, should be a tensor of shape"),
        (lambda x, n: (x, x), "a tuple came back, should be a tensor of shape"),
    ],
)
def test_what_happens_to_everybody(scaled, function, says):
    assert says in message(scaled, function)


def test_nan_is_no_multiple_of_anything(scaled):
    assert "multiple" not in message(scaled, lambda x, n: x * torch.nan)


def test_an_error_shows_the_learners_line(scaled):
    def broken(x, factor):
        return x.view(factor, -7)

    assert "return x.view(factor, -7))" in message(scaled, broken)


def test_a_function_must_be_handed_over_itself(scaled):
    assert "hand over the function itself, without calling it" in message(scaled, torch.ones(2))


def test_a_mistake_is_named_only_if_it_fits_every_case(scaled):
    def wrong_in_another_way(x, factor):
        return x / factor if factor == 2 else x * 7

    assert not message(scaled, wrong_in_another_way).startswith("your map is divided")


def test_inputs_are_the_same_each_time_and_the_callers_chance_goes_on(scaled):
    seen = []

    def keep(x, factor):
        torch.manual_seed(0)
        seen.append(x)
        return x * factor

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    scaled(keep)
    assert torch.equal(torch.rand(1), expected)
    scaled(keep)
    assert all(torch.equal(one, other) for one, other in zip(seen[:6], seen[6:], strict=True))


def test_classes_are_run_as_the_exercise_says():
    def run(cls, arguments):
        return cls()(*arguments)

    @exercise("01_small", 3, inputs=lambda draw: {"x": draw.normal(2, 3)}, run=run)
    class Twice:
        "Doubles."

        def __call__(self, x):
            return 2 * x

    Twice(Twice.truth)

    class Once:
        def __call__(self, x):
            return x

    assert "your output is the input x itself" in message(Twice, Once)


@pytest.mark.parametrize(
    ("found", "expected", "says"),
    [
        (True, False, "True, should be False"),
        (3, 4, "3, should be 4"),
        (0.1 + 0.2, 0.3, None),
        (torch.tensor(3.0), 3.0, None),
        (torch.ones(2), 3.0, "an array of shape (2,) came back, should be one float"),
        ("a", 3, "'a', should be the number 3"),
        ((1, 2), (1, 2), None),
        ([1, 2], (1, 2), None),
        (torch.Size([1, 2]), (1, 2), None),
        ((1, 3), (1, 2), "(1, 3), should be (1, 2)"),
        ((1,), (1, 2), "has 1 parts, should have 2"),
        (3, (1, 2), "one int came back, should be 2 things"),
        ((1.0, torch.ones(2)), (1.0, torch.zeros(2)), "output number 2: first difference at [0]"),
        ({"a": 1}, {"b": 1}, "the keys are 'a', should be 'b'"),
        ({"a": 1}, {"a": 2}, "'a': 1, should be 2"),
        (np.ones(2), torch.ones(2, dtype=torch.float64), None),
        (torch.ones(2, dtype=torch.int32), torch.ones(2, dtype=torch.int64), None),
        (torch.ones(2), torch.ones(2, dtype=torch.bool), "the dtype is float32, should be bool; .bool()"),
        (torch.ones(2), torch.ones(2, dtype=torch.int64), "the dtype is float32, should be int64; .long()"),
        (torch.tensor([True, True]), torch.tensor([True, False]), "at [1]: True, should be False; 1 of 2 differ"),
        (torch.tensor([0.0, -torch.inf]), torch.tensor([0.0, -torch.inf]), None),
        (torch.tensor([0.0, -100.0]), torch.tensor([0.0, -torch.inf]), "-100, should be -inf"),
        (torch.zeros(0, 3), torch.zeros(0, 3), None),
    ],
)
def test_difference(found, expected, says):
    told = difference(found, expected)
    assert told is None if says is None else says in told


def test_rounding_is_no_difference():
    true = Draw(0).normal(50, 50)
    assert difference(true + 1e-13, true) is None
    assert difference(true + 1e-6, true) is not None


def test_booleans_exchanged():
    @exercise("01_small", 3, inputs=lambda draw: {"x": draw.normal(4, 5)}, what="mask")
    def positive(x):
        return x > 0

    assert "the mask with True and False exchanged" in message(positive, lambda x: x <= 0)


def test_distinct_sides_differ():
    for seed in range(20):
        sides = Draw(seed).distinct(3, 2, 6)
        assert len(set(sides)) == 3
        assert all(2 <= side <= 6 for side in sides)


def test_exercises_are_found_by_their_notebook():
    assert checks.of("02").dilated.number == 1
    assert checks.of("02") is checks.of("02")
    with pytest.raises(UserError, match="unknown notebook with exercises '2'; did you mean '02'"):
        checks.of("2")


def test_a_notebook_shows_the_message_alone(scaled):
    with pytest.raises(checks.Wrong) as caught:
        scaled(lambda x, factor: x)
    assert caught.value._render_traceback_() == [str(caught.value)]


# ---- how many images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accuracy", "difference"), [(28, 1.5), (83, 0.7)])
def test_so_many_images_of_its_own_each_network_needs(accuracy, difference):
    """By draws: the spread of the difference of two networks, each on images drawn for it alone."""
    needed = checks.of("00").images_needed.truth(accuracy, difference)
    one, other = 100 * np.random.default_rng(0).binomial(needed, accuracy / 100, size=(2, 200_000)) / needed
    assert 2 * (one - other).std() == pytest.approx(difference, rel=0.01)
    assert "images a network" in checks.of("00").images_needed.__doc__


def test_errors_that_are_added_are_told_of_images():
    text = message(checks.of("00").images_needed, lambda p, d: math.ceil(16 * p * (100 - p) / d**2))
    assert "on independent images their squares add up" in text
