"""Resampling: ``F.interpolate`` in all of its modes, per axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

from padrewrite.ops.axis import AxisMap, Bins, Phase

KINDS = ("nearest", "nearest-exact", "linear", "cubic", "area")
CHECKED = 4096
"""Up to this size, the sizes of results are compared with those of exact arithmetic before they are called regular."""


@dataclass(frozen=True)
class Resample(AxisMap):
    """Output ``i`` reads around the input coordinate that belongs to it.

    nearest: ``floor(i*r)``; nearest-exact: ``floor((i + 1/2)*r)``; linear and cubic: the 2 or 4 neighbours of
    ``(i + 1/2)*r - 1/2``, or of ``i*(n-1)/(outputs-1)`` with align_corners; neighbours of weight zero are not read, and
    positions outside are clamped; area: an adaptive pool. ``r`` is inputs per output. With antialias, filters grow with
    r where it is above 1, what is outside is left out, and align_corners changes r only.

    Sizes are those of torch, which multiplies in float64: 100 pixels by 0.29 are 28. Positions are exact, as torch's
    are in float64; in float32 a rounded coordinate may fall short of a whole number, and nearest then reads the pixel
    before (2 to 82: output 41). That happens for 1 to 3 % of all pairs of sizes, to single outputs. As in torch, linear
    copies where the sizes are equal, whatever the factor (2 pixels by 1.3), unless antialiased. Of torch's nearest
    kernels some do so too (images) and some do not (lines, most volumes); here they do not.
    """

    kind: str
    """One of ``KINDS``."""
    count: int | None
    """Size of the result, if it was asked for by size."""
    factor: float | None = None
    """Outputs per input, if it was asked for by scale_factor."""
    align_corners: bool = False
    recompute: bool = False
    """The ratio is that of the sizes though a factor was given (recompute_scale_factor, and always for area)."""
    antialias: bool = False

    def size(self, n: int) -> int:
        if self.count is not None:
            return self.count
        assert self.factor is not None
        return int(n * self.factor)

    def ratio(self, n: int) -> Fraction:
        """Inputs per output."""
        outputs = self.size(n)
        if self.align_corners:
            return Fraction(n - 1, outputs - 1) if outputs > 1 else Fraction(0)
        copied = self.kind == "linear" and outputs == n and not self.antialias
        if self.factor is None or self.recompute or self.kind == "area" or copied:
            return Fraction(n, outputs)
        return 1 / exactly(self.factor)

    def _coordinate(self, i: int, n: int) -> Fraction:
        ratio = self.ratio(n)
        if self.kind == "nearest" or (self.align_corners and not self.antialias):
            return i * ratio
        if self.kind == "nearest-exact":
            return (i + Fraction(1, 2)) * ratio
        return (i + Fraction(1, 2)) * ratio - Fraction(1, 2)

    def taps(self, i: int, n: int) -> Iterable[int]:
        if self.kind == "area":
            return Bins(self.size(n)).taps(i, n)
        at = self._coordinate(i, n)
        if self.antialias:
            return self._filtered(at, max(Fraction(1), self.ratio(n)))
        first = floor(at)
        if self.kind in ("nearest", "nearest-exact") or at == first:
            return (first,)
        return range(first, first + 2) if self.kind == "linear" else range(first - 1, first + 3)

    def _filtered(self, at: Fraction, width: Fraction) -> Iterable[int]:
        """Where a triangle of half this width (a cubic of half twice the width) is not zero."""
        reach = width if self.kind == "linear" else 2 * width
        return (p for p in range(floor(at - reach) + 1, ceil(at + reach)) if abs(p - at) != width)

    def inside(self, position: int, n: int) -> int | None:
        if self.antialias:
            return super().inside(position, n)
        return min(max(position, 0), n - 1)

    @property
    def growth(self) -> tuple[int, int] | None:
        if self.count is not None:
            return 1, 0
        return _growth(self.factor or 1.0)

    def period(self, n: int) -> tuple[int, int] | None:
        ratio = self.ratio(n)
        return (ratio.denominator, ratio.numerator) if ratio else None

    def phase(self, n: int) -> Phase | None:
        """Half-pixel, but for align_corners and nearest modes that round down; None if all outputs read one place.

        For linear without antialias it is exact for each output, else on average over a period of q outputs (scale p/q
        in lowest terms): single outputs of the nearest modes sit up to (q-1)/(2q) input pixels off it.
        """
        ratio = self.ratio(n)
        if not ratio:
            return None
        if self.align_corners and not self.antialias:
            return ratio, Fraction(0)
        half = (ratio - 1) / 2
        # floor(i*p/q) cuts off 0, 1/q, .. (q-1)/q; so does floor((i + 1/2)*p/q) for even p, else 1/2 on average.
        if self.kind == "nearest":
            return ratio, (Fraction(1, ratio.denominator) - 1) / 2
        if self.kind == "nearest-exact" and ratio.numerator % 2 == 0:
            return ratio, half + Fraction(1, 2 * ratio.denominator)
        return ratio, half


@lru_cache(maxsize=1024)
def exactly(factor: float) -> Fraction:
    """The simplest fraction that is ``factor`` in float64: 7/10 for 0.7."""
    simple = Fraction(factor).limit_denominator(1 << 20)
    return simple if float(simple) == factor else Fraction(factor)


@lru_cache(maxsize=1024)
def _growth(factor: float) -> tuple[int, int] | None:
    """(inputs, outputs) that go together; None where rounding breaks the rule for some size up to ``CHECKED``."""
    exact = exactly(factor)
    regular = all(int(n * factor) == n * exact.numerator // exact.denominator for n in range(1, CHECKED + 1))
    return (exact.denominator, exact.numerator) if regular else None
