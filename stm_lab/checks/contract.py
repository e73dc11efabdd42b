"""The contract of token mixers (see `mixers.registry`): every promise, tried on random tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stm_lab.checks.core import Wrong, difference, raised, word
from stm_lab.measure import mixing_matrix
from stm_lab.mixers.registry import _check_signature, get_mixer
from stm_lab.util.errors import UserError

SIZES = ((8, 8), (7, 10), (14, 5), (3, 3), (2, 9), (1, 1))  # what stages see of odd images, down to a single token
_COUNTED = ((8, 8), (14, 14), (9, 6))
_MAP = (9, 11)  # on which the reach is measured
_HEARD = 1e-9  # share of the largest contribution; less is rounding
_DEAD = 1e-12  # share of the largest gradient; a gradient that cancels leaves rounding
_OURS = ("/torch/", __file__, "stm_lab/layers.py")  # files whose lines are not the mixer's
_PAD = "pad to whole windows and crop afterwards, and take H and W from x.shape"
_DTYPE = "a tensor that you make in forward needs dtype=x.dtype"
_META = "tensors made in forward need device=x.device, and .item() is no part of a mixer"
_CACHE = "a mask or index is kept from the last size: make it anew from H and W, or keep one for each size"


@dataclass(frozen=True)
class Clause:
    """One promise: its name, whether it is kept, and what was measured or has to be mended."""

    name: str
    is_kept: bool
    says: str

    def __str__(self) -> str:
        return f"{'✓' if self.is_kept else '✗'} {self.name}: {self.says}"


@dataclass(frozen=True)
class Contract:
    """The clauses of a mixer's contract, in the order in which they were tried, and what was measured."""

    mixer: str  # the class's name
    clauses: tuple[Clause, ...]
    reach: int | None  # rows or columns to the farthest token that contributes on a 9 x 11 map; None: not measured
    macs: int | None  # for one image of 14 x 14 tokens, by torch's counter; None: not counted

    @property
    def is_kept(self) -> bool:
        return all(clause.is_kept for clause in self.clauses)


class _Broken(Exception):
    """A broken promise: what has to be mended."""


def mixer_contract(
    mixer: type[nn.Module] | str, *, dim: int = 16, reach: int | None = None, seed: int = 0, say: bool = True
) -> Contract:
    """Try every promise that a mixer makes to backbone, training and measures; each is printed as it is tried.

    The mixer is `M(dim)` in float64 and eval mode. Its parameters are drawn at random, so that no zero at the start
    hides a part of it.

    Args:
        mixer: the class, or a registered name.
        dim: channels; the heads of a mixer must divide it.
        reach: how many tokens away the farthest token that contributes must be; 0 for a control that mixes nothing.
            None: any reach but 0 is right.
        seed: of parameters and tokens.
        say: print.

    Raises:
        Wrong: a promise is broken; the message says what to mend for each.
        UserError: a name that is not registered.
    """
    cls = get_mixer(mixer) if isinstance(mixer, str) else mixer
    name = getattr(cls, "__name__", repr(cls))
    trial = _Trial(cls, dim, reach, seed)
    clauses = []
    for clause in trial.clauses():
        clauses.append(clause)
        if say:
            print(clause)
    found = Contract(name, tuple(clauses), trial.heard, trial.macs)
    broken = [clause for clause in clauses if not clause.is_kept]
    if broken:
        told = "; ".join(f"{clause.name}: {clause.says}" for clause in broken)
        raise Wrong(f"{name} breaks {len(broken)} of {len(clauses)} promises. {told}")
    if say:
        print(f"{name}: right, {len(clauses)} promises kept")
    return found


