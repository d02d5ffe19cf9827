"""Support: the exact set of input positions that can reach an output, over the whole graph.

A chain of windows reaches a product of one set per axis. Merges make unions, and a union of products is in general not
a product, so a support is a list of products (terms) of which none contains another. What arrives through a global
pool or a norm's statistics is kept apart, as context: it reaches everything and would hide the rest.

All channels of a tensor are taken to depend on the same positions. A symmetric convolution reads some channels from one
side and some from another: behind a concatenation of branches along the channels, its support is an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch.fx as fx

from padrewrite.analyses.layout import Layout, Origin
from padrewrite.analyses.reach import Reaches, Rows, Set, count, members
from padrewrite.ops.axis import AxisMap, Whole
from padrewrite.ops.step import Read, Step, shape_of

MOST_TERMS = 96


@dataclass(frozen=True)
class Factor:
    """What reaches along one input dimension: rows over a dimension of the tensor, or one set for all of it."""

    dim: int | None
    rows: Rows
    """One set per position of ``dim``; a single one if ``dim`` is None."""

    def at(self, index: Sequence[int]) -> Set:
        return self.rows[0 if self.dim is None else index[self.dim]]


@dataclass(frozen=True)
class Term:
    """A product of sets over the tracked dimensions of one input."""

    input: int
    factors: tuple[Factor, ...]
    """One per tracked dimension of the input, in the order of the dimensions."""
    context: bool = False
    """It arrived through a global pool, a norm's statistics or a call that regroups positions.

    Positions end there: windows over a padded global pool that see nothing but padding are said to be reached too.
    """


@dataclass(frozen=True)
class Support:
    """Everything that reaches a tensor."""

    terms: tuple[Term, ...]
    unknown: str | None = None
    """Why the terms are not the whole truth, or an upper bound of it."""

    @property
    def local(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if not term.context)


class Supports:
    """Supports of all tensors of a layout, each freed after its last use unless it is in ``keep``."""

    def __init__(self, layout: Layout, tracked: Sequence[Origin], keep: Sequence[fx.Node]) -> None:
        """
        Args:
            tracked: the input dimensions to follow, all of them located in the layout.
            keep: tensors whose support will be asked for.
        """
        self._origins = frozenset(tracked)
        self.tracked: dict[int, tuple[int, ...]] = {}
        for origin in sorted(tracked, key=lambda o: (o.input, o.dim)):
            self.tracked[origin.input] = (*self.tracked.get(origin.input, ()), origin.dim)
        self._reaches = Reaches()
        self._layout = layout
        self._kept: dict[fx.Node, Support] = {}
        self._follow(set(keep))

    def of(self, node: fx.Node) -> Support:
        """The support of a tensor named in ``keep``."""
        return self._kept[node]

    def _follow(self, keep: set[fx.Node]) -> None:
        reads = {node: _reads(step) for node, step in self._layout.steps.items()}
        last = {read.node: node for node, found in reads.items() for read in found}
        alive: dict[fx.Node, Support] = {n: self._start(i, n) for i, n in enumerate(self._layout.inputs)}
        self._kept.update({node: alive[node] for node in keep if node in alive})
        for node, found in reads.items():
            made = self._merge([self._read(read, alive[read.node]) for read in found], node)
            if node in keep:
                self._kept[node] = made
            if node in last:
                alive[node] = made
            for read in found:
                if last[read.node] is node:
                    alive.pop(read.node, None)

    def _start(self, index: int, node: fx.Node) -> Support:
        dims = self.tracked.get(index, ())
        shape = node.meta.get("shape", ())
        return Support((Term(index, tuple(Factor(d, self._reaches.start(shape[d])) for d in dims)),) if dims else ())

    def _read(self, read: Read, given: Support) -> Support:
        places = {source[0]: (d, source[1]) for d, source in enumerate(read.dims) if isinstance(source, tuple)}
        at = dict(read.at)
        terms = [self._through(term, places, read, at) for term in given.terms]
        if read.pooled:
            pooled = {d: place for d, place in places.items() if d not in read.pooled}
            terms += [self._through(term, pooled, read, at) for term in given.terms]
        return Support(tuple(terms), given.unknown or self._layout.lost(read.node, self._origins))

    def _through(
        self, term: Term, places: Mapping[int, tuple[int, AxisMap]], read: Read, at: Mapping[int, int]
    ) -> Term:
        factors: list[Factor] = []
        context = term.context
        shape = shape_of(read.node)
        for factor in term.factors:
            place = None if factor.dim is None else places.get(factor.dim)
            if factor.dim is None:
                factors.append(factor)
            elif factor.dim in at:
                factors.append(Factor(None, self._reaches.one(factor.rows, at[factor.dim])))
            elif place is None or isinstance(place[1], Whole):
                context = context or shape[factor.dim] > 1
                factors.append(Factor(None, self._reaches.whole(factor.rows)))
            else:
                rows = self._reaches.through(place[1], factor.rows, shape[factor.dim])
                factors.append(Factor(place[0], rows))
        return Term(term.input, tuple(factors), context)

    def _merge(self, parts: Sequence[Support], node: fx.Node) -> Support:
        kept: list[Term] = []
        for term in dict.fromkeys(term for part in parts for term in part.terms):
            if not any(self._covers(other, term) for other in kept):
                kept = [other for other in kept if not self._covers(term, other)] + [term]
        unknown = next((part.unknown for part in parts if part.unknown), None)
        unknown = unknown or self._layout.lost(node, self._origins)
        if len(kept) > MOST_TERMS:
            return Support((), f"more than {MOST_TERMS} branches that do not contain each other")
        return Support(tuple(kept), unknown)

    def _covers(self, large: Term, small: Term) -> bool:
        if large.input != small.input or large.context != small.context:
            return False
        for a, b in zip(large.factors, small.factors):
            rows = self._reaches.whole(b.rows) if a.dim is None else b.rows
            if a.dim not in (None, b.dim) or not self._reaches.cover(a.rows, rows):
                return False
        return True


def _reads(step: Step) -> tuple[Read, ...]:
    """All that a call reads, what has no positions too."""
    rank = max((len(read.dims) for read in step.reads), default=0)
    return *step.reads, *(Read(node, (None,) * rank) for node in step.besides)


def positions(terms: Sequence[Term], index: Sequence[int]) -> set[tuple[int, ...]]:
    """The input positions (one coordinate per tracked dimension) that reach position ``index``."""
    found: set[tuple[int, ...]] = set()
    for term in terms:
        found.update(product(*(members(factor.at(index)) for factor in term.factors)))
    return found


@dataclass(frozen=True)
class Reached:
    """The local support of one output position."""

    extents: tuple[int, ...]
    """From the first to the last input position per axis, inside the input."""
    count: int
    """Input positions that reach it."""
    sizes: tuple[int, ...] = ()
    """Of the input, per axis."""
    boxes: tuple[tuple[Set, ...], ...] = ()
    """What reaches it: the union of these products of one set per axis."""

    @property
    def share(self) -> float:
        """Positions that reach it, of all in the rectangle around them."""
        return self.count / prod(self.extents) if prod(self.extents) else 0.0

    @property
    def holes(self) -> int:
        """Positions in the rectangle that do not reach it."""
        return prod(self.extents) - self.count

    def positions(self) -> set[tuple[int, ...]]:
        """The input positions that reach it, one coordinate per axis."""
        return {place for box in self.boxes for place in product(*map(members, box))}


def reached(terms: Sequence[Term], index: Sequence[int], sizes: Sequence[int]) -> Reached:
    """Counts the union of ``terms`` at position ``index`` exactly (by lines of the last axis).

    Args:
        sizes: of the input that the terms are about, along its tracked dimensions.
    """
    found = (tuple(factor.at(index) for factor in term.factors) for term in terms)
    boxes = tuple(box for box in found if all(s[1] for s in box))
    if not boxes:
        return Reached((0,) * len(sizes), 0, tuple(sizes))
    extents: list[int] = []
    for axis in range(len(boxes[0])):
        low = min(box[axis][0] + (box[axis][1] & -box[axis][1]).bit_length() - 1 for box in boxes)
        high = max(box[axis][0] + box[axis][1].bit_length() - 1 for box in boxes)
        extents.append(high - low + 1)
    counted = prod(count(s) for s in boxes[0]) if len(boxes) == 1 else _count_union(boxes)
    return Reached(tuple(extents), counted, tuple(sizes), boxes)


def _count_union(boxes: Sequence[Sequence[Set]]) -> int:
    """Positions in a union of products, by cutting along the first axis."""
    if len(boxes[0]) == 1:
        start = min(box[0][0] for box in boxes)
        bits = 0
        for ((at, mine),) in boxes:
            bits |= mine << (at - start)
        return bits.bit_count()
    lines: dict[int, list[int]] = {}
    for number, box in enumerate(boxes):
        for position in members(box[0]):
            lines.setdefault(position, []).append(number)
    groups: dict[tuple[int, ...], int] = {}
    for numbers in lines.values():
        groups[tuple(numbers)] = groups.get(tuple(numbers), 0) + 1
    return sum(many * _count_union([boxes[i][1:] for i in numbers]) for numbers, many in groups.items())
