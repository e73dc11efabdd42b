"""The shifted window of a token: its tokens, which of them it may attend to, and attention by colours alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stm_lab.util.errors import UserError


@dataclass(frozen=True)
class Windows:
    """One token's shifted window, on a map padded to whole windows (h, w), h >= H, w >= W.

    side, shift: as used on this map (the shorter side and 0 if the map is no larger than the window). size: (H, W) of
    the true map, `padded`: (h, w). pieces: (h, w) numbers, equal where tokens lie in one window of the shifted grid.
    rows, columns: (side, side) places, on the map, of the tokens in the window after the roll. inside: (side, side)
    bool, whether they are of the true map. allowed: (L, L) bool, query by key, L = side * side, tokens row by row.
    query: the token's own number, of L.
    """

    side: int
    shift: int
    size: tuple[int, int]
    padded: tuple[int, int]
    pieces: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    inside: np.ndarray
    allowed: np.ndarray
    query: int


def token_window(height: int, width: int, *, window: int, shift: int, place: tuple[int, int]) -> Windows:
    """Find the window of the token at `place` (row, column).

    Raises UserError for a shift outside [0, window) and a place outside the map.
    """
    if not 0 <= shift < window:
        raise UserError(f"shift={shift} must be at least 0 and less than window={window}")
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        raise UserError(f"place={place} is no token of a {height}x{width} map")
    if min(height, width) <= window:
        window, shift = min(height, width), 0
    sizes = (height, width)
    padded = tuple(-(-size // window) * window for size in sizes)
    bands = [(np.arange(size) - shift) // window for size in padded]  # which window of the shifted grid, along an axis
    pieces = (bands[0] + 1)[:, None] * (padded[1] // window + 1) + bands[1] + 1

    def of_window(axis: int) -> np.ndarray:
        first = (place[axis] - shift) % padded[axis] // window * window  # after the roll
        return (np.arange(first, first + window) + shift) % padded[axis]

    rows, columns = np.meshgrid(of_window(0), of_window(1), indexing="ij")
    inside = (rows < height) & (columns < width)
    piece, true = pieces[rows, columns].ravel(), inside.ravel()
    allowed = (piece[:, None] == piece) & (true | ~true[:, None])
    query = int(np.flatnonzero(((rows == place[0]) & (columns == place[1])).ravel())[0])
    return Windows(window, shift, sizes, padded, pieces, rows, columns, inside, allowed, query)


def colour_weights(image: np.ndarray, found: Windows, *, masked: bool = True) -> np.ndarray:
    """The token's attention weights in its window, (side, side), with the sum 1, by colours alone.

    Softmax of minus ten times the squared distance of the colours, image (H, W, 3) in [0, 1]; padding is black.
    masked: as it should be; without the mask every token of the window is a key.
    """
    colours = np.zeros((*found.padded, 3))
    colours[: found.size[0], : found.size[1]] = image
    tokens = colours[found.rows, found.columns].reshape(-1, 3)
    logits = -10.0 * ((tokens - tokens[found.query]) ** 2).sum(1)
    if masked:
        logits = np.where(found.allowed[found.query], logits, -np.inf)
    weights = np.exp(logits - logits.max())
    return (weights / weights.sum()).reshape(found.side, found.side)
