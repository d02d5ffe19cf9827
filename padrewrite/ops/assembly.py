"""What a convolution layer can be replaced by, or followed by: parallel branches of calls whose results are added.

    y = sum over branches b of  part_n(... part_1(x))          with ``skip``: y = x + that sum

An assembly is numbers only. ``nn.Assembled`` is the module that computes it; its children bear the names used here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

from padrewrite.ops.conv import Conv, Pairs, with_padding
from padrewrite.ops.op import Op
from padrewrite.ops.pool import Pool
from padrewrite.ops.window import Ints, Window


@dataclass(frozen=True)
class Relu(Op):
    """``max(x, 0)``."""

    kind: ClassVar[str] = "relu"


@dataclass(frozen=True)
class Norm(Op):
    """A batch norm with parameters and running statistics, as torch makes it by default."""

    kind: ClassVar[str] = "batch-norm"
    channels: int


Part = Conv | Pool | Norm | Relu


@dataclass(frozen=True)
class Branch:
    """Calls in a row. The n-th is the child ``name.n`` of the layer."""

    kind: ClassVar[str] = "branch"
    name: str
    parts: tuple[Conv | Pool | Norm | Relu, ...]


@dataclass(frozen=True)
class Carry:
    """How the new weights come from those of the layer, by the name of a carrier (``ops.carrying``)."""

    kind: ClassVar[str] = "carry"
    name: str
    method: str = ""
    """Which of the carrier's algorithms."""
    energy: float | None = None
    """Settle the number of middle channels by the weights: the fewest that keep this share of their square sum."""
    max_error: float | None = None
    """Largest relative error of the kernel; more is refused."""
    promised: bool = True
    """The relative error is the contract's; otherwise it is only told, of weights that are a start for training."""


