"""What figures share."""

from matplotlib.figure import Figure

from stm_lab.figures.style import framed


def boxes(**given):
    axes = Figure().subplots()
    framed(axes, 2, 5, **given)
    return [(patch.get_bbox().bounds, patch.get_edgecolor()[:3]) for patch in axes.patches]


def test_a_frame_is_dark_and_light_round_the_token_as_imshow_draws_it():
    assert boxes() == [((4.5, 1.5, 1, 1), (0, 0, 0)), ((4.5, 1.5, 1, 1), (1, 1, 1))]


def test_a_frame_has_the_size_origin_and_colour_that_are_asked_for():
    assert boxes(tall=3, wide=2, first=0, colour="red") == [((5, 2, 2, 3), (0, 0, 0)), ((5, 2, 2, 3), (1, 0, 0))]
