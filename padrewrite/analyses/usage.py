"""What a convolution's taps read: how many fall on real input, which never do, and where the stride leaves a rest."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

from padrewrite.ops.axis import Slide


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


def valid_weights(axes: tuple[AxisUse, ...]) -> Fraction:
    """Share of the weights that multiply real input, over all outputs ([DLv3] Fig. 4)."""
    return prod((axis.valid for axis in axes), start=Fraction(1))
