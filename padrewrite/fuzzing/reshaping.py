"""Steps without weights that move, resize or combine values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from padrewrite.fuzzing.layers import Ints, Layer, Pairs, Shape, flat, padded
from padrewrite.fuzzing.steps import Step

if TYPE_CHECKING:
    from padrewrite.fuzzing.networks import Net


@dataclass(frozen=True, repr=False)
class Pad(Step):
    """``F.pad``; negative amounts crop."""

    kind: ClassVar[str] = "pad"
    amounts: Pairs
    """(lo, hi) of the last axes."""
    mode: str = "constant"
    value: float = 0.0

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        return padded(shapes[0], self.amounts, self.mode)

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        if self.mode != "constant":
            return F.pad(read[0], flat(self.amounts), self.mode)
        return F.pad(read[0], flat(self.amounts), value=self.value)


@dataclass(frozen=True, repr=False)
class PadTo(Step):
    """``F.pad`` at the end of every axis up to a multiple, by a forward that first asks whether any is missing."""

    kind: ClassVar[str] = "pad_to"
    multiple: int

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        channels, *sizes = shapes[0]
        return (channels, *(n + -n % self.multiple for n in sizes))

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        missing = [-n % self.multiple for n in read[0].shape[2:]]
        return F.pad(read[0], flat(tuple((0, amount) for amount in missing))) if any(missing) else read[0] + 0


@dataclass(frozen=True, repr=False)
class Crop(Step):
    """Slicing."""

    kind: ClassVar[str] = "crop"
    slices: tuple[tuple[int | None, int | None, int], ...]
    """(start, stop, step) per axis."""

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        channels, *sizes = shapes[0]
        found = [len(range(*slice(*bounds).indices(n))) for n, bounds in zip(sizes, self.slices)]
        return (channels, *found) if min(found) > 0 else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        return read[0][(slice(None), slice(None), *(slice(*bounds) for bounds in self.slices))]


@dataclass(frozen=True, repr=False)
class Interpolate(Step):
    """``F.interpolate``: to a size, by factors, or (with two reads) to the second value's size."""

    kind: ClassVar[str] = "interpolate"
    mode: str
    size: Ints | None = None
    factors: tuple[float, ...] | None = None
    align_corners: bool | None = None
    recompute: bool | None = None

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        channels, *sizes = shapes[0]
        if len(shapes) == 2:
            return channels, *shapes[1][1:]
        if self.factors is None:
            return None if self.size is None else (channels, *self.size)
        found = [math.floor(n * factor) for n, factor in zip(sizes, self.factors)]
        return (channels, *found) if min(found) > 0 else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        size = read[1].shape[2:] if len(read) == 2 else self.size
        return F.interpolate(
            read[0],
            size=size,  # pyright: ignore[reportArgumentType]
            scale_factor=self.factors,  # pyright: ignore[reportArgumentType]
            mode=self.mode,
            align_corners=self.align_corners,
            recompute_scale_factor=self.recompute,
        )


@dataclass(frozen=True, repr=False)
class Shuffle(Step):
    """``F.pixel_shuffle``, or its inverse."""

    kind: ClassVar[str] = "pixel_shuffle"
    factor: int
    inverse: bool = False

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        channels, *sizes = shapes[0]
        r = self.factor
        if self.inverse:
            fits = all(n % r == 0 for n in sizes)
            return (channels * r * r, *(n // r for n in sizes)) if fits else None
        return (channels // (r * r), *(n * r for n in sizes)) if channels % (r * r) == 0 else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        return (F.pixel_unshuffle if self.inverse else F.pixel_shuffle)(read[0], self.factor)


POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "double": lambda x: x * 2,
    "shift": lambda x: x + 0.5,
    "relu": torch.relu,
    "relu_": torch.relu_,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "clamp": lambda x: x.clamp(-1, 1),
    "abs": torch.abs,
}
LINEAR = ("double", "shift")
"""The first of `POINTWISE`: they keep a network affine."""


@dataclass(frozen=True, repr=False)
class Pointwise(Step):
    """A function of each number on its own."""

    kind: ClassVar[str] = "pointwise"
    function: str
    """One of `POINTWISE`; ``relu_`` writes into the value it reads."""

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        return shapes[0]

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        return POINTWISE[self.function](read[0])


MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": torch.sub,
    "mul": lambda a, b: a * b,
    "maximum": torch.maximum,
}


@dataclass(frozen=True, repr=False)
class Merge(Step):
    """Two or more values in one; a value of one pixel or channel is spread over the other."""

    kind: ClassVar[str] = "merge"
    how: str
    """One of `MERGES`, or cat."""

    def output(self, shapes: Sequence[Shape], layers: Sequence[Layer]) -> Shape | None:
        if self.how == "cat":
            same = len({shape[1:] for shape in shapes}) == 1
            return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if same else None
        a, b = shapes
        fits = all(m == n or 1 in (m, n) for m, n in zip(a, b))
        return tuple(n if m == 1 else m for m, n in zip(a, b)) if fits else None

    def run(self, read: Sequence[Tensor], net: Net) -> Tensor:
        return torch.cat(list(read), 1) if self.how == "cat" else MERGES[self.how](*read)
