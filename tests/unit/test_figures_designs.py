"""The figure of a design between two others: its numbers are those of the rows, in the text too."""

from companions import companion

OWN_08 = companion("08")

PARTS = [{"part": part, "parameters": 100 * n, "macs": 10 * n} for n, part in enumerate(("stem", "head", "total"), 1)]


def test_parts_are_drawn_and_told():
    designs = dict.fromkeys(("original", "now", "unified"), PARTS)
    figure = OWN_08.design_parts(designs, [("stem", "patches", "convs", "convs")])
    figure.draw_without_rendering()
    assert "stem convs" in figure.get_label()
    assert "parameters: original 300" in figure.get_label()
    assert [bar.get_width() for bar in figure.axes[1].patches] == [100, 200]
