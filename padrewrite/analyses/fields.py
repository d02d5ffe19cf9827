"""Receptive field: how many input pixels an output depends on along one axis, were the input endless.

For output ``i`` the field is ``[scale*i + lo, scale*i + hi]``, with one pair (lo, hi) per residue of ``i``, because
behind an upsampling not all outputs see equally far.

Where branches join, an output sees what any of them shows: from the first pixel to the last. ``SharedFields`` keeps
what all of them show instead: by whichever path an output is reached, it depends on pixels from ``lo`` or before to
``hi`` or behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from math import lcm

import torch.fx as fx

from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import Layout
from padrewrite.ops.axis import AxisMap, Whole

MOST_RESIDUES = 512
Span = tuple[Fraction, Fraction]
Extreme = Callable[..., Fraction]


@dataclass(frozen=True)
class AxisField:
    """The field of one dimension; ``spans[i % len(spans)]`` is (lo, hi) of output ``i``, None if it reads nothing."""

    scale: Fraction
    spans: tuple[Span | None, ...]

    @cached_property
    def size(self) -> int:
        """Extent of the largest field, in input pixels."""
        return max(self._sizes, default=0)

    @property
    def least(self) -> int:
        """Extent of the smallest field, in input pixels."""
        return min(self._sizes, default=0)

    @property
    def _sizes(self) -> list[int]:
        return [int(hi - lo) + 1 for lo, hi in filter(None, self.spans)]


class Fields:
    """Receptive fields of all tensors of a layout. Global pools and norms' statistics are left out."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._fold = AxisFold[AxisField](layout, _start, _through, partial(_join, first=min, last=max), strict=True)

    def of(self, node: fx.Node, dim: int) -> AxisField | None:
        """The field of a dimension; None if windows differ from place to place (align_corners, adaptive pools)."""
        return self._fold.of(node, dim)

    def unknown(self, node: fx.Node, dim: int) -> str | None:
        """Why a dimension of which all positions are followed has no field: the first call on the way that ends it."""
        if self.of(node, dim) is not None:
            return None
        while True:
            step = self._layout.steps[node]
            places = [(read.node, read.dims[dim]) for read in step.reads]
            sources = [(given, s[0]) for given, s in places if isinstance(s, tuple) and not isinstance(s[1], Whole)]
            before = next((place for place in sources if self.of(*place) is None), None)
            if before is None:
                break
            node, dim = before
        if len(sources) > 1:
            return f"{step.name} joins branches of different scales"
        return f"windows of {step.name} differ from place to place"


class SharedFields(Fields):
    """What lies in the field of every path of calls from the inputs. Where all are centred alike it is the smallest.

    Behind an upsampling there is none: its windows are not there to see farther.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        join = partial(_join, first=max, last=min)
        self._fold = AxisFold[AxisField](layout, _start, _through_no_finer, join, strict=True)


def _start(n: int) -> AxisField:
    return AxisField(Fraction(1), ((Fraction(0), Fraction(0)),))


def _through(axis: AxisMap, value: AxisField, n: int) -> AxisField | None:
    period = axis.period(n)
    if period is None:
        return None
    outputs, inputs = period
    many = len(value.spans)
    residues = outputs * (lcm(many, inputs) // inputs)
    if residues > MOST_RESIDUES:
        return None
    scale = value.scale * Fraction(inputs, outputs)
    return AxisField(scale, tuple(_span(axis, value, n, i, scale) for i in range(residues)))


def _span(axis: AxisMap, value: AxisField, n: int, i: int, scale: Fraction) -> Span | None:
    taps = ((p, value.spans[p % len(value.spans)]) for p in axis.taps(i, n))
    seen = [(value.scale * p + s[0], value.scale * p + s[1]) for p, s in taps if s is not None]
    if not seen:
        return None
    return min(lo for lo, _ in seen) - scale * i, max(hi for _, hi in seen) - scale * i


def _through_no_finer(axis: AxisMap, value: AxisField, n: int) -> AxisField | None:
    found = _through(axis, value, n)
    return None if found is None or found.scale < value.scale else found


def _join(node: fx.Node, dim: int, given: Sequence[AxisField], first: Extreme, last: Extreme) -> AxisField | None:
    if len({field.scale for field in given}) > 1:
        return None
    many = lcm(*(len(field.spans) for field in given))
    if many > MOST_RESIDUES:
        return None
    spans: list[Span | None] = []
    for i in range(many):
        seen = [s for field in given for s in (field.spans[i % len(field.spans)],) if s is not None]
        spans.append((first(lo for lo, _ in seen), last(hi for _, hi in seen)) if seen else None)
    return AxisField(given[0].scale, tuple(spans))
