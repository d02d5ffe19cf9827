"""Symmetric convolution as numbers: which input channels are read from which side. No torch.

Along a symmetric axis the kernel of each channel lies one dilation step before or after the other channels' kernels:
half a step off the middle, either way. The 2^axes combinations are the directions; channels are cut into one block
per direction, in order, and so that the shifts cancel ([C2sp] Section 4: four groups in two dimensions).

Source [C2sp]: Wu et al. 2019, *Convolution with even-sized kernels and symmetric padding*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

from padrewrite.ops.window import Ints, Window

ORDERS = ("balanced", "author", "raster")
"""The order of the directions, in two dimensions by the sides that are padded. ``balanced``: bottom right, top left,
bottom left, top right; channels that are left over go to opposite directions first. ``author``: the same order, and one
more channel for each of the first, which is the same layout. ``raster``: top left, top right, bottom left, bottom
right, as some ports have it; two channels left over shift the map then."""


@dataclass(frozen=True)
class Block:
    """Neighbouring input channels of a group that are read from one direction."""

    channels: int
    after: Ints
    """Per axis: 1 if the kernel lies after the middle, 0 if before (or if the axis is not symmetric)."""


@dataclass(frozen=True)
class Symmetry:
    """How a convolution is made symmetric."""

    order: str
    """One of ``ORDERS``."""
    axes: Ints
    """The spatial axes on which it is, ascending."""

    def blocks(self, channels: int, rank: int) -> tuple[Block, ...]:
        """The ``channels`` input channels of each group, cut into blocks; directions without a channel are left out."""
        chosen = directions(self.order, len(self.axes))
        each, left = channels // len(chosen), channels % len(chosen)
        found: list[Block] = []
        for place, sides in enumerate(chosen):
            by_axis = dict(zip(self.axes, sides))
            found.append(Block(each + (place < left), tuple(by_axis.get(a, 0) for a in range(rank))))
        return tuple(block for block in found if block.channels)

    def before(self, channels: int, axis: int) -> Fraction:
        """Share of the channels whose kernel lies before the middle along ``axis``."""
        blocks = self.blocks(channels, max(self.axes) + 1)
        return Fraction(sum(b.channels for b in blocks if not b.after[axis]), channels)


def directions(order: str, axes: int) -> tuple[Ints, ...]:
    """Every choice of 0 (before) or 1 (after) for a number of axes, in order. Opposite ones are neighbours, but in
    ``raster``."""
    if order == "raster" or axes == 0:
        return tuple(product((0, 1), repeat=axes))
    found: list[Ints] = []
    for rest in product((1, 0), repeat=axes - 1):
        found += [(1, *rest), (0, *(1 - side for side in rest))]
    return tuple(found)


def even_axes(kernel: Ints) -> Ints:
    """The axes on which no tap is in the middle."""
    return tuple(a for a, k in enumerate(kernel) if k % 2 == 0)


def reach_of(window: Window, axes: Sequence[int]) -> Window:
    """The window over the channels of all directions: on symmetric axes one tap more."""
    return replace(window, kernel=tuple(k + (a in axes) for a, k in enumerate(window.kernel)))


def window_of(window: Window, axes: Sequence[int], block: Block) -> Window:
    """The window of one block's channels, whose padding is cut by one step on one side of each symmetric axis."""
    step = [d if a in axes else 0 for a, d in enumerate(window.dilation)]
    lo = tuple(p - s * side if s else p for p, s, side in zip(window.lo, step, block.after))
    hi = tuple(p - s * (1 - side) if s else p for p, s, side in zip(window.hi, step, block.after))
    return replace(window, lo=lo, hi=hi)


def same_padding(window: Window, axes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(lo, hi) per axis that keeps the size at stride 1: equal where the axis is symmetric or its kernel odd."""
    totals = [d * (k - (a not in axes)) for a, (k, d) in enumerate(zip(window.kernel, window.dilation))]
    return tuple((total // 2, total - total // 2) for total in totals)


def symmetric_padding(window: Window, axis: int) -> tuple[int, int]:
    """(lo, hi) around the symmetric form of one axis of ``window``, whose output has the size that it has.

    A window that neither grows nor shrinks the map gets d*k/2 on each side: no shift. Otherwise the map has a middle
    between two pixels or on one, and the outputs sit on pixels, in steps of d: the nearest to the middle of the input,
    on the side of its beginning where there are two.
    """
    k, d = window.kernel[axis], window.dilation[axis]
    total = window.lo[axis] + window.hi[axis]
    off = d * (k - 1) - total
    lo = (d * k) // 2 - d * (abs(off) // (2 * d)) * (1 if off > 0 else -1)
    return lo, total + d - lo