@dataclass(frozen=True)
class Assembly(Op):
    """Branches in the place of one convolution call, whose channels and output size they keep."""

    kind: ClassVar[str] = "assembly"
    branches: tuple[Branch, ...]
    """Without any, and with ``skip``: the input itself."""
    skip: bool = False
    """Add the input itself."""
    carry: Carry | None = None
    """None: the new parameters are initialised as torch does."""
    cheaper: bool = False
    """Refuse it where it would not save both parameters and multiply-accumulates."""
    zero: tuple[str, ...] = ()
    """Children whose parameters begin as zeros."""
    drops: tuple[str, ...] = ()
    """FQNs of batch norms that go with the convolution: they pass their input on."""
    rank: int = 2
    """Spatial axes, where there is no branch to show them."""

    @property
    def parts(self) -> Iterator[tuple[str, Part]]:
        """Every call in execution order, with its child's name below the layer."""
        for branch in self.branches:
            yield from ((f"{branch.name}.{n}", part) for n, part in enumerate(branch.parts))

    @property
    def convs(self) -> dict[str, Conv]:
        """The convolutions by their child's name, in execution order."""
        return {name: part for name, part in self.parts if isinstance(part, Conv)}

    @property
    def window(self) -> Window:
        """The window of the first branch as a whole; of symmetric parts that over all channels; else of one pixel."""
        if not self.branches:
            ones, zeros = (1,) * self.rank, (0,) * self.rank
            return Window(ones, ones, ones, zeros, zeros)
        return _composed([_reach(part) for part in self.branches[0].parts if isinstance(part, (Conv, Pool))])

    @property
    def reach(self) -> Window:
        """As for a ``Conv``."""
        return self.window

    @property
    def padding(self) -> Pairs:
        return self.window.padding

    @property
    def in_channels(self) -> int:
        return next(iter(self.convs.values())).in_channels

    @property
    def out_channels(self) -> int:
        return list(self.convs.values())[-1].out_channels

    @property
    def parameters(self) -> int:
        """Weights and biases, those of batch norms included."""
        weights = sum(c.in_channels // c.groups * c.out_channels * prod(c.kernel) for c in self.convs.values())
        biases = sum(c.out_channels for c in self.convs.values() if c.bias)
        return weights + biases + sum(2 * part.channels for _, part in self.parts if isinstance(part, Norm))

    def macs(self, sizes: Sequence[int]) -> int:
        """Multiply-accumulates of the convolutions for one sample with ``sizes`` pixels per axis."""
        return sum(conv.macs(found) for _, conv, found in self.reads(sizes) if isinstance(conv, Conv))

    def reads(self, sizes: Sequence[int]) -> Iterator[tuple[str, Part, Ints]]:
        """Every call with the sizes, per spatial axis, of what it reads."""
        for branch in self.branches:
            current = tuple(sizes)
            for n, part in enumerate(branch.parts):
                yield f"{branch.name}.{n}", part, current
                if isinstance(part, (Conv, Pool)):
                    current = outputs(part, current)

    def dense(self, old: Conv) -> Conv:
        """The one convolution that the first branch stands for: its window and border, the channels of ``old``."""
        w, modes = self.window, list(old.modes)
        for conv in (part for part in self.branches[0].parts if isinstance(part, Conv)):
            for axis in conv.padded_axes:
                modes[axis] = conv.modes[axis]
        return replace(old, window=w, modes=tuple(modes), bias=False, partial=None)

    def behind(self, explicit: Pairs) -> Assembly | None:
        """The assembly behind pads that add ``explicit`` already; None if they add more than it pads."""
        branches: list[Branch] = []
        for branch in self.branches:
            left, parts = [list(pair) for pair in explicit], list[Part]()
            for part in branch.parts:
                if isinstance(part, Pool) and any(any(pair) for pair in left):
                    return None
                if isinstance(part, Conv):
                    taken = [tuple(min(p, e) for p, e in zip(own, have)) for own, have in zip(part.padding, left)]
                    left = [[e - t for e, t in zip(have, took)] for have, took in zip(left, taken)]
                    pairs = [(own[0] - t[0], own[1] - t[1]) for own, t in zip(part.padding, taken)]
                    part = with_padding(part, pairs)
                parts.append(part)
            if any(any(pair) for pair in left):
                return None
            branches.append(replace(branch, parts=tuple(parts)))
        return replace(self, branches=tuple(branches))

    def spec(self) -> dict[str, Any]:
        """The report's view: the window as a whole, and each branch's kernels and middle channels."""
        w, convs = self.window, list(self.convs.values())
        channels = {"in_channels": self.in_channels, "out_channels": self.out_channels} if convs else {}
        return {
            "kernel_size": w.kernel,
            "stride": w.stride,
            "dilation": w.dilation,
            "padding": w.padding,
            "groups": convs[0].groups if convs else 1,
            **channels,
            "padding_mode": convs[0].padding_mode if convs else "zeros",
            "transposed": False,
            "branches": tuple(tuple(_part_spec(part) for part in branch.parts) for branch in self.branches),
            "skip": self.skip,
        }


@dataclass(frozen=True)
class Attached(Op):
    """A convolution that stays as it is, and an assembly that reads its output: the child ``name`` of its layer."""

    kind: ClassVar[str] = "attached"
    op: Conv
    name: str
    assembly: Assembly

    @property
    def window(self) -> Window:
        return _composed([self.op.reach, self.assembly.window])

    @property
    def reach(self) -> Window:
        """As for a ``Conv``."""
        return self.window

    @property
    def padding(self) -> Pairs:
        return self.window.padding

    def spec(self) -> dict[str, Any]:
        return {**self.op.spec(), "attached": self.assembly.spec()["branches"]}


def outputs(part: Conv | Pool, sizes: Sequence[int]) -> Ints:
    """Sizes of what a part makes, per spatial axis, from those of what it reads."""
    w = _reach(part)
    return tuple(w.size(axis, n) for axis, n in enumerate(sizes))


def _reach(part: Conv | Pool) -> Window:
    """The window over all channels. A last window that may hang over the end is as one that reads padding there."""
    w = part.reach
    if isinstance(part, Conv) or not part.ceil:
        return w
    return replace(w, hi=tuple(hi + s - 1 for hi, s in zip(w.hi, w.stride)))


def _part_spec(part: Part) -> dict[str, Any]:
    if isinstance(part, Conv):
        symmetric = {"symmetric": True} if part.symmetric is not None else {}
        return {"op": "conv", "kernel_size": part.kernel, "out_channels": part.out_channels, **symmetric}
    if isinstance(part, Pool):
        return {"op": "avg" if part.average else "max", "kernel_size": part.kernel}
    return {"op": part.kind}


def _composed(windows: Sequence[Window]) -> Window:
    """One window after the other as one. An axis along which only one of them extends keeps its kernel and dilation."""
    rank = windows[0].rank
    kernel, dilation, stride, lo, hi = [1] * rank, [1] * rank, [1] * rank, [0] * rank, [0] * rank
    for window in windows:
        for axis in range(rank):
            if kernel[axis] == 1 == stride[axis]:
                kernel[axis], dilation[axis] = window.kernel[axis], window.dilation[axis]
            elif window.kernel[axis] > 1:
                reach = dilation[axis] * (kernel[axis] - 1) + (window.span[axis] - 1) * stride[axis]
                kernel[axis], dilation[axis] = reach + 1, 1
            lo[axis] += window.lo[axis] * stride[axis]
            hi[axis] += window.hi[axis] * stride[axis]
            stride[axis] *= window.stride[axis]
    return Window(tuple(kernel), tuple(stride), tuple(dilation), tuple(lo), tuple(hi))
