"""What a convolution's taps read: how many fall on real input, which never do, and where the stride leaves a rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import prod

from padrewrite.ops.axis import Slide, Straddle
from padrewrite.ops.conv import Conv
from padrewrite.ops.directions import window_of
from padrewrite.ops.following import axis_of


@dataclass(frozen=True)
class AxisUse:
    """One axis of a window over an input of a given size."""

    window: Slide
    size: int
    per_tap: tuple[Fraction, ...]
    """Share of the outputs for which each tap reads real input."""
    blind: int
    """Outputs whose window lies in the padding as a whole."""
    uneven: int
    """Padding read at the end less padding read at the start: not 0 where the stride leaves a rest."""

    @property
    def valid(self) -> Fraction:
        """Share of all taps of all outputs that read real input."""
        return sum(self.per_tap, Fraction(0)) / len(self.per_tap)

    @property
    def dead(self) -> tuple[int, ...]:
        """Taps that read padding everywhere."""
        return tuple(t for t, share in enumerate(self.per_tap) if share == 0)


@lru_cache(maxsize=4096)
def use_of(window: Slide, size: int) -> AxisUse:
    """Counts the taps of ``window`` on an input of ``size``, in closed form per tap."""
    outputs = window.size(size)
    if isinstance(window, Straddle):
        return _both_sides(window, size)
    shares: list[Fraction] = []
    for t in range(window.kernel):
        # 0 <= i*stride + first < size
        first = t * window.dilation - window.lo
        low = max(0, -(first // window.stride))
        high = min(outputs - 1, (size - 1 - first) // window.stride)
        shares.append(Fraction(max(0, high - low + 1), max(1, outputs)))
    blind = sum(not row for row in window.reads(size)) if max(window.lo, window.hi) > window.reach else 0
    if window.dilation > size:
        blind = sum(not row for row in window.reads(size))
    return AxisUse(window, size, tuple(shares), blind, window.hi - window.unread(size) - window.lo)


def _both_sides(window: Straddle, size: int) -> AxisUse:
    """Of a symmetric axis: a kernel's tap reads one union tap for some channels, the next one for the others."""
    names = ("kernel", "stride", "dilation", "lo", "hi", "mode")
    whole = use_of(Slide(*(getattr(window, name) for name in names)), size)
    pairs = zip(whole.per_tap, whole.per_tap[1:])
    per_tap = tuple(window.before * first + (1 - window.before) * second for first, second in pairs)
    return replace(whole, window=window, per_tap=per_tap)


def valid_weights(op: Conv, sizes: Sequence[int]) -> Fraction:
    """Share of the weights that multiply real input, over all outputs ([DLv3] Fig. 4)."""
    windows, share = [op.window], [Fraction(1)]
    if op.symmetric is not None:
        channels = op.in_channels // op.groups
        blocks = op.symmetric.blocks(channels, op.window.rank)
        windows = [window_of(op.window, op.symmetric.axes, block) for block in blocks]
        share = [Fraction(block.channels, channels) for block in blocks]
    plain = [replace(op, window=window, symmetric=None) for window in windows]
    axes = [[axis_of(one, a) for a in range(one.window.rank)] for one in plain]
    valid = [prod(use_of(a, n).valid for a, n in zip(one, sizes) if isinstance(a, Slide)) for one in axes]
    return sum((part * mine for part, mine in zip(share, valid)), Fraction(0))
