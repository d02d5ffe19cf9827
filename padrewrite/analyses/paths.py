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

    def others(self) -> list[str]:
        """The conditions that are not about residues of one size, as expressions."""
        return [print_size(c) for c in self.conditions if len(c.free_symbols) > 1 or _residues(c) is None]

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
    some = [*range(SMALLEST, SMALLEST + max(FAR, 2 * period)), *range(64 * FAR * period, (64 * FAR + 1) * period)]
    return (period, good) if all(_holds(condition, n) == (n % period in good) for n in some) else None
