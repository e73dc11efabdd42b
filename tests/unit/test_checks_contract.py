"""The contract of mixers: all that are registered keep it, and each way to break it is told with what to mend."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stm_lab import UserError, checks, list_mixers
from stm_lab.checks.contract import SIZES

REACH = {"halo": 9, "swin": 6, "pvt": 10, "pvt_v2": 10, "convnext": 3, "identity": 0, "pooling": 1}


@pytest.mark.parametrize("name", list_mixers())
def test_registered_mixers_keep_it(name, capsys):
    contract = checks.mixer_contract(name, reach=REACH.get(name))
    assert contract.is_kept
    assert contract.reach == REACH.get(name, contract.reach)
    assert len(contract.clauses) == 11
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(line.startswith("✓ ") for line in lines[:-1])
    assert lines[-1].endswith("right, 11 promises kept")


class Good(nn.Module):
    """A depth-wise 3x3 convolution, to be broken below in one place each."""

    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x):
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def macs(self, H, W):
        return H * W * 9 * self.conv.in_channels


class SwallowsOptions(Good):
    def __init__(self, dim, **options):
        super().__init__(dim)


class NeedsASize(Good):
    def __init__(self, dim, *, size):
        super().__init__(dim)


class ChannelsFirst(Good):
    def forward(self, x):
        return self.conv(x.permute(0, 3, 1, 2))


class Sequence(Good):
    def forward(self, x):
        return super().forward(x).flatten(1, 2)


class Shrinks(Good):
    def forward(self, x):
        return super().forward(x)[:, 1:-1, 1:-1]


class Widens(Good):
    def forward(self, x):
        return torch.cat([super().forward(x), x], -1)


class ReturnsNothing(Good):
    def forward(self, x):
        super().forward(x)


class EvenSizesOnly(Good):
    def forward(self, x):
        B, H, W, C = x.shape
        return super().forward(x.view(B, H // 2, 2, W // 2, 2, C).view(B, H, W, C))


class WritesIntoItsInput(Good):
    def forward(self, x):
        with torch.no_grad():
            x[:, 0] = 0
        return super().forward(x)


class MakesFloat32(Good):
    def forward(self, x):
        return super().forward(x) @ torch.eye(x.shape[-1])


class GivesFloat32(Good):
    def forward(self, x):
        return super().forward(x).float()


class NeverUsed(Good):
    def __init__(self, dim):
        super().__init__(dim)
        self.forgotten = nn.Linear(dim, dim)


class Detached(Good):
    def forward(self, x):
        return super().forward(x.detach())


class NoGradients(Good):
    def forward(self, x):
        return super().forward(x).detach()


class Cancels(Good):
    """A bias before a softmax over the positions does nothing."""

    def __init__(self, dim):
        super().__init__(dim)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        weights = (x + self.bias).flatten(1, 2).softmax(1).unflatten(1, x.shape[1:3])
        return super().forward(x) * weights


class ImagesHearEachOther(Good):
    def forward(self, x):
        return super().forward(x) + x.mean(0, keepdim=True)


class DropsAlways(Good):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.5)


class KeepsItsMask(Good):
    """The mask of the first size that came is used for all: it only shows when another size comes first."""

    mask = None

    def forward(self, x):
        if self.mask is None or self.mask.numel() < x.shape[1] * x.shape[2]:
            self.mask = torch.linspace(0, 1, x.shape[1] * x.shape[2], dtype=x.dtype, device=x.device)
        mask = self.mask[: x.shape[1] * x.shape[2]].view(1, *x.shape[1:3], 1)
        return super().forward(x) * mask


class DividesByZero(Good):
    def forward(self, x):
        return super().forward(x / x.norm(dim=-1, keepdim=True))


class CountsFlops(Good):
    def macs(self, H, W):
        return 2 * super().macs(H, W)


class CountsTheBias(Good):
    def macs(self, H, W):
        return super().macs(H, W) + H * W * self.conv.in_channels


class ForgetsAFactor(Good):
    def macs(self, H, W):
        return super().macs(H, W) // 9


class MixesNothing(Good):
    def __init__(self, dim):
        super().__init__(dim)
        self.conv = nn.Conv2d(dim, dim, 1, groups=dim)

    def macs(self, H, W):
        return H * W * self.conv.in_channels


class WrapsRound(Good):
    def forward(self, x):
        return super().forward(x) + x.roll(1, 2)


class HearsNothing(Good):
    def forward(self, x):
        return super().forward(x) - super().forward(x) + super().forward(x * 0)


BROKEN = [
    (SwallowsOptions, "signature", "option 'options' must be keyword-only"),
    (NeedsASize, "signature", "option 'size' needs a default"),
    (ChannelsFirst, "shape", "that is channels first; tokens are (B, H, W, C)"),
    (Sequence, "shape", "that is a sequence; unflatten(1, (H, W))"),
    (Shrinks, "shape", "the map changed its size; pad by kernel // 2"),
    (Widens, "shape", "the number of channels changed; project back to dim"),
    (ReturnsNothing, "shape", "forward gives a NoneType"),
    (EvenSizesOnly, "any size", "a map of 7x10 fails: RuntimeError"),
    (WritesIntoItsInput, "input", "writes into its input, which the residual branch still needs"),
    (MakesFloat32, "shape", "@ torch.eye(x.shape[-1])"),
    (GivesFloat32, "dtype", "float64 became float32; a tensor that you make in forward needs dtype=x.dtype"),
    (NeverUsed, "gradients", "forgotten.weight, forgotten.bias: never used in forward"),
    (Detached, "gradients", "no gradient reaches the input"),
    (NoGradients, "gradients", "the output has no gradient at all"),
    (Cancels, "gradients", "bias: the gradient is 0; it cancels (a bias before a softmax"),
    (ImagesHearEachOther, "batch", "images hear each other: alone, image 0 gives another answer"),
    (DropsAlways, "batch", "two calls give two answers in eval mode"),
    (KeepsItsMask, "memory", "a mask or index is kept from the last size"),
    (DividesByZero, "finite", "tokens of zeros give NaN or infinity: a division without eps"),
    (CountsFlops, "cost", "twice as much; a multiply-add is 1, not 2"),
    (CountsTheBias, "cost", "only products of convolutions and matrices count"),
    (ForgetsAFactor, "cost", "a 9th; is a factor"),
    (MixesNothing, "reach", "nothing is mixed; if that is meant, a control, give reach=0"),
    (HearsNothing, "gradients", "no gradient reaches the input"),
]


@pytest.mark.parametrize(("cls", "clause", "says"), BROKEN, ids=[cls.__name__ for cls, _, _ in BROKEN])
def test_what_breaks_it_is_told(cls, clause, says, capsys):
    with pytest.raises(checks.Wrong) as caught:
        checks.mixer_contract(cls, dim=8)
    assert str(caught.value).startswith(f"{cls.__name__} breaks ")
    assert says in str(caught.value)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("✗"))
    assert line.startswith(f"✗ {clause}: ")
    assert says in line


@pytest.mark.parametrize(
    ("reach", "says"),
    [(0, "1 tokens away are still heard, 0 were promised"), (2, "1 tokens away are heard at most, 2 were promised")],
)
def test_a_promised_reach_is_held(reach, says):
    with pytest.raises(checks.Wrong) as caught:
        checks.mixer_contract(Good, reach=reach, say=False)
    assert says in str(caught.value)


def test_a_roll_without_a_mask_is_heard_far_away():
    with pytest.raises(checks.Wrong, match=r"10 tokens away are still heard, 1 were promised.*a roll without a mask"):
        checks.mixer_contract(WrapsRound, reach=1, say=False)


def test_what_is_kept_is_measured(capsys):
    contract = checks.mixer_contract(Good, dim=8, reach=1, say=False)
    assert capsys.readouterr().out == ""
    assert contract.is_kept
    assert contract.macs == 14 * 14 * 9 * 8
    assert all(f"{height}x{width}" in contract.clauses[2].says for height, width in SIZES)


def test_a_formula_is_optional():
    class NoFormula(Good):
        macs = None

    contract = checks.mixer_contract(NoFormula, dim=8, say=False)
    (says,) = [clause.says for clause in contract.clauses if clause.name == "cost"]
    assert "no macs(H, W), which is optional; the counter finds 14,112" in says


def test_not_a_mixer_at_all():
    with pytest.raises(checks.Wrong, match=r"must be a subclass of torch\.nn\.Module"):
        checks.mixer_contract(len, say=False)
    with pytest.raises(UserError, match="did you mean 'swin'"):
        checks.mixer_contract("swim")
