"""Sizes for all inputs at once: every tensor's size as a function of the input's, and what can be proved of it.

All the operations that padrewrite follows have sizes that are affine on each residue class of the input size:
``size(H) = slope*(H - H mod period)/period + value[H mod period]`` for all but small ``H``. In this form equality is
decided exactly by comparing numbers. A chain of windows is ``floor((H + a)/m)``, which is how a form is printed where
it fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, lcm
from typing import Any

import sympy
import torch.fx as fx

from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import Layout, Origin
from padrewrite.ops.axis import AxisMap, Shift, Stretch
from padrewrite.ops.sizes import evaluate_size, size_name, value_of

MOST_RESIDUES = 4096
FAR = 64
"""Periods to go up before reading values off: by then every window has an output."""


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
    def floor_form(self) -> tuple[int, int, int] | None:
        """(t, a, m) with ``size = t*floor((H + a)/m)`` plus nothing, if there are such numbers with the least m."""
        steps = [self.at(r + 1) - self.at(r) for r in range(self.period)]
        jumps = [r for r, step in enumerate(steps) if step]
        if len(jumps) != 1 or self.slope == 0 or self.at(jumps[0] + 1) % self.slope:
            return None
        t, m = self.slope, self.period
        return t, m * (self.at(jumps[0] + 1) // t) - jumps[0] - 1, m

    def expression(self, symbol: str = "H") -> Any:
        """The form in sympy, as ``floor((H + a)/m)`` where it is that, else by residues."""
        size = sympy.Symbol(symbol, integer=True, positive=True)
        if self.slope == 0 and len(set(self.values)) == 1:
            return sympy.Integer(self.values[0])
        found = self.floor_form
        if found is not None:
            t, a, m = found
            return t * sympy.floor((size + a) / sympy.Integer(m))
        rest = sympy.Mod(size, self.period)
        pairs = [(value, sympy.Eq(rest, r)) for r, value in enumerate(self.values)]
        return self.slope * sympy.floor(size / sympy.Integer(self.period)) + sympy.Piecewise(*pairs)

    def __str__(self) -> str:
        if self.slope == 0 and len(set(self.values)) == 1:
            return str(self.values[0])
        if self.floor_form is not None:
            t, a, m = self.floor_form
            inner = f"H + {a}" if a > 0 else f"H - {-a}" if a else "H"
            whole = inner if m == 1 else f"floor(({inner})/{m})" if a else f"floor({inner}/{m})"
            return whole if t == 1 else f"{t}*({whole})" if m == 1 and a else f"{t}*{whole}"
        return f"{self.slope}*floor(H/{self.period}) + one of {len(set(self.values))} values by H mod {self.period}"


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
    if isinstance(axis, (Shift, Stretch)) or axis.growth is None:
        return None
    inputs, outputs = axis.growth
    times = inputs // gcd(inputs, form.slope) if form.slope else 1
    period = form.period * times
    if period > MOST_RESIDUES:
        return None
    slope = form.slope * times * outputs // inputs
    values = [axis.size(form.at(r + FAR * period)) - FAR * slope for r in range(period)]
    return reduced(slope, values)


def of_expression(expression: Any, name: str) -> SizeForm | None:
    """The form of a recorded size; None if it depends on more than the one size ``name`` or grows irregularly."""
    if {str(s) for s in expression.free_symbols} != {name}:
        return None
    period = 1
    for part in sympy.preorder_traversal(expression):
        divides = any(name in type(part).__name__ for name in ("Div", "Mod"))
        divisors = [int(str(a)) for a in part.args[1:] if a.is_Integer] if divides else []
        period *= divisors[0] if divisors else 1
    if period > MOST_RESIDUES:
        return None
    at = [int(value_of(expression, {name: r + FAR * period})) for r in range(2 * period)]
    slopes = {late - early for early, late in zip(at, at[period:])}
    return reduced(slopes.pop(), [v - FAR * (at[period] - at[0]) for v in at[:period]]) if len(slopes) == 1 else None


class Sizes:
    """The size forms of all located dimensions of a layout, in terms of their input dimension."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.requirements: list[tuple[fx.Node, int, SizeForm, SizeForm]] = []
        """(merge, dimension, form, form): sizes that must be equal for the model to run."""
        self._fold = AxisFold[SizeForm](layout, lambda n: identity(), _through, self._join, self._recorded)

    def of(self, node: fx.Node, dim: int) -> SizeForm | None:
        """The form of one dimension; None if its size is fixed by the recording or computed in another way."""
        return self._fold.of(node, dim)

    def _join(self, node: fx.Node, dim: int, given: Sequence[SizeForm]) -> SizeForm:
        for other in given[1:]:
            if not given[0].same_as(other):
                self.requirements.append((node, dim, given[0], other))
        return max(given, key=lambda form: form.slope)

    def _recorded(self, node: fx.Node, dim: int) -> tuple[SizeForm | None] | None:
        """Sizes that the forward computed by itself, from the expression that a symbolic recording has of them."""
        maps = (r.dims[dim] for r in self._layout.steps[node].reads)
        loose = any(isinstance(source, tuple) and isinstance(source[1], (Shift, Stretch)) for source in maps)
        if not loose and not any(n.target is evaluate_size for n in _all_inputs(node, self._layout)):
            return None
        expressions = node.meta.get("expressions")
        origin = self._layout.axes[node][dim]
        if expressions is None or expressions[dim] is None or not isinstance(origin, Origin):
            return (None,)
        return (of_expression(expressions[dim], size_name(origin.input, origin.dim)),)


def _through(axis: AxisMap, form: SizeForm, n: int) -> SizeForm | None:
    return mapped(axis, form)


def _all_inputs(node: fx.Node, layout: Layout) -> Iterator[fx.Node]:
    """The arguments of a call, those of pads folded into it included."""
    yield from node.all_input_nodes
    read = {r.node for r in layout.steps[node].reads}
    for before in node.all_input_nodes:
        if before not in read and before in layout.steps:
            yield from _all_inputs(before, layout)
