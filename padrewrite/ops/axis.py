"""How one axis of a result reads one axis of an operand: sizes, positions, and which inputs each output reads.

Every spatial operation acts on its axes one at a time, so a handful of maps describes them all. A map knows its
``size``, where its outputs sit (``phase``), and ``reads``: the exact input positions that each output reads. Integers
and fractions only; no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

Rows = tuple[tuple[int, ...], ...]
Phase = tuple[Fraction, Fraction]
"""(scale J, offset phi): output ``i`` is centred on input coordinate ``J*i + phi``."""


@dataclass(frozen=True)
class AxisMap(ABC):
    """One axis of one operation."""

    @abstractmethod
    def size(self, n: int) -> int:
        """Number of outputs for ``n`` inputs."""

    @abstractmethod
    def taps(self, i: int, n: int) -> Iterable[int]:
        """Positions that output ``i`` reads as if the input had no end; what lies outside ``[0, n)`` is padding."""

    @property
    @abstractmethod
    def growth(self) -> tuple[int, int] | None:
        """(a, b) with ``size(n + a) == size(n) + b`` for all but small ``n``; None if no such numbers exist."""

    @property
    def settled(self) -> int:
        """From this ``n`` on (or earlier) ``growth`` holds, of all ``n`` that torch accepts."""
        return 0

    def period(self, n: int) -> tuple[int, int] | None:
        """(a, b): output ``i + a`` reads what output ``i`` reads, moved by ``b``; None if there are none."""
        return None

    def phase(self, n: int) -> Phase | None:
        """Where outputs sit on the input, for ``n`` inputs; None if they have no place of their own."""
        return None

    def inside(self, position: int, n: int) -> int | None:
        """The real input that stands at ``position``, which may lie outside ``[0, n)``; None for padding."""
        return position if 0 <= position < n else None

    def reads(self, n: int) -> Rows:
        """Per output the real inputs it reads, in ascending order."""
        return _reads(self, n)

    def made_up(self, n: int) -> tuple[int, ...]:
        """Per output the number of taps that read a made-up value (padding with a constant)."""
        return (0,) * self.size(n)


@lru_cache(maxsize=1024)
def _reads(axis: AxisMap, n: int) -> Rows:
    rows: list[tuple[int, ...]] = []
    for i in range(axis.size(n)):
        found = {axis.inside(p, n) for p in axis.taps(i, n)}
        rows.append(tuple(sorted(p for p in found if p is not None)))
    return tuple(rows)


@dataclass(frozen=True)
class Same(AxisMap):
    """Output ``i`` reads input ``i``."""

    def size(self, n: int) -> int:
        return n

    def taps(self, i: int, n: int) -> Iterable[int]:
        return (i,)

    @property
    def growth(self) -> tuple[int, int]:
        return 1, 1

    def period(self, n: int) -> tuple[int, int]:
        return 1, 1

    def phase(self, n: int) -> Phase:
        return Fraction(1), Fraction(0)


@dataclass(frozen=True)
class Slide(AxisMap):
    """A sliding window: output ``i`` reads ``i*stride - lo + t*dilation`` for ``t = 0 .. kernel-1``."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    lo: int = 0
    hi: int = 0
    mode: str = "zeros"
    """zeros or constant (made-up values), ignored (padding takes no part), partial, partial-sqrt, reflect, replicate,
    circular."""
    ceil: bool = False
    """A last window may hang over the end, as pools with ceil_mode allow."""

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1)

    def size(self, n: int) -> int:
        room = n + self.lo + self.hi - self.reach - 1
        if not self.ceil:
            return room // self.stride + 1
        outputs = -(-room // self.stride) + 1
        return outputs - 1 if (outputs - 1) * self.stride >= n + self.lo else outputs

    def taps(self, i: int, n: int) -> Iterable[int]:
        start = i * self.stride - self.lo
        return range(start, start + self.reach + 1, self.dilation)

    @property
    def growth(self) -> tuple[int, int]:
        return self.stride, 1

    def period(self, n: int) -> tuple[int, int]:
        return 1, self.stride

    def phase(self, n: int) -> Phase:
        return Fraction(self.stride), Fraction(self.reach, 2) - self.lo

    def inside(self, position: int, n: int) -> int | None:
        if 0 <= position < n:
            return position
        if self.mode == "reflect":
            position = -position if position < 0 else 2 * (n - 1) - position
        elif self.mode == "replicate":
            position = min(max(position, 0), n - 1)
        elif self.mode == "circular":
            position %= n
        else:
            return None
        return position if 0 <= position < n else None

    def made_up(self, n: int) -> tuple[int, ...]:
        if self.mode not in ("zeros", "constant"):
            return (0,) * self.size(n)
        # Past the padding of a window that hangs over the end there is nothing at all.
        last = n + self.hi
        return tuple(sum(not 0 <= p < n and p < last for p in self.taps(i, n)) for i in range(self.size(n)))

    def unread(self, n: int) -> int:
        """Positions at the padded end that no window reaches; negative if the last window hangs over the end."""
        return n + self.lo + self.hi - ((self.size(n) - 1) * self.stride + self.reach + 1)


@dataclass(frozen=True)
class Straddle(Slide):
    """A symmetric axis: ``kernel`` counts the taps of all channels, of which each channel's window lacks one.

    It lacks the last for the channels that are read from before, the first for the others.
    """

    before: Fraction = Fraction(1, 2)
    """Share of the channels that are read from before."""
    side: int | None = None
    """0 or 1: only the channels read from before, or after, are meant. Where the outputs sit is told of all."""

    def taps(self, i: int, n: int) -> Iterable[int]:
        found = super().taps(i, n)
        return found if self.side is None else list(found)[self.side : self.kernel - 1 + self.side]

    def phase(self, n: int) -> Phase:
        """The mean over all channels, each a half of a step off the middle."""
        scale, middle = super().phase(n)
        return scale, middle + (1 - 2 * self.before) * Fraction(self.dilation, 2)

    def made_up(self, n: int) -> tuple[int, ...]:
        """Taps on made-up values, of the window that has more of them."""
        if self.side is None:
            sides = (replace(self, side=side).made_up(n) for side in (0, 1))
            return tuple(map(max, *sides))
        return super().made_up(n)


@dataclass(frozen=True)
class Spread(AxisMap):
    """A transposed convolution: input ``i`` is added to the outputs ``i*stride - lo + t*dilation``."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    lo: int = 0
    hi: int = 0
    extra: int = 0
    """output_padding: outputs appended at the end."""

    def size(self, n: int) -> int:
        return (n - 1) * self.stride - self.lo - self.hi + self.dilation * (self.kernel - 1) + 1 + self.extra

    def taps(self, i: int, n: int) -> Iterable[int]:
        offsets = (i + self.lo - t * self.dilation for t in range(self.kernel))
        return (o // self.stride for o in offsets if o % self.stride == 0)

    @property
    def growth(self) -> tuple[int, int]:
        return 1, self.stride

    def period(self, n: int) -> tuple[int, int]:
        return self.stride, 1

    def phase(self, n: int) -> Phase:
        centre = Fraction(self.dilation * (self.kernel - 1), 2)
        return Fraction(1, self.stride), (self.lo - centre) / self.stride


@dataclass(frozen=True)
class Pick(AxisMap):
    """A slice ``start:stop:step`` with a positive step, as Python reads it."""

    start: int | None = None
    stop: int | None = None
    step: int = 1

    def _range(self, n: int) -> range:
        return range(*slice(self.start, self.stop, self.step).indices(n))

    def stop_at(self, n: int) -> int:
        """The first position behind what may be read."""
        return self._range(n).stop

    def size(self, n: int) -> int:
        return len(self._range(n))

    def taps(self, i: int, n: int) -> Iterable[int]:
        return (self._range(n).start + i * self.step,)

    @property
    def growth(self) -> tuple[int, int]:
        from_end = self.start is not None and self.start < 0
        to_end = self.stop is None or self.stop < 0
        return (self.step, 1) if to_end and not from_end else (1, 0)

    @property
    def settled(self) -> int:
        return abs(self.start or 0) + abs(self.stop or 0)

    def period(self, n: int) -> tuple[int, int]:
        return 1, self.step

    def phase(self, n: int) -> Phase:
        return Fraction(self.step), Fraction(self._range(n).start)


@dataclass(frozen=True)
class Cut(AxisMap):
    """Piece ``index`` of an axis cut into ``pieces`` (chunk) or pieces of ``width`` (split); the last is the rest."""

    index: int
    pieces: int | None = None
    width: int | None = None

    def _range(self, n: int) -> range:
        width = self.width or -(-n // (self.pieces or 1))
        return range(n)[self.index * width : (self.index + 1) * width]

    def stop_at(self, n: int) -> int:
        """The first position behind what is read."""
        return self._range(n).stop

    def size(self, n: int) -> int:
        return len(self._range(n))

    def taps(self, i: int, n: int) -> Iterable[int]:
        return (self._range(n).start + i,)

    @property
    def growth(self) -> tuple[int, int]:
        return (1, 0) if self.width else (self.pieces or 1, 1)

    @property
    def settled(self) -> int:
        """Where the piece is full; of ``pieces`` each is a whole one of its kind from ``pieces**2`` on."""
        return self.width * (self.index + 1) if self.width else (self.pieces or 1) ** 2

    def period(self, n: int) -> tuple[int, int]:
        return 1, 1

    def phase(self, n: int) -> Phase:
        return Fraction(1), Fraction(self._range(n).start)


@dataclass(frozen=True)
class Repeat(AxisMap):
    """Every input stands ``times`` times in a row: pixel shuffle, repeat_interleave."""

    times: int

    def size(self, n: int) -> int:
        return n * self.times

    def taps(self, i: int, n: int) -> Iterable[int]:
        return (i // self.times,)

    @property
    def growth(self) -> tuple[int, int]:
        return 1, self.times

    def period(self, n: int) -> tuple[int, int]:
        return self.times, 1

    def phase(self, n: int) -> Phase:
        scale = Fraction(1, self.times)
        return scale, (scale - 1) / 2


@dataclass(frozen=True)
class Shift(AxisMap):
    """One operand of a concatenation along this axis: it begins at ``offset`` of ``total`` outputs."""

    offset: int
    total: int
    """Size of the result, for inputs of the recorded size."""

    def size(self, n: int) -> int:
        return self.total

    def taps(self, i: int, n: int) -> Iterable[int]:
        return (i - self.offset,)

    @property
    def growth(self) -> None:
        return None

    def period(self, n: int) -> tuple[int, int]:
        return 1, 1

    def phase(self, n: int) -> Phase:
        return Fraction(1), Fraction(-self.offset)


@dataclass(frozen=True)
class Roll(AxisMap):
    """A cyclic shift towards the end."""

    by: int

    def size(self, n: int) -> int:
        return n

    def taps(self, i: int, n: int) -> Iterable[int]:
        return ((i - self.by) % n,)

    @property
    def growth(self) -> tuple[int, int]:
        return 1, 1

    def phase(self, n: int) -> Phase:
        """That of the larger part, which does not come round from the other end."""
        return Fraction(1), Fraction(n * round(Fraction(self.by, max(n, 1))) - self.by)


@dataclass(frozen=True)
class Stretch(AxisMap):
    """A broadcast: all ``count`` outputs read the one input."""

    count: int

    def size(self, n: int) -> int:
        return self.count

    def taps(self, i: int, n: int) -> Iterable[int]:
        return (0,)

    @property
    def growth(self) -> None:
        return None


@dataclass(frozen=True)
class Whole(AxisMap):
    """Every output reads every input: a global pool, a reduction that keeps its dimension."""

    count: int = 1

    def size(self, n: int) -> int:
        return self.count

    def taps(self, i: int, n: int) -> Iterable[int]:
        return range(n)

    @property
    def growth(self) -> tuple[int, int]:
        return 1, 0


@dataclass(frozen=True)
class Bins(AxisMap):
    """An adaptive pool: output ``i`` reads ``floor(i*n/count) .. ceil((i+1)*n/count) - 1``."""

    count: int

    def size(self, n: int) -> int:
        return self.count

    def taps(self, i: int, n: int) -> Iterable[int]:
        return range(i * n // self.count, -(-(i + 1) * n // self.count))

    @property
    def growth(self) -> tuple[int, int]:
        return 1, 0

    def period(self, n: int) -> tuple[int, int]:
        ratio = Fraction(n, self.count)
        return ratio.denominator, ratio.numerator

    def phase(self, n: int) -> Phase:
        """On average over a period, where bins differ in width: the bins mirror each other."""
        width = Fraction(n, self.count)
        return width, (width - 1) / 2
