"""Explorers of whole networks: any switches, the words and the counts of what they make; shapes for any image."""

import pytest
from companions import companion

from stm_lab import UserError, build_model, designs, measure

OWN_07 = companion("07")
OWN_08 = companion("08")
design_steps = OWN_08.design_steps
shape_tracer = OWN_07.shape_tracer



@pytest.fixture(scope="module")
def steps():
    return design_steps(["swin", "convnext"], scale="nano", image_size=45)


def counts(mixer: str, order: tuple[str, ...]) -> tuple[int, int]:
    last = designs.steps(mixer, "nano", order=order)[-1].design
    cost = measure.cost(build_model(mixer, "nano", design=last, device="meta"), image_size=45)
    return cost.parameters, cost.macs


def now(figure) -> list[str]:
    """The totals of "now" in the titles of the two panels."""
    return [axes.get_title().split("now ")[1].split("  |")[0] for axes in figure.axes[1:]]


def short(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.2f} k"


@pytest.mark.parametrize(
    ("mixer", "order"),
    [
        ("swin", ()),
        ("swin", ("stem", "layer scale", "norm eps")),
        ("convnext", ("branches",)),
        ("convnext", ("downsampling", "projections")),
    ],
)
def test_counts_are_those_of_the_design_that_is_switched_on(steps, mixer, order):
    names = {name for m in ("swin", "convnext") for name in designs.step_names(m, "nano")}
    state = {name.replace(" ", "_"): name in order for name in names}
    assert now(steps.figure(mixer=mixer, **state)) == [short(number) for number in counts(mixer, order)]


@pytest.mark.slow
def test_counts_where_depths_and_blocks_change_together():
    """At a published scale; no part's cost may depend on more than it is said to."""
    explorer = design_steps(["convnext"], image_size=45)
    for order in (("branches", "depths"), ("stem", "stage norms", "projections"), ("stem", "depths")):
        state = {name.replace(" ", "_"): name in order for name in designs.step_names("convnext")}
        last = designs.steps("convnext", order=order)[-1].design
        cost = measure.cost(build_model("convnext", "tiny", design=last, device="meta"), image_size=45)
        assert now(explorer.figure(**state)) == [short(cost.parameters), short(cost.macs)]


def test_words_are_the_designs_and_a_step_that_is_not_there_is_a_dash(steps):
    label = steps.figure(mixer="swin", stem=True).get_label()
    assert "stem convs" in label
    assert "downsampling merge" in label
    assert "branches -" in label
    label = steps.figure(mixer="convnext", projections=True).get_label()
    assert "projections yes" in label
    assert "layer scale -" in label


def test_a_switch_without_a_step_changes_nothing(steps):
    assert now(steps.figure(mixer="swin", branches=True)) == now(steps.figure(mixer="swin"))


def test_all_switches_lead_to_the_unified_design(steps):
    switches = {name: True for name in steps.state if name != "mixer"}
    for axes in steps.figure(**switches).axes[1:]:
        _, middle, last = axes.get_title().split("\n")[1].split("  |  ")
        assert middle.removeprefix("now ") == last.removeprefix("unified ")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: design_steps([]), "design_steps: no mixers"),
        (lambda: design_steps(["swn"], scale="nano"), "unknown mixer 'swn'; did you mean 'swin'"),
        (lambda: design_steps(["swin"], scale="micro"), "original design: unknown scale 'micro'"),
    ],
)
def test_names_that_are_not_there_are_refused(call, says):
    with pytest.raises(UserError, match=says):
        call()


@pytest.fixture
def tracer():
    return shape_tracer()


def test_first_picture_is_the_published_count_of_the_first_mixer(tracer):
    label = tracer.figure().get_label()
    assert label.startswith("unified_halo_tiny, an image of 224x224: 31,523,176 parameters, 5,297,630,208 MACs")
    assert "Opened, stage 1: 2 x norm 1 56 x 56 x 96" in label


def test_controls_change_network_and_image(tracer):
    label = tracer.figure(mixer="pvt", scale="nano", height=65, width=130, opened="stage 2").get_label()
    assert "unified_pvt_nano, an image of 65x130" in label
    assert "position embedding 9 x 17 x 32, 2,048 (resized from 8x8)" in label
    assert "(keys 4x8; dropped: 1 row, 1 column)" in label


def test_a_click_opens_a_stage_in_boxes_and_bars(tracer):
    for panel, place, opened in ((0, (4, 0), "stage 3"), (1, (3, 5), "head"), (0, (1.3, 0.2), "stem")):
        tracer.click(panel, *place)
        assert tracer.state["opened"] == opened
    for panel, x in ((0, 0.1), (2, 0.5)):  # the image is no stage; the table says nothing
        tracer.click(panel, x, 0.5)
        assert tracer.state["opened"] == "stem"


def test_a_scale_that_the_mixer_does_not_have_is_said_below_the_picture(tracer):
    _, picture, message = tracer.widget.children
    before = picture.alt
    tracer.set(scale="large")
    assert "halo: " in message.value
    assert "large" in message.value
    assert picture.alt == before
    tracer.set(mixer="dcn_v3")
    assert message.value == ""
    assert "223,339,610 parameters" in picture.alt
