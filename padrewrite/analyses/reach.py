"""Sets of input positions along one axis, one set per output position: the factors of exact supports.

A set is (start, bits): bit ``t`` stands for input position ``start + t``; the empty set is (0, 0). Sets of whole
axes are interned, so that equal ones are one object, and mapping them through an operation is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

from padrewrite.ops.axis import AxisMap

Set = tuple[int, int]
Rows = tuple[Set, ...]
EMPTY: Set = (0, 0)


def union(sets: Iterable[Set]) -> Set:
    """All positions in any of ``sets``."""
    kept = [s for s in sets if s[1]]
    if len(kept) < 2:
        return kept[0] if kept else EMPTY
    start = min(s for s, _ in kept)
    return start, reduce(lambda bits, s: bits | s[1] << (s[0] - start), kept, 0)


def covers(large: Set, small: Set) -> bool:
    """Whether every position in ``small`` is in ``large``."""
    shift = small[0] - large[0]
    bits = large[1] >> shift if shift >= 0 else large[1] << -shift
    return small[1] & ~bits == 0


def count(positions: Set) -> int:
    """Number of positions."""
    return positions[1].bit_count()


def members(positions: Set) -> list[int]:
    """The positions in ascending order."""
    start, bits = positions
    return [start + t for t in range(bits.bit_length()) if bits >> t & 1]


class Reaches:
    """Makes, interns and maps rows."""

    def __init__(self) -> None:
        self._rows: dict[Rows, Rows] = {}
        self._mapped: dict[tuple[AxisMap, int, int], Rows] = {}
        self._whole: dict[int, Rows] = {}
        self._covers: dict[tuple[int, int], bool] = {}

    def start(self, n: int) -> Rows:
        """Every input position reaches itself."""
        return self._intern(tuple((i, 1) for i in range(n)))

    def through(self, axis: AxisMap, rows: Rows, n: int) -> Rows:
        """What reaches the outputs of ``axis`` when ``rows`` reach its ``n`` inputs."""
        key = (axis, n, id(rows))
        if key not in self._mapped:
            made = tuple(union(rows[p] for p in taps) if len(taps) != 1 else rows[taps[0]] for taps in axis.reads(n))
            self._mapped[key] = self._intern(made)
        return self._mapped[key]

    def whole(self, rows: Rows) -> Rows:
        """What reaches any of the outputs, as one row."""
        if id(rows) not in self._whole:
            self._whole[id(rows)] = self._intern((union(rows),))
        return self._whole[id(rows)]

    def one(self, rows: Rows, index: int) -> Rows:
        """What reaches one output, as one row."""
        return self._intern((rows[index],))

    def cover(self, large: Rows, small: Rows) -> bool:
        """Whether each set of ``large`` covers that of ``small``. Both must be rows made here: they are known by id."""
        if large is small:
            return True
        key = (id(large), id(small))
        if key not in self._covers:
            self._covers[key] = all(map(covers, large, small))
        return self._covers[key]

    def _intern(self, rows: Sequence[Set]) -> Rows:
        made = tuple(rows)
        return self._rows.setdefault(made, made)
