"""The explorer of one mixer: its options are controls, what they change is seen, and it answers in time."""


import pytest
from speed import Stopwatch
from torch import nn

import stm_lab
from stm_lab import UserError
from stm_lab.explore import mixer_bench
from stm_lab.mixers import registry


@pytest.fixture(scope="module")
def own():
    @stm_lab.register_mixer("bench_mixer")
    class Own(nn.Module):
        """A strip along the row, an even one only if it is told so."""

        def __init__(self, dim, *, kernel=5, strict=True, gain: float = 1.5, name="x"):
            super().__init__()
            if strict and kernel % 2 == 0:
                raise ValueError(f"kernel {kernel} is even")
            self.conv = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim)

        def forward(self, x):
            return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    yield "bench_mixer"
    registry._mixers.pop("bench_mixer", None)


def test_options_are_controls_and_change_what_is_heard(own):
    bench = mixer_bench(own)
    assert bench.state == {"kernel": 5, "strict": True, "row": 7, "column": 7, "side": 14}
    assert "hears 5 of 196" in bench.figure().get_label()
    assert "hears 9 of 196" in bench.figure(kernel=9).get_label()
    assert "hears 5 of 196" in bench.figure(kernel=9, column=0).get_label()
    assert "at most so far away: 4 tokens" in bench.figure(kernel=9).get_label()
    assert "shared / by position / by input: 100% / 0% / 0%" in bench.figure().get_label()
    assert "multiply-adds, 14x14 tokens: no formula" in bench.figure().get_label()


def test_what_a_mixer_refuses_is_said_below_the_picture(own):
    bench = mixer_bench(own)
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


def test_costs_are_the_formulas_and_the_network_is_counted():
    bench = mixer_bench("convnext", dim=64)
    label = bench.figure(kernel=5, side=28).get_label()
    assert f"multiply-adds, 28x28 tokens: {28 * 28 * (2 * 64 * 64 + 25 * 64):,}" in label
    model = stm_lab.build_model("convnext", "nano", kernel=5)
    assert f"parameters of the network, nano: {sum(p.numel() for p in model.parameters()):,}" in label
    assert "hears 25 of 196" in label
    assert "hears 49 of 196" in bench.figure(projections=False).get_label()


@pytest.mark.parametrize("scale", ["nano", "tiny"])
@pytest.mark.parametrize("mixer", ["halo", "swin", "pvt"])
def test_the_network_is_the_designed_one_until_an_option_is_changed(mixer, scale):
    designed = stm_lab.build_model(mixer, scale, device="meta")
    count = sum(parameter.numel() for parameter in designed.parameters())
    assert f"parameters of the network, {scale}: {count:,}" in mixer_bench(mixer, scale=scale).figure().get_label()


@pytest.mark.parametrize("mixer", ["halo", "swin", "pvt", "dcn_v3", "identity", "pooling"])
def test_every_mixer_has_a_bench(mixer):
    assert f"{mixer}: the token in row 7, column 7 hears" in mixer_bench(mixer).figure().get_label()


def test_a_click_on_the_map_chooses_the_token(own):
    bench = mixer_bench(own)
    assert bench._select(0, 13.4, -0.3) == {"row": 0, "column": 13}
    assert bench._select(1, 14, 1e6) == {}


@pytest.mark.soak
def test_it_answers_in_half_a_second():
    bench = mixer_bench("convnext")
    image = bench.widget.children[1]  # the first one loads fonts
    stopwatch = Stopwatch()
    for kernel in (3, 5, 9, 11, 13):
        before = image.png
        stopwatch.time(bench.set, kernel=kernel, row=kernel % 14, side=28)
        assert image.png != before
    assert stopwatch.median < 0.5, stopwatch.seconds


def test_refuses_names_that_are_not_there():
    with pytest.raises(UserError, match="did you mean 'swin'"):
        mixer_bench("swim")
    with pytest.raises(UserError, match="did you mean 'swin'"):
        mixer_bench("swin", beside=["swim"])
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        mixer_bench("swin", scale="tny")


def test_a_mixer_that_hears_nobody_is_told_so(own):
    @stm_lab.register_mixer("deaf_mixer")
    class Deaf(nn.Module):
        def __init__(self, dim):
            super().__init__()

        def forward(self, x):
            return 0 * x

    try:
        _, _, message = mixer_bench("deaf_mixer").widget.children
        assert "deaf_mixer: the token in row 7, column 7 hears nobody" in message.value
    finally:
        registry._mixers.pop("deaf_mixer")
