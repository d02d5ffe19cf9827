"""Sizes for all inputs at once: every tensor's size as a function of the input's, and what can be proved of it.

All the operations that padrewrite follows have sizes that are affine on each residue class of the input size:
``size(H) = slope*(H - H mod period)/period + value[H mod period]`` for all but small ``H``. In this form equality is
decided exactly by comparing numbers. A chain of windows is ``floor((H + a)/m)``, which is how a form is printed where
it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from math import gcd, lcm
from typing import Any

import sympy
import torch.fx as fx

from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import Layout, Origin
from padrewrite.ops.axis import AxisMap
from padrewrite.ops.sizes import evaluate_size, size_name, value_of
from padrewrite.ops.step import shape_of

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

    def __str__(self) -> str:
        if self.slope == 0 and len(set(self.values)) == 1:
            return str(self.values[0])
        if self.floor_form is not None:
            t, a, m, c = self.floor_form
            if m == 1:
                return _sum(f"{t}*H" if t > 1 else "H", t * a + c)
            floor = f"floor({_sum('H', a)}/{m})" if a == 0 else f"floor(({_sum('H', a)})/{m})"
            return _sum(f"{t}*{floor}" if t > 1 else floor, c)
        if self.ratio_form is not None:
            p, a, q = self.ratio_form
            return f"floor({p}*H/{q})" if a == 0 else f"floor(({_sum(f'{p}*H', a)})/{q})"
        return f"{self.slope}*floor(H/{self.period}) + one of {len(set(self.values))} values by H mod {self.period}"


def _sum(text: str, number: int) -> str:
    return f"{text} + {number}" if number > 0 else f"{text} - {-number}" if number else text


def identity() -> SizeForm:
    """The size of an input dimension itself."""
    return SizeForm(1, (0,))


def reduced(slope: int, values: Sequence[int]) -> SizeForm:
    """The form with the least period."""
    period = len(values)
    form = SizeForm(slope, tuple(values))
    for less in sorted(d for d in range(1, period) if period % d == 0 and slope * d % period == 0):
        small = SizeForm(slope * less // period, form.values[:less])
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
    return _read_off(lambda size: axis.size(form.at(size)), form.period * times, form.slope * times * outputs // inputs)


def _read_off(size: Callable[[int], int], period: int, slope: int) -> SizeForm | None:
    """The form of a function that grows by ``slope`` per ``period``, from where it does so for the first time."""
    if period > MOST_RESIDUES:
        return None
    for far in (FAR, 8 * FAR, 64 * FAR):
        values = [size(r + far * period) - far * slope for r in range(period)]
        if values == [size(r + 3 * far * period) - 3 * far * slope for r in range(period)]:
            return reduced(slope, values)
    return None


def of_expression(expression: Any, name: str) -> SizeForm | None:
    """The form of a recorded size; None if it depends on more than the one size ``name`` or grows irregularly."""
    if {str(s) for s in expression.free_symbols} != {name}:
        return None
    parts = list(sympy.preorder_traversal(expression))
    if any(part.is_Float for part in parts):
        return None  # rounding of floats follows no period
    period = 1
    for part in parts:
        if any(word in type(part).__name__ for word in ("Div", "Mod")):
            period *= next((int(str(a)) for a in part.args[1:] if a.is_Integer), 1)

    @cache
    def size(n: int) -> int:
        return int(value_of(expression, {name: n}))

    for longer in (period, 2 * period):  # halves are rounded to even numbers
        if longer > MOST_RESIDUES:
            return None
        first = FAR * longer
        slopes = {size(n + longer) - size(n) for n in range(first, first + 2 * longer + 8)}
        if len(slopes) == 1:
            return _read_off(size, longer, slopes.pop())
    return None


class Sizes:
    """The size forms of all located dimensions of a layout, in terms of their input dimension."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.requirements: list[tuple[fx.Node, int, SizeForm, SizeForm]] = []
        """(merge, dimension, form, form): sizes that must be equal for the model to run."""

        def start(n: int) -> SizeForm:
            return identity()

        self._fold = AxisFold[SizeForm](layout, start, _through, self._join, self._settle, one_origin=True)

    def of(self, node: fx.Node, dim: int) -> SizeForm | None:
        """The form of one dimension.

        None if its size was fixed while recording or is computed in a way that is not of this form, or if the recorded
        input is so small that the form does not hold for it (``x[:, :, :100]`` of 64 pixels).
        """
        return self._fold.of(node, dim)

    def _join(self, node: fx.Node, dim: int, given: Sequence[SizeForm]) -> SizeForm:
        for other in given[1:]:
            if not given[0].same_as(other):
                self.requirements.append((node, dim, given[0], other))
        return max(given, key=lambda form: (Fraction(form.slope, form.period), -form.period))

    def _settle(self, node: fx.Node, dim: int, form: SizeForm | None) -> SizeForm | None:
        """Sizes that the forward computed by itself come from the expressions that a symbolic recording has of them."""
        origin = self._layout.axes[node][dim]
        assert isinstance(origin, Origin)
        maps = [s[1] for r in self._layout.steps[node].reads for s in (r.dims[dim],) if isinstance(s, tuple)]
        loose = any(axis.growth is None for axis in maps)
        if loose or any(n.target is evaluate_size for n in _all_inputs(node, self._layout)):
            expressions = node.meta.get("expressions")
            expression = None if expressions is None else expressions[dim]
            name = size_name(origin.input, origin.dim)
            form = None if expression is None else of_expression(expression, name)
        recorded = shape_of(self._layout.inputs[origin.input])[origin.dim]
        return form if form is not None and form.at(recorded) == shape_of(node)[dim] else None


def _through(axis: AxisMap, form: SizeForm, n: int) -> SizeForm | None:
    return mapped(axis, form)


def _all_inputs(node: fx.Node, layout: Layout) -> Iterator[fx.Node]:
    """The arguments of a call, with those of pads folded into it and of the call that it is a part of the result of."""
    read = {r.node for r in layout.steps[node].reads}
    left = [node]
    while left:
        found = [before for before in left.pop().all_input_nodes if before not in read]
        left += [before for before in found if before.target is not evaluate_size]
        yield from found
