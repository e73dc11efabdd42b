"""Figures of a mixer of one's own: what is drawn is what was given, and they say so."""

import numpy as np
import pytest

from stm_lab import UserError
from stm_lab.figures import mixer_bench


def test_the_bench_marks_side_and_token():
    heard = np.zeros((4, 5))
    heard[1, 2:4] = 1, 0.1
    curves = {"mine": {7: 100, 14: 400}, "swin": {7: 300, 14: 900}, "identity": {7: 0, 14: 0}}
    figure = mixer_bench("mine", heard, (1, 2), curves, 14, {"heard": "2 of 20 tokens"})
    assert "the token in row 1, column 2 hears 2 of 20. heard: 2 of 20 tokens" in figure.get_label()
    assert "Multiply-adds at side 14: mine 400; swin 900; identity 0." in figure.get_label()
    shown = figure.axes[0].images[0].get_array()
    assert np.isfinite(shown.astype(float)).sum() == 2
    drawn = {line.get_label() for line in figure.axes[1].lines}
    assert {"mine", "swin"} <= drawn
    assert "identity" not in drawn
    with pytest.raises(UserError, match="no curve of 'other'"):
        mixer_bench("other", heard, (1, 2), curves, 14, {})
