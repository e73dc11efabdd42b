"""Operators on show: mixers as cards side by side, and a kernel with what it makes of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from stm_lab.figures.style import colours, described, framed
from stm_lab.util.errors import UserError


def mixer_cards(cards: Sequence[Mapping]) -> Figure:
    """Mixers side by side: who the framed token hears, and below it the facts.

    cards: with name; heard, (H, W) contributions to the token, not negative; place, its (row, column); facts, {what:
    text}. Raises UserError for none.
    """
    if not cards:
        raise UserError("mixer_cards: no cards")
    lines = max(len(card["facts"]) for card in cards)
    height = 3.2 + 0.24 * lines
    figure = Figure(figsize=(4.3 * len(cards), height), dpi=100)
    colour = colours(card["name"] for card in cards)
    said = []
    for i, card in enumerate(cards):
        heard = np.asarray(card["heard"], float)
        share = heard / (heard.max() or 1)
        bottom = (0.24 * lines + 0.25) / height
        axes = figure.add_axes((i / len(cards) + 0.04, bottom, 1 / len(cards) - 0.08, 1 - bottom - 0.5 / height))
        shown = np.where(share > 1e-9, np.log10(share.clip(1e-3)), np.nan)
        axes.set_facecolor("0.92")
        axes.imshow(shown, cmap="cividis", vmin=-3, vmax=0, interpolation="nearest")
        row, column = card["place"]
        framed(axes, row, column)
        axes.set(xticks=[], yticks=[])
        axes.set_title(card["name"], fontsize=12, color=colour[card["name"]], weight="bold")
        for line, (what, text) in enumerate(card["facts"].items()):
            y = (0.24 * (lines - line) - 0.08) / height
            figure.text(i / len(cards) + 0.03, y, what, fontsize=8, color="0.35")
            figure.text(i / len(cards) + 0.46 / len(cards) + 0.03, y, text, fontsize=8)
        tokens = int((share > 1e-9).sum())
        facts = ", ".join(f"{what} {text}" for what, text in card["facts"].items())
        said.append(f"{card['name']}: the token in row {row}, column {column} hears {tokens} of {heard.size}; {facts}")
    return described(figure, ". ".join(said) + ".")


def kernel_applied(
    image: np.ndarray, kernel: np.ndarray, filtered: np.ndarray, title: str = "", note: str = ""
) -> Figure:
    """An image, a kernel with its numbers, and the image filtered with it.

    image, filtered: (H, W, 3), in [0, 1]; what lies outside is cut. kernel: (K, K). The panels are in this order.
    title: above all; note: above the kernel.
    """
    figure = Figure(figsize=(10.2, 3.75), dpi=100)
    panels = [figure.add_axes((x, 0.03, 0.31, 0.84)) for x in (0.01, 0.345, 0.68)]
    names = ("the image", f"the kernel, sum {kernel.sum():.3g}{f'; {note}' if note else ''}", "what it makes of it")
    for axes, name in zip(panels, names, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9)
    panels[0].imshow(image.clip(0, 1), interpolation="nearest")
    panels[2].imshow(filtered.clip(0, 1), interpolation="nearest")
    largest = float(np.abs(kernel).max()) or 1.0
    shown = panels[1].imshow(kernel, cmap="PuOr_r", vmin=-largest, vmax=largest)
    for (row, column), value in np.ndenumerate(kernel):
        red, green, blue, _ = shown.cmap(shown.norm(value))
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        panels[1].text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=7, color=ink)
    if title:
        figure.suptitle(title, fontsize=10)
    rows = " / ".join(" ".join(f"{value:.2g}" for value in row) for row in kernel)
    change = float(np.abs(filtered.clip(0, 1) - image.clip(0, 1)).mean())
    text = f"Kernel {rows}; its sum is {kernel.sum():.3g}. The image changes by {change:.3f} on average."
    return described(figure, f"{title}. {text}" if title else text)
