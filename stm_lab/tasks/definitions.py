"""The drawn tasks: a map of symbols, and a label for every token that is asked.

Tokens are integers (B, H, W, F): F symbols a token, feature f below `symbols[f]`. A label is a function of the tokens,
`answer`, so each task can be solved; tokens that are not asked have the label `IGNORE`. What is drawn for map i depends
on the keys and i alone (`stm_lab.data.rng`), however the maps are split into batches.

Chance is exact: the best that any function of the single token reaches. In every task the labels of the asked tokens
are uniform over the classes whatever the token shows, since renaming the colours (or mirroring the map, in `relation`)
leaves the draws as likely as they were and exchanges the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stm_lab.data.rng import below, words
from stm_lab.util import yaml12
from stm_lab.util.errors import UserError, check_known

IGNORE = -100  # the label of a token that is not asked; cross-entropy leaves it out
COLOURS = 8
Sizes = tuple[tuple[int, int], list[tuple[int, int]]]


class Draws:
    """Random numbers for the maps `items` (B,): each depends on the keys, the map's number and the order of calls."""

    def __init__(self, keys: Sequence[int], items: Sequence[int]) -> None:
        self._keys, self.items, self._calls = keys, np.asarray(items), 0

    def _words(self, count: int) -> np.ndarray:
        self._calls += 1
        return words(*self._keys, self._calls, self.items, count=count)

    def integers(self, bound: int, *shape: int) -> np.ndarray:
        """Integers in [0, bound), (B, *shape)."""
        return below(self._words(int(np.prod(shape))), bound).reshape(-1, *shape)

    def places(self, number: int, of: int) -> np.ndarray:
        """`number` different integers in [0, of), in random order, (B, number)."""
        return self._words(of).argsort(1)[:, :number]


