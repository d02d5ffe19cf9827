"""The sliding window: which input positions each output position of a convolution or pool reads.

Per axis, output ``i`` reads the inputs ``i*stride - lo + t*dilation`` for ``t = 0 .. kernel-1``; positions outside
``[0, size)`` are padding. Everything here is integers and exact fractions; no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from padrewrite.formulas import valid_count

Ints = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A window of any rank. Every field holds one integer per spatial axis, first axis first."""

    kernel: Ints
    stride: Ints
    dilation: Ints
    lo: Ints
    """Padding before the first element, in input pixels. Negative crops."""
    hi: Ints
    """Padding after the last element, in input pixels. Negative crops."""

    def __post_init__(self) -> None:
        lengths = {len(field) for field in (self.kernel, self.stride, self.dilation, self.lo, self.hi)}
        if len(lengths) != 1:
            raise ValueError(f"Window fields differ in rank: {self}")

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """((lo, hi), ...) per axis."""
        return tuple(zip(self.lo, self.hi))

    @property
    def span(self) -> Ints:
        """Extent of one window in input pixels: ``dilation*(kernel-1) + 1``."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation))

    def size(self, axis: int, n: int) -> int:
        """Number of outputs along ``axis`` for ``n`` inputs: ``floor((n + lo + hi - span)/stride) + 1``."""
        return (n + self.lo[axis] + self.hi[axis] - self.span[axis]) // self.stride[axis] + 1

    def phase(self, axis: int) -> tuple[Fraction, Fraction]:
        """(scale J, offset phi): output ``i`` is centred on input coordinate ``J*i + phi``."""
        return Fraction(self.stride[axis]), Fraction(self.span[axis] - 1, 2) - self.lo[axis]

    def taps(self, axis: int, i: int) -> list[int]:
        """Input positions that output ``i`` reads, padding included (positions outside the input)."""
        start = i * self.stride[axis] - self.lo[axis]
        return [start + t * self.dilation[axis] for t in range(self.kernel[axis])]

    def counts(self, axis: int, n: int) -> list[int]:
        """How many taps of each output fall on real input, for ``n`` inputs along ``axis``."""
        return valid_count(
            n, self.kernel[axis], self.stride[axis], self.dilation[axis], self.lo[axis], self.hi[axis]
        )

    def rect(self, sizes: Ints) -> tuple[tuple[int, int], ...]:
        """Per axis the half-open range of outputs whose window touches no padding, for inputs of ``sizes``."""
        ranges: list[tuple[int, int]] = []
        for axis, n in enumerate(sizes):
            s, lo, reach = self.stride[axis], self.lo[axis], self.span[axis] - 1
            first = max(0, -(-lo // s))
            last = min(self.size(axis, n), (n - 1 - reach + lo) // s + 1)
            ranges.append((first, max(first, last)))
        return tuple(ranges)
