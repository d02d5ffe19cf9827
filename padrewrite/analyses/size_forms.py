"""Sizes for all inputs at once: a size as a function of the input's, and what can be proved of it.

All the operations that padrewrite follows have sizes that are affine on each residue class of the input size:
``size(H) = slope*(H - H mod period)/period + value[H mod period]`` for all but small ``H``. In this form equality is
decided exactly by comparing numbers. A chain of windows is ``floor((H + a)/m)``, which is how a form is printed where
it fits. All that is said of a size is said of the sizes at which the model runs, along the path that its forward took
while it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, lru_cache
from math import gcd, lcm
from typing import Any

import sympy

from padrewrite.ops.axis import AxisMap
from padrewrite.ops.sizes import value_of

MOST_RESIDUES = 4096
FAR = 64
"""Periods to go up before reading values off: by then almost every call is past its small sizes."""


@dataclass(frozen=True)
class SizeForm:
    """The size of a dimension as a function of the size H of one input dimension, for all but small H."""

    slope: int
    """Growth per period of H."""
    values: tuple[int, ...]
    """Per residue of H the size at that H, continued down to H < period (it may be negative there)."""
    since: int | None = 1
    """The form holds from this H on, or earlier; None: from some H on. Where the model adds a parameter to a tensor
    of size 1, which spreads it, it holds for larger ones."""

    @property
    def period(self) -> int:
        return len(self.values)

    def at(self, size: int) -> int:
        """The size of the dimension for an input of ``size``."""
        periods, rest = divmod(size, self.period)
        return self.slope * periods + self.values[rest]

    def same_as(self, other: SizeForm) -> bool:
        """Whether both are equal for every input size. A decision, not a test on samples."""
        return not self.unequal(other)

    def unequal(self, other: SizeForm) -> tuple[int, ...]:
        """The residues of H (modulo the common period) at which the two differ; all of them if their slopes do."""
        period = lcm(self.period, other.period)
        if self.slope * other.period != other.slope * self.period:
            return tuple(range(period))
        return tuple(r for r in range(period) if self.at(r) != other.at(r))

    @property
    def unchanged(self) -> bool:
        """Whether it is the input's own size, for every input size from ``since`` on that takes the recorded path.

        A decision, as ``same_as``.
        """
        return self.same_as(identity())

    @property
    def changed(self) -> tuple[int, ...]:
        """The residues of H (modulo ``period``) at which it is not the input's size."""
        return self.unequal(identity())

    @property
    def floor_form(self) -> tuple[int, int, int, int] | None:
        """(t, a, m, c) with ``size = t*floor((H + a)/m) + c`` and the least m and c, if there are such numbers."""
        jumps = [r for r in range(self.period) if self.at(r + 1) != self.at(r)]
        if len(jumps) != 1 or self.slope == 0:
            return None
        t, m, after = self.slope, self.period, self.at(jumps[0] + 1)
        c = min(after % t, after % t - t, key=lambda c: (abs(c), -c))
        return t, m * ((after - c) // t) - jumps[0] - 1, m, c

    @property
    def ratio_form(self) -> tuple[int, int, int] | None:
        """(p, a, q) with ``size = floor((p*H + a)/q)``, if there are such numbers."""
        p, q = self.slope, self.period
        least = max(v * q - p * r for r, v in enumerate(self.values))
        most = min(v * q + q - 1 - p * r for r, v in enumerate(self.values))
        return (p, min(max(least, 0), most), q) if p > 0 and least <= most else None

    def expression(self, symbol: str = "H") -> Any:
        """The form in sympy: with one ``floor`` where that is possible, else by residues."""
        size = sympy.Symbol(symbol, integer=True, positive=True)
        if self.slope == 0 and len(set(self.values)) == 1:
            return sympy.Integer(self.values[0])
        if self.floor_form is not None:
            t, a, m, c = self.floor_form
            return t * sympy.floor((size + a) / sympy.Integer(m)) + c
        if self.ratio_form is not None:
            p, a, q = self.ratio_form
            return sympy.floor((p * size + a) / sympy.Integer(q))
        rest = sympy.Mod(size, self.period)
        pairs = [(value, sympy.Eq(rest, r)) for r, value in enumerate(self.values)]
        return self.slope * sympy.floor(size / sympy.Integer(self.period)) + sympy.Piecewise(*pairs)

    def text(self, symbol: str = "H") -> str:
        """The form with one floor, if there is such a one; ``symbol`` is the input's size."""
        if self.slope == 0 and len(set(self.values)) == 1:
            return str(self.values[0])
        if self.floor_form is not None:
            t, a, m, c = self.floor_form
            if m == 1:
                return _sum(f"{t}*{symbol}" if t > 1 else symbol, t * a + c)
            floor = f"floor({symbol}/{m})" if a == 0 else f"floor(({_sum(symbol, a)})/{m})"
            return _sum(f"{t}*{floor}" if t > 1 else floor, c)
        if self.ratio_form is not None:
            p, a, q = self.ratio_form
            return f"floor({p}*{symbol}/{q})" if a == 0 else f"floor(({_sum(f'{p}*{symbol}', a)})/{q})"
        kinds = len(set(self.values))
        return f"{self.slope}*floor({symbol}/{self.period}) + one of {kinds} values by {symbol} mod {self.period}"

    def __str__(self) -> str:
        return self.text()


def _sum(text: str, number: int) -> str:
    return f"{text} + {number}" if number > 0 else f"{text} - {-number}" if number else text


def identity() -> SizeForm:
    """The size of an input dimension itself."""
    return SizeForm(1, (0,))


def reduced(slope: int, values: Sequence[int], since: int | None = 1) -> SizeForm:
    """The form with the least period."""
    period = len(values)
    form = SizeForm(slope, tuple(values), since)
    for less in sorted(d for d in range(1, period) if period % d == 0 and slope * d % period == 0):
        small = SizeForm(slope * less // period, form.values[:less], since)
        if all(small.at(r) == form.values[r] for r in range(period)):
            return small
    return form


@lru_cache(maxsize=4096)
def mapped(axis: AxisMap, form: SizeForm) -> SizeForm | None:
    """The size of ``axis``'s outputs for inputs of size ``form``; None if it is not of this form."""
    if axis.growth is None:
        return None
    inputs, outputs = axis.growth
    times = inputs // gcd(inputs, form.slope) if form.slope else 1
    slope, since = form.slope * times * outputs // inputs, _reaching(form, axis.settled)
    return _read_off(lambda size: axis.size(form.at(size)), form.period * times, slope, since)


def _reaching(form: SizeForm, least: int) -> int | None:
    """From which H on the form holds and its values are ``least`` or more, or the same for ever."""
    if form.since is None or form.slope == 0:
        return form.since
    periods = (-((value - least) // form.slope) for value in form.values)
    return max(form.since, *(r + form.period * (k - 1) + 1 for r, k in enumerate(periods)))


def _read_off(size: Callable[[int], int], period: int, slope: int, since: int | None) -> SizeForm | None:
    """The form of a function that grows by ``slope`` per ``period``, from where it does so for the first time."""
    if period > MOST_RESIDUES:
        return None
    for far in (FAR, 8 * FAR, 64 * FAR):
        values = [size(r + far * period) - far * slope for r in range(period)]
        if values == [size(r + 3 * far * period) - 3 * far * slope for r in range(period)]:
            return reduced(slope, values, since)
    return None


def of_expression(expression: Any, name: str) -> SizeForm | None:
    """The form of a recorded size; None if it depends on more than the one size ``name`` or grows irregularly."""
    if {str(s) for s in expression.free_symbols} != {name}:
        return None
    period = period_of(expression)
    if period is None:
        return None
    parts = sympy.preorder_traversal(expression)
    regular = all(part.is_Symbol or part.is_Integer or type(part).__name__ in _REGULAR for part in parts)

    @cache
    def size(n: int) -> int:
        return int(value_of(expression, {name: n}))

    for longer in (period, 2 * period):  # halves are rounded to even numbers
        if longer > MOST_RESIDUES:
            return None
        first = FAR * longer
        slopes = {size(n + longer) - size(n) for n in range(first, first + 2 * longer + 8)}
        if len(slopes) == 1:
            return _read_off(size, longer, slopes.pop(), SMALLEST if regular else None)
    return None


def least_period(period: int, residues: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The same numbers by the least period: 0 and 2 modulo 4 are 0 modulo 2."""
    good = set(residues)
    least = next(m for m in range(1, period + 1) if period % m == 0 and all((r + m) % period in good for r in good))
    return least, tuple(sorted({r % least for r in good}))


def period_of(expression: Any) -> int | None:
    """A number of steps after which every quotient and remainder in it is back; None if it rounds floats."""
    period = 1
    for part in sympy.preorder_traversal(expression):
        if getattr(part, "is_Float", False):
            return None
        if any(word in type(part).__name__ for word in ("Div", "Mod")):
            period *= next((int(str(a)) for a in part.args[1:] if a.is_Integer), 1)
    return period


_REGULAR = ("Add", "Mul", "FloorDiv", "CleanDiv", "Mod", "PythonMod")
"""What grows by one rule at all sizes, if it grows by one at large ones."""

SMALLEST = 2
"""Symbolic sizes are at least this."""


def joined(given: Sequence[SizeForm]) -> SizeForm:
    """The size of a merge of operands of these sizes: the largest, where they must be equal and are not."""
    largest = max(given, key=lambda form: (Fraction(form.slope, form.period), -form.period))
    return replace(largest, since=_joined_since(given))


def _joined_since(given: Sequence[SizeForm]) -> int | None:
    """From which H on all have the sizes that their forms say, and none is spread from size 1."""
    differ = any(not given[0].same_as(other) for other in given[1:])
    if differ and any(form.slope == 0 and min(form.values) < SMALLEST for form in given):
        return None
    starts = [_reaching(form, SMALLEST) if differ else form.since for form in given]
    return None if None in starts else max(start for start in starts if start is not None)