@dataclass(frozen=True)
class Task:
    """One drawn task.

    tokens: (draws, height, width) -> (B, H, W, F). answer: tokens -> labels (B, H, W).
    predictions: for each mixer whether theory says that it "solves", "partly" solves or "fails", and why.
    """

    name: str
    question: str
    symbols: tuple[int, ...]  # how many each feature of a token has
    classes: int
    tokens: Callable[[Draws, int, int], np.ndarray]
    answer: Callable[[np.ndarray], np.ndarray]
    least: tuple[int, int] = (2, 2)  # the smallest map, (height, width)
    is_resized: bool = False  # tested on other sizes than trained on
    predictions: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """The accuracy of the best function of the single token, in percent."""
        return 100 / self.classes

    def check_size(self, height: int, width: int) -> None:
        """Raise UserError if a map is too small for the task."""
        if height < self.least[0] or width < self.least[1]:
            least = f"{self.least[0]} x {self.least[1]}"
            raise UserError(f"task {self.name}: a map of {height} x {width} tokens is too small; at least {least}")

    def draw(self, keys: Sequence[int], items: Sequence[int], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (B, H, W, F) and labels (B, H, W) of the maps with the numbers `items`.

        Raises UserError if the map is too small for the task.
        """
        self.check_size(height, width)
        tokens = self.tokens(Draws(keys, items), height, width)
        return tokens, self.answer(tokens)

    def sizes(self, height: int, width: int) -> Sizes:
        """The size of the maps for training, and those for tests: 12x12 -> 8x8 and 16x16, 9x13 if it is resized."""
        if not self.is_resized:
            return (height, width), [(height, width)]
        larger, other = (4 * height // 3, 4 * width // 3), (3 * height // 4, 13 * width // 12)
        return (2 * height // 3, 2 * width // 3), [larger, other]


TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Make a task available by its name; a task that was registered under that name before is replaced."""
    TASKS[task.name] = task
    return task


def get_task(name: str | Task) -> Task:
    """The task of a name. Raises UserError, naming the nearest, for an unknown one."""
    if isinstance(name, Task):
        return name
    check_known("task", name, TASKS)
    return TASKS[name]


def verdict(accuracy: float, chance: float) -> str:
    """What a mixer did: it "solves" a task from 90% of the way from chance to 100% on, and "fails" below 15%."""
    share = (accuracy - chance) / (100 - chance)
    return "solves" if share >= 0.9 else "fails" if share < 0.15 else "partly"


class Outcome(NamedTuple):
    """What a mixer did at a task: mean accuracy over seeds and chance, in percent; theory's word, and the verdict."""

    accuracy: float
    chance: float
    predicted: str | None
    did: str

    @property
    def is_wrong(self) -> bool:
        """Theory predicted something else."""
        return self.predicted not in (None, self.did)


def outcome(rows: Sequence[Mapping[str, Any]]) -> Outcome:
    """The outcome of one cell of the table, from its rows: one for each seed."""
    accuracy, chance = (float(np.mean([row[name] for row in rows])) for name in ("accuracy", "chance"))
    return Outcome(accuracy, chance, rows[0].get("predicted"), verdict(accuracy, chance))


_THEORY = yaml12.read_mapping(Path(__file__).with_name("predictions.yaml"))


def _ours(*of_task: Any, is_resized: bool = False) -> None:
    """Register a task of the package, with its predictions."""
    said = {
        mixer: (word, reason)
        for word, reasons in _THEORY[of_task[0]].items()
        for mixers, reason in reasons.items()
        for mixer in mixers.split()
    }
    register_task(Task(*of_task, is_resized=is_resized, predictions=said))


# ---- place: copy what stands somewhere else --------------------------------------------------------------------------


def _colours(draws: Draws, height: int, width: int) -> np.ndarray:
    return draws.integers(COLOURS, height, width, 1)


def _copied(distance: int) -> Callable[[np.ndarray], np.ndarray]:
    def answer(tokens: np.ndarray) -> np.ndarray:
        labels = np.full(tokens.shape[:3], IGNORE)
        labels[:, :, distance:] = tokens[:, :, :-distance, 0]
        return labels

    return answer


for _far in (2, 4, 6):
    _question = f"Which colour has the token {_far} places to the left?"
    _ours(f"copy-{_far}", _question, (COLOURS,), COLOURS, _colours, _copied(_far), (1, _far + 1))
_question = "Copy from 2 places to the left, on maps of other sizes than those trained on."
_ours("copy-resized", _question, (COLOURS,), COLOURS, _colours, _copied(2), (1, 3), is_resized=True)


def _sparse(draws: Draws, height: int, width: int) -> np.ndarray:
    colours, is_blank = draws.integers(COLOURS, height, width, 1), draws.integers(2, height, width, 1)
    return np.where(is_blank, COLOURS, colours)


def _next_colour(tokens: np.ndarray) -> np.ndarray:
    labels = np.full(tokens.shape[:3], IGNORE)
    for column in range(1, tokens.shape[2]):
        left = tokens[:, :, column - 1, 0]
        labels[:, :, column] = np.where(left < COLOURS, left, labels[:, :, column - 1])
    return labels


_question = "Half of the tokens are grey: which is the next colour to the left?"
_ours("copy-distractors", _question, (COLOURS + 1,), COLOURS, _sparse, _next_colour, (1, 2))


def _mirrored(tokens: np.ndarray) -> np.ndarray:
    labels = tokens[:, :, ::-1, 0].copy()
    if tokens.shape[2] % 2:
        labels[:, :, tokens.shape[2] // 2] = IGNORE  # it is its own mirror image
    return labels


_question = "Which colour has the token at the mirrored place, left and right exchanged?"
_ours("mirror", _question, (COLOURS,), COLOURS, _colours, _mirrored)

# ---- content: recall what belongs to a key ---------------------------------------------------------------------------

_HIDDEN = COLOURS  # the value that a question shows
_NO_KEY = COLOURS  # the key of an empty token


def _pairs(draws: Draws, height: int, width: int) -> np.ndarray:
    keys = draws.integers(COLOURS, height, width)
    values = np.take_along_axis(draws.places(COLOURS, COLOURS), keys.reshape(len(keys), -1), 1).reshape(keys.shape)
    return np.stack((keys, np.where(draws.integers(2, height, width), values, _HIDDEN)), -1)


def _far_pairs(draws: Draws, height: int, width: int) -> np.ndarray:
    keys, asked = draws.integers(COLOURS, height, width), width - width // 3
    keys[:, :, :asked] = _NO_KEY
    values = np.full(keys.shape, _HIDDEN)
    row, column = np.divmod(draws.places(COLOURS, height * (width // 4)), width // 4)  # (B, 8)
    image = np.arange(len(keys))[:, None]
    keys[image, row, column] = np.arange(COLOURS)
    values[image, row, column] = draws.places(COLOURS, COLOURS)
    return np.stack((keys, values), -1)


def _recalled(tokens: np.ndarray) -> np.ndarray:
    keys, values = tokens[..., 0], tokens[..., 1]
    table = np.full((len(tokens), COLOURS + 1), IGNORE)
    image, row, column = np.nonzero(values != _HIDDEN)
    table[image, keys[image, row, column]] = values[image, row, column]
    labels = np.take_along_axis(table, keys.reshape(len(keys), -1), 1).reshape(keys.shape)
    return np.where(values == _HIDDEN, labels, IGNORE)


_PAIR = (COLOURS + 1, COLOURS + 1)
_question = "Which value goes with this key in this image? About nine tokens tell."
_ours("recall", _question, _PAIR, COLOURS, _pairs, _recalled, (4, 4))
_question = "The same, but one token alone tells, at the other side of the map."
_ours("recall-far", _question, _PAIR, COLOURS, _far_pairs, _recalled, (4, 8))

# ---- both: nearest, and where the other one stands -------------------------------------------------------------------

SEEDS = 6


def _seeds(draws: Draws, height: int, width: int) -> np.ndarray:
    tokens = np.full((len(draws.items), height * width), COLOURS)
    np.put_along_axis(tokens, draws.places(SEEDS, height * width), draws.places(SEEDS, COLOURS), 1)
    return tokens.reshape(-1, height, width, 1)


def _nearest(tokens: np.ndarray) -> np.ndarray:
    count, height, width, _ = tokens.shape
    image, row, column = (each.reshape(count, SEEDS) for each in np.nonzero(tokens[..., 0] < COLOURS))
    down = (np.arange(height)[:, None] - row[:, None]) ** 2  # (B, H, seeds)
    right = (np.arange(width)[:, None] - column[:, None]) ** 2
    distance = down[:, :, None] + right[:, None]  # (B, H, W, seeds), squared
    first, second = np.sort(distance, -1)[..., :2].transpose(3, 0, 1, 2)
    colour = tokens[image, row, column, 0]  # (B, seeds)
    labels = np.take_along_axis(colour[:, None, None], distance.argmin(-1)[..., None], -1)[..., 0]
    return np.where((first < second) & (first > 0), labels, IGNORE)


_question = "Which colour has the nearest of six seeds?"
_ours("nearest", _question, (COLOURS + 1,), COLOURS, _seeds, _nearest, (3, 3))


def _two_marks(draws: Draws, height: int, width: int) -> np.ndarray:
    tokens, image = np.zeros((len(draws.items), height, width, 1), int), np.arange(len(draws.items))[:, None]
    tokens[image, draws.places(2, height), draws.places(2, width)] = 1
    return tokens


def _relation(tokens: np.ndarray) -> np.ndarray:
    labels = np.full(tokens.shape[:3], IGNORE)
    image, row, column = (each.reshape(-1, 2) for each in np.nonzero(tokens[..., 0]))
    labels[image, row, column] = 2 * (row[:, ::-1] > row) + (column[:, ::-1] > column)
    return labels


_question = "Two tokens are marked: where does the other one stand, above or below, left or right?"
_ours("relation", _question, (2,), 4, _two_marks, _relation)

# ---- number: count over the map --------------------------------------------------------------------------------------

_ASKED = COLOURS  # the symbol of a token that is asked


def _crowd(draws: Draws, height: int, width: int) -> np.ndarray:
    winner, others = draws.integers(COLOURS, 1, 1, 1), draws.integers(COLOURS, height, width, 1)
    roll = draws.integers(40, height, width, 1)  # a quarter is asked; of the others a tenth is of the winner's colour
    return np.where(roll < 10, _ASKED, np.where(roll < 13, winner, others))


def _majority(tokens: np.ndarray) -> np.ndarray:
    counts = (tokens[..., 0].reshape(len(tokens), -1, 1) == np.arange(COLOURS)).sum(1)  # (B, colours)
    second, first = np.sort(counts, 1)[:, -2:].T
    labels = np.where(first > second, counts.argmax(1), IGNORE)
    return np.where(tokens[..., 0] == _ASKED, labels[:, None, None], IGNORE)


_question = "Which colour is the most frequent of the image?"
_ours("majority", _question, (COLOURS + 1,), COLOURS, _crowd, _majority, (3, 3))
MODULUS, _MARKED = 3, 1


def _marks(draws: Draws, height: int, width: int) -> np.ndarray:
    number = draws.integers(3 * MODULUS, 1)  # of marks, 0 to 8
    places = draws.places(6 * MODULUS, height * width)
    tokens = np.zeros((len(number), height * width), int)
    shown = np.where(np.arange(3 * MODULUS) < number, _MARKED, 0)
    np.put_along_axis(tokens, places[:, : 3 * MODULUS], shown, 1)
    np.put_along_axis(tokens, places[:, 3 * MODULUS :], 2, 1)  # nine are asked
    return tokens.reshape(-1, height, width, 1)


def _counted(tokens: np.ndarray) -> np.ndarray:
    number = (tokens[..., 0] == _MARKED).sum((1, 2), keepdims=True)
    return np.where(tokens[..., 0] == 2, number % MODULUS, IGNORE)


_question = "How many tokens of the image are marked, modulo 3?"
_ours("count", _question, (3,), MODULUS, _marks, _counted, (4, 5))
