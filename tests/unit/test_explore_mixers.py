"""Explorers of mixers: whom a token hears, what options change, and what that costs."""

import pytest
from companions import companion
from torch import nn

import stm_lab
from stm_lab import UserError, list_mixers
from stm_lab.explore import mixer_cards
from stm_lab.mixers import registry

mixer_bench = companion("19").mixer_bench


@pytest.fixture(scope="module")
def cards():
    return mixer_cards(left="pooling", right="convnext")


def test_cards_count_whom_a_token_hears(cards):
    label = cards.figure(row=0, column=2).get_label()
    assert "pooling: the token in row 0, column 2 hears 6 of 196" in label
    assert "convnext: the token in row 0, column 2 hears 24 of 196" in label  # rows 0 to 3, columns 0 to 5
    assert "shared / by position / by input 100% / 0% / 0%" in label  # the convolution


def test_cards_give_costs_at_the_side_that_is_chosen(cards):
    assert f"multiply-adds, 28x28 tokens {28 * 28 * (2 * 64 * 64 + 49 * 64):,}" in cards.figure(side=28).get_label()


def test_a_click_on_a_card_chooses_the_token():
    cards = mixer_cards(left="identity", right="convnext")
    cards.click(1, 13.4, -0.3)
    assert (cards.state["row"], cards.state["column"]) == (0, 13)


@pytest.mark.slow
def test_every_mixer_has_a_card(cards):
    for name in list_mixers():
        assert f"{name}: the token in row 7, column 7 hears" in cards.figure(left=name).get_label()


def test_names_that_are_not_there_are_refused():
    for call, says in (
        (lambda: mixer_cards(left="swim", right="swin"), "swin"),
        (lambda: mixer_bench("swim"), "swin"),
        (lambda: mixer_bench("swin", scale="tny"), "tiny"),
    ):
        with pytest.raises(UserError, match=f"did you mean '{says}'"):
            call()


@pytest.fixture
def registered():
    """Registers a class as bench_mixer."""

    def register(cls):
        registry._mixers.pop("bench_mixer", None)
        return stm_lab.register_mixer("bench_mixer")(cls)

    yield register
    registry._mixers.pop("bench_mixer", None)


class Strip(nn.Module):
    """A strip along the row, an even one only if it is told so."""

    def __init__(self, dim, *, kernel=5, strict=True, gain: float = 1.5, name="x"):
        super().__init__()
        if strict and kernel % 2 == 0:
            raise ValueError(f"kernel {kernel} is even")
        self.conv = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim)

    def forward(self, x):
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Deaf(nn.Module):
    def __init__(self, dim):
        super().__init__()

    def forward(self, x):
        return 0 * x


def test_options_are_controls_and_change_what_is_heard(registered):
    registered(Strip)
    bench = mixer_bench("bench_mixer")
    assert bench.state == {"kernel": 5, "strict": True, "row": 7, "column": 7, "side": 14}
    first, wide = bench.figure().get_label(), bench.figure(kernel=9).get_label()
    assert "hears 5 of 196" in first
    assert "shared / by position / by input: 100% / 0% / 0%" in first
    assert "multiply-adds, 14x14 tokens: no formula" in first
    assert "hears 9 of 196" in wide
    assert "farthest of them: 4 tokens away" in wide
    assert "hears 5 of 196" in bench.figure(kernel=9, column=0).get_label()


def test_what_a_mixer_refuses_is_said_below_the_picture(registered):
    registered(Strip)
    bench = mixer_bench("bench_mixer")
    _, image, message = bench.widget.children
    before = image.png
    bench.set(kernel=4)
    assert "bench_mixer with kernel=4, strict=True: kernel 4 is even" in message.value
    assert image.png == before
    bench.set(strict=False)
    assert "14x14 tokens became (14, 15)" in message.value
    bench.set(kernel=3)
    assert message.value == ""
    assert image.png != before


def test_a_mixer_that_is_registered_again_is_another_one(registered):
    registered(Strip)
    assert "hears 5 of 196" in mixer_bench("bench_mixer").figure().get_label()
    registered(Deaf)
    with pytest.raises(UserError, match="bench_mixer: the token in row 7, column 7 hears nobody"):
        mixer_bench("bench_mixer").figure()


def test_costs_are_the_formulas_and_the_network_is_counted():
    bench = mixer_bench("convnext")
    label = bench.figure(kernel=5, side=28).get_label()
    assert f"multiply-adds, 28x28 tokens: {28 * 28 * (2 * 64 * 64 + 25 * 64):,}" in label
    model = stm_lab.build_model("convnext", "nano", kernel=5)
    assert f"parameters of the network, nano: {sum(p.numel() for p in model.parameters()):,}" in label
    assert "hears 25 of 196" in label
    assert "hears 49 of 196" in bench.figure(projections=False).get_label()


@pytest.mark.parametrize(("mixer", "scale"), [("halo", "nano"), ("swin", "tiny"), ("pvt", "tiny")])
def test_the_network_is_the_designed_one_until_an_option_is_changed(mixer, scale):
    designed = stm_lab.build_model(mixer, scale, device="meta")
    count = sum(parameter.numel() for parameter in designed.parameters())
    assert f"parameters of the network, {scale}: {count:,}" in mixer_bench(mixer, scale=scale).figure().get_label()


@pytest.mark.parametrize("mixer", ["pvt", "dcn_v3", "identity"])
def test_every_mixer_has_a_bench(mixer):
    assert f"{mixer}: the token in row 7, column 7 hears" in mixer_bench(mixer).figure().get_label()


def test_a_click_on_the_map_alone_chooses_the_token():
    bench = mixer_bench("identity")
    bench.click(0, 13.4, -0.3)
    bench.click(1, 14, 1e6)
    assert (bench.state["row"], bench.state["column"]) == (0, 13)