class _Trial:
    """A mixer on trial, and what was measured of it. Each promise returns what it found, or raises `_Broken`."""

    def __init__(self, cls: type[nn.Module], dim: int, reach: int | None, seed: int):
        self.cls, self.dim, self.reach, self.seed = cls, dim, reach, seed
        self.heard: int | None = None
        self.macs: int | None = None

    def clauses(self) -> Iterator[Clause]:
        """Each promise, tried. All others need signature and shape: if these are broken, the others are not tried."""
        promises = {
            "signature": self.signature,
            "shape": self.shape,
            "any size": self.any_size,
            "input": self.input_is_kept,
            "dtype": self.dtype,
            "gradients": self.gradients,
            "batch": self.batch,
            "memory": self.memory,
            "finite": self.finite,
            "cost": self.cost,
            "reach": self.mixing,
        }
        for name, promise in promises.items():
            clause = _tried(name, promise)
            yield clause
            if not clause.is_kept and name in ("signature", "shape"):
                return

    def make(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """M(dim) in eval mode, with parameters large enough that every part of it matters."""
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seed)
            mixer = self.cls(self.dim).to(dtype).eval()
        with torch.no_grad():
            for parameter in mixer.parameters():
                std = 0.5 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return mixer

    def tokens(self, count: int, height: int, width: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(count, height, width, self.dim, generator=generator, dtype=torch.float64)

    def signature(self) -> str:
        _check_signature(getattr(self.cls, "__name__", "mixer"), self.cls)
        mixer = self.make()
        count = sum(parameter.numel() for parameter in mixer.parameters())
        return f"made by {self.cls.__name__}({self.dim}), {count:,} parameters"

    def shape(self) -> str:
        x = self.tokens(2, 8, 6)
        out = self.make()(x)
        self._check_shape(out, x)
        return f"{tuple(x.shape)} -> {tuple(out.shape)}"

    def _check_shape(self, out: object, x: Tensor) -> None:
        if not isinstance(out, Tensor):
            raise _Broken(f"forward gives a {type(out).__name__}, should give a tensor; is the `return` missing?")
        if out.shape == x.shape:
            return
        if out.shape == x.permute(0, 3, 1, 2).shape:
            hint = "that is channels first; tokens are (B, H, W, C), permute(0, 2, 3, 1) at the end"
        elif out.shape == x.flatten(1, 2).shape:
            hint = "that is a sequence; unflatten(1, (H, W)) at the end gives the map"
        elif out.ndim == 4 and out.shape[1] != x.shape[1]:
            hint = "the map changed its size; pad by kernel // 2, or crop what you padded"
        elif out.ndim == 4 and out.shape[3] != x.shape[3]:
            hint = "the number of channels changed; project back to dim"
        else:
            hint = "the output must have the input's shape"
        raise _Broken(f"{tuple(x.shape)} became {tuple(out.shape)}: {hint}")

    def any_size(self) -> str:
        mixer = self.make()
        for height, width in SIZES:
            x = self.tokens(1, height, width)
            with _told_if_it_fails(f"a map of {height}x{width} fails", _PAD):
                out = mixer(x)
            self._check_shape(out, x)
        return ", ".join(f"{height}x{width}" for height, width in SIZES)

    def input_is_kept(self) -> str:
        mixer, x = self.make(), self.tokens(1, 7, 10)
        before = x.clone()
        mixer(x)
        if not torch.equal(x, before):
            raise _Broken("the mixer writes into its input, which the residual branch still needs; work on a copy")
        return "left as it was"

    def dtype(self) -> str:
        for dtype in (torch.float64, torch.float32):
            with _told_if_it_fails(f"{word(dtype)} fails", f"{_DTYPE} and device=x.device, or register_buffer"):
                out = self.make(dtype)(self.tokens(1, 7, 10).to(dtype))
            if out.dtype != dtype:
                raise _Broken(f"{word(dtype)} became {word(out.dtype)}; {_DTYPE}")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = self.make(torch.float32)(self.tokens(1, 7, 10).float())
        if not bool(out.isfinite().all()):
            raise _Broken("under autocast the output is not finite: use -inf or finfo(dtype).min for masks, not -1e9")
        return "float64, float32, and bfloat16 by autocast"

    def gradients(self) -> str:
        mixer, x = self.make(), self.tokens(2, 8, 8).requires_grad_()
        out = mixer(x)
        if not out.requires_grad:
            raise _Broken("the output has no gradient at all; is there a no_grad, .detach() or .data in forward?")
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).cos()
        named = dict(mixer.named_parameters())
        grads = torch.autograd.grad((out * weights).sum(), [x, *named.values()], allow_unused=True)
        if grads[0] is None or not bool(grads[0].any()):
            raise _Broken("no gradient reaches the input; is there a .detach() on it, or an argmax?")
        unused = [name for name, grad in zip(named, grads[1:], strict=True) if grad is None]
        if unused:
            raise _Broken(f"{', '.join(unused)}: never used in forward, so never trained; use it or leave it out")
        slopes = [float(grad.abs().max()) for grad in grads[1:]]
        dead = [name for name, slope in zip(named, slopes, strict=True) if slope <= _DEAD * max(slopes)]
        if dead:
            raise _Broken(
                f"{', '.join(dead)}: the gradient is 0; it cancels (a bias before a softmax or a norm), or rounding, "
                "clamping or argmax follows"
            )
        return f"all {len(named)} parameters, and the input"

    def batch(self) -> str:
        mixer, x = self.make(), self.tokens(3, 7, 10)
        with torch.no_grad():
            together, again = mixer(x), mixer(x)
            if difference(again, together):
                raise _Broken("two calls give two answers in eval mode; use self.training, or nn.Dropout, for chance")
            for i in range(3):
                if problem := difference(mixer(x[i : i + 1])[0], together[i]):
                    raise _Broken(
                        f"images hear each other: alone, image {i} gives another answer ({problem}); a reshape that "
                        "mixes the batch axis with rows, or a mean over axis 0"
                    )
        return "images do not hear each other"

    def memory(self) -> str:
        """Compare one mixer that sees many sizes with one made anew for each."""
        used = self.make()
        with torch.no_grad():
            for height, width in ((7, 10), (3, 3), (12, 12), (10, 7), (7, 10)):
                x, where = self.tokens(2, height, width), f"a map of {height}x{width}"
                expected = self.make()(x)
                with _told_if_it_fails(f"{where} fails after other sizes", _CACHE):
                    found = used(x)
                if problem := difference(found, expected):
                    raise _Broken(f"{where} gives another answer after other sizes ({problem}); {_CACHE}")
        return "no dependence on the last size"

    def finite(self) -> str:
        mixer = self.make()
        with torch.no_grad():
            for what, x in (("zeros", torch.zeros(1, 7, 10, self.dim).double()), ("1000", self.tokens(1, 7, 10) * 1e3)):
                if not bool(mixer(x).isfinite().all()):
                    raise _Broken(
                        f"tokens of {what} give NaN or infinity: a division without eps, an exp without softmax's "
                        "maximum, or a row of keys that are all masked"
                    )
        return "also for zeros and for large tokens"

    def cost(self) -> str:
        """Compare `macs(H, W)` with torch's counter, on the meta device: a tensor made on the CPU fails there."""
        with _told_if_it_fails("it cannot be traced without storage", _META):
            counted = {size: self._counted(*size) for size in _COUNTED}
        self.macs = counted[14, 14]
        formula = getattr(self.make(), "macs", None)
        if formula is None:
            return f"no macs(H, W), which is optional; the counter finds {self.macs:,} multiply-adds for 14x14 tokens"
        for (height, width), right in counted.items():
            mine = formula(height, width)
            if mine != right:
                raise _Broken(f"macs({height}, {width}) = {mine:,}, the counter finds {right:,}: {_off(mine, right)}")
        return f"macs(14, 14) = {self.macs:,}, as counted"

    def _counted(self, height: int, width: int) -> int:
        with torch.device("meta"):
            mixer, x = self.cls(self.dim).eval(), torch.empty(1, height, width, self.dim)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            mixer(x)
        return counter.get_total_flops() // 2

    def mixing(self) -> str:
        """Find the tokens that contribute, by products of the Jacobian with random signs: its zeros stay zeros."""
        found = mixing_matrix(self.make(), self.tokens(1, *_MAP), probes=2, seed=self.seed)
        matrix, (height, width) = torch.from_numpy(found.matrix[0]), _MAP
        heard = matrix > _HEARD * matrix.max()
        rows, columns = torch.arange(height * width) // width, torch.arange(height * width) % width
        away = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
        self.heard = int(away[heard].max())
        own = f"about {100 * found.own:.0f}% from itself"
        if self.reach is None and self.heard == 0:
            raise _Broken("no token hears another: nothing is mixed; if that is meant, a control, give reach=0")
        if self.reach is not None and self.heard > self.reach:
            raise _Broken(
                f"{self.heard} tokens away are still heard, {self.reach} were promised; is the kernel, window or mask "
                "too wide, or a roll without a mask?"
            )
        if self.reach is not None and self.heard < min(self.reach, max(_MAP) - 1):
            raise _Broken(f"{self.heard} tokens away are heard at most, {self.reach} were promised; what is left out?")
        return f"{self.heard} tokens to each side at most on a map of {height}x{width}, {own}"


@contextmanager
def _told_if_it_fails(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Broken(f"{what}: {raised(error, *_OURS)}; {hint}") from error


def _tried(name: str, promise: Callable[[], str]) -> Clause:
    try:
        return Clause(name, True, promise())
    except (_Broken, UserError) as broken:
        return Clause(name, False, str(broken))
    except Exception as error:
        return Clause(name, False, f"it fails: {raised(error, *_OURS)}")


def _off(mine: int, right: int) -> str:
    if right and mine == 2 * right:
        return "twice as much; a multiply-add is 1, not 2"
    if right and mine and mine % right == 0:
        return f"{mine // right} times as much"
    if mine and right % mine == 0:
        return f"a {right // mine}th; is a factor (heads, both projections, H * W) missing?"
    rule = "only products of convolutions and matrices count, padding among them, and no bias, softmax or norm"
    return f"{mine - right:+,}; {rule}"
