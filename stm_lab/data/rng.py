"""Random numbers by counter: what is drawn for item i depends on (keys, i) only, never on what was drawn before.

This is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) in unsigned
64-bit arithmetic, the same on every machine, for all items at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def words(*keys: int | np.ndarray, count: int) -> np.ndarray:
    """`count` random uint64 for every item, (N, count). A key is a non-negative integer, or (N,) of them."""
    state = np.zeros(1, np.uint64)
    for key in keys:
        state = _mix(state + _GAMMA * (np.atleast_1d(np.asarray(key, np.uint64)) + np.uint64(1)))
    return _mix(state[:, None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))


def below(word: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Map uint64 words to int64 in [0, bound), `bound` up to 2**31; uniform but for less than 1 in 2**32 / bound."""
    return (((word >> np.uint64(32)) * np.asarray(bound, np.uint64)) >> np.uint64(32)).astype(np.int64)


def rolls(words: np.ndarray) -> Callable[..., np.ndarray]:
    """`roll(low, high, *shape)`: integers in [low, high], (N, *shape), from the unused of `words` (N, count)."""
    columns = iter(words.T)

    def roll(low: int | np.ndarray, high: int | np.ndarray, *shape: int) -> np.ndarray:
        drawn = np.stack([next(columns) for _ in range(math.prod(shape))], axis=1).reshape(len(words), *shape)
        return low + below(drawn, high - low + 1)

    return roll
