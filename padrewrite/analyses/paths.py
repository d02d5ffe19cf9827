"""At which input sizes a forward takes the path that was recorded, where it branches on sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import lcm
from typing import Any

from padrewrite.analyses.layout import Origin
from padrewrite.analyses.size_forms import FAR, MOST_RESIDUES, SMALLEST, least_period, period_of
from padrewrite.ops.sizes import print_size, size_name, value_of


class Paths:
    """The conditions of a recording; all must hold. Those that compare sizes with each other are only told."""

    def __init__(self, conditions: Sequence[Any]) -> None:
        self.conditions = tuple(conditions)

    def takes(self, axis: Origin, size: int) -> bool:
        """Whether inputs of this size along this dimension may take the recorded path."""
        return all(_holds(condition, size) for condition in self._about(axis))

    def residues(self, axis: Origin) -> tuple[int, tuple[int, ...]]:
        """(period, residues) of the sizes that may take it, bounds left out; (1, (0,)) if all may."""
        regular = [found for found in map(_residues, self._about(axis)) if found is not None]
        period = lcm(*(p for p, _ in regular))
        if period > MOST_RESIDUES:
            return 1, (0,)
        return least_period(period, [r for r in range(period) if all(r % p in good for p, good in regular)])

    def bounds(self, axis: Origin) -> tuple[int, int | None] | None:
        """The least and the greatest size that may take it, None for no greatest; residues left out. None: all may."""
        found = [bounds for bounds in map(_bounds, self._about(axis)) if bounds is not None]
        most = [greatest for _, greatest in found if greatest is not None]
        return (max(least for least, _ in found), min(most) if most else None) if found else None

    def others(self) -> list[str]:
        """The conditions that are neither residues nor bounds of one size, as expressions."""
        return [print_size(c) for c in self.conditions if len(c.free_symbols) > 1 or not (_residues(c) or _bounds(c))]

    def _about(self, axis: Origin) -> list[Any]:
        name = size_name(axis.input, axis.dim)
        return [condition for condition in self.conditions if {str(s) for s in condition.free_symbols} == {name}]


def _holds(condition: Any, size: int) -> bool:
    (symbol,) = condition.free_symbols
    return bool(value_of(condition, {str(symbol): size}))


@lru_cache(maxsize=4096)
def _residues(condition: Any) -> tuple[int, tuple[int, ...]] | None:
    """(period, residues) of the sizes at which a condition on one size holds; None if it is a bound, too."""
    period = period_of(condition)
    if period is None or period > MOST_RESIDUES:
        return None
    good = tuple(r for r in range(period) if _holds(condition, r + FAR * period))
    some = [*range(SMALLEST, SMALLEST + max(FAR, 2 * period)), *range(ENDLESS * period, (ENDLESS + 1) * period)]
    return (period, good) if all(_holds(condition, n) == (n % period in good) for n in some) else None


@lru_cache(maxsize=4096)
def _bounds(condition: Any) -> tuple[int, int | None] | None:
    """(least, greatest) of the sizes at which a condition on one size holds, all between included; None if there are
    none such, or none found."""
    period = period_of(condition)
    if period is None or period > MOST_RESIDUES or _residues(condition) is not None:
        return None
    far = {_holds(condition, n) for n in range(ENDLESS * period, (ENDLESS + 1) * period)}
    good = [n for n in range(SMALLEST, LARGEST) if _holds(condition, n)]
    if len(far) > 1 or not good or good != list(range(good[0], good[-1] + 1)):
        return None
    endless = far == {True}
    return (good[0], None if endless else good[-1]) if endless == (good[-1] == LARGEST - 1) else None


LARGEST = 4096
"""Sizes up to which bounds are looked for."""
ENDLESS = 10**6
"""Periods to go up to see whether there is a bound at all."""
