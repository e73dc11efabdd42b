"""The explorer of designs: any switches, the words and the counts of what they make, and it answers in time."""


import pytest
from speed import Stopwatch

from stm_lab import build_model, designs, measure
from stm_lab.explore import design_steps
from stm_lab.util.errors import UserError


@pytest.fixture(scope="module")
def explorer():
    return design_steps(["swin", "convnext"], scale="nano")


def counts(mixer: str, order: tuple[str, ...]) -> tuple[int, int]:
    last = designs.steps(mixer, "nano", order=order)[-1].design
    cost = measure.cost(build_model(mixer, "nano", design=last, device="meta"))
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
        ("swin", ("head",)),
        ("swin", ("stem", "layer scale", "norm eps")),
        ("convnext", ("branches",)),
        ("convnext", ("downsampling", "projections")),
    ],
)
def test_counts_are_those_of_the_design_that_is_switched_on(explorer, mixer, order):
    names = {name for m in ("swin", "convnext") for name in designs.step_names(m, "nano")}
    state = {name.replace(" ", "_"): name in order for name in names}
    assert now(explorer.figure(mixer=mixer, **state)) == [short(number) for number in counts(mixer, order)]


@pytest.mark.slow
def test_counts_where_depths_and_blocks_change_together():
    """A published scale, with other classes and an odd image: no part's cost may depend on more than it is said to."""
    explorer = design_steps(["convnext"], num_classes=7, image_size=45)
    for order in (("depths",), ("branches", "depths"), ("stem", "stage norms", "projections"), ("stem", "depths")):
        state = {name.replace(" ", "_"): name in order for name in designs.step_names("convnext")}
        last = designs.steps("convnext", order=order)[-1].design
        model = build_model("convnext", "tiny", design=last, device="meta", num_classes=7)
        cost = measure.cost(model, image_size=45)
        assert now(explorer.figure(**state)) == [short(cost.parameters), short(cost.macs)]


def test_words_are_the_designs_and_a_step_that_is_not_there_is_a_dash(explorer):
    label = explorer.figure(mixer="swin", stem=True).get_label()
    assert "stem convs" in label
    assert "downsampling merge" in label
    assert "branches -" in label
    label = explorer.figure(mixer="convnext", projections=True).get_label()
    assert "projections yes" in label
    assert "layer scale -" in label


def test_a_switch_without_a_step_changes_nothing(explorer):
    assert now(explorer.figure(mixer="swin", branches=True)) == now(explorer.figure(mixer="swin"))


def test_all_switches_lead_to_the_unified_design(explorer):
    switches = {name: True for name in explorer.state if name != "mixer"}
    for axes in explorer.figure(**switches).axes[1:]:
        _, middle, last = axes.get_title().split("\n")[1].split("  |  ")
        assert middle.removeprefix("now ") == last.removeprefix("unified ")


@pytest.mark.soak
def test_answers_in_half_a_second(explorer):
    picture = explorer.widget.children[1]  # the first one loads fonts
    stopwatch = Stopwatch()
    for state in ({"downsampling": True}, {"stem": True}, {"head": True}, {"mixer": "convnext"}, {"mixer": "swin"}):
        before = picture.png
        stopwatch.time(explorer.set, **state)
        assert picture.png != before
    assert stopwatch.median < 0.5, stopwatch.seconds
    explorer.set(downsampling=False, stem=False, head=False)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: design_steps([]), "design_steps: no mixers"),
        (lambda: design_steps(["swn"], scale="nano"), "unknown mixer 'swn'; did you mean 'swin'"),
        (lambda: design_steps(["swin"], scale="micro"), "original design: unknown scale 'micro'"),
    ],
)
def test_bad_input_is_one_clear_line(call, says):
    with pytest.raises(UserError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
