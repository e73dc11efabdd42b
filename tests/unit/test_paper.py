"""What the paper reports: all of it there, costs with it, sources named, and the order that it tells."""

import pytest

from stm_lab import paper


def test_five_mixers_in_four_sizes():
    published = paper.published()
    names = {(one.mixer, one.scale) for one in published}
    mixers, scales = ("halo", "pvt", "swin", "convnext", "dcn_v3"), ("micro", "tiny", "small", "base")
    assert names == {(mixer, scale) for mixer in mixers for scale in scales}
    assert len(published) == 20
    assert all(70 < one.top1 < 90 and 30 < one.mask_ap < one.box_ap < 55 for one in published)
    assert all(one.macs < one.macs_fvcore < 1.05 * one.macs for one in published)


@pytest.mark.parametrize(
    ("mixer", "scale", "top1", "box_ap"), [("halo", "micro", 75.8, 40.3), ("dcn_v3", "base", 84.5, 48.7)]
)
def test_numbers_of_the_table(mixer, scale, top1, box_ap):
    one = next(one for one in paper.published() if (one.mixer, one.scale) == (mixer, scale))
    assert (one.top1, one.box_ap) == (top1, box_ap)


def test_originals_have_sources_and_sizes():
    originals = paper.originals()
    assert {one.source for one in originals} <= set(paper.SOURCES)
    for one in originals:
        unified = paper.counts()[one.mixer, one.scale]["parameters"] / 1e6
        assert 0.65 < one.parameters_m / unified < 1.4, one.model


def test_costs_that_the_paper_leaves_out():
    assert len(paper.counts()) == 25
    assert paper.counts()["dcn_v3", "large"]["parameters"] == 223_339_610
