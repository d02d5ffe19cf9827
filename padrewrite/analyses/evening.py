"""Odd kernels made even: which convolutions, what each becomes, and which strided ones must change together.

A strided convolution becomes an average over cells of its stride and an even one of stride 1. For n pixels both have
ceil(n/s) outputs; but those of the average sit (s-1)/2 pixels on, in the middle of their cells. Where branches meet,
all of them must have moved alike, so strided convolutions change in groups, 1x1 shortcuts included.

Source [C2sp]: Wu et al. 2019, *Convolution with even-sized kernels and symmetric padding*, Section 4.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import networkx as nx
import torch.fx as fx

from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import read_layout
from padrewrite.analyses.rates import can_fill
from padrewrite.graph import Graph, Site
from padrewrite.ops.assembly import Assembly, Branch, Carry, outputs
from padrewrite.ops.axis import AxisMap, Slide, Spread
from padrewrite.ops.conv import Conv
from padrewrite.ops.cornering import EVEN, POOLED, cells_of, evened
from padrewrite.ops.step import shape_of


@dataclass(frozen=True)
class Hindrance:
    """Why a convolution, or a group of them, stays as it is."""

    code: str
    reason: str
    status: Literal["kept", "refused"] = "refused"


@dataclass(frozen=True)
class Group:
    """Convolutions that become even together."""

    sites: tuple[Site, ...]
    hindrances: tuple[Hindrance, ...] = ()
    """The first thing in the way; none if nothing is."""


def made_even(op: Conv, order: str) -> Assembly:
    """What stands in the place of an odd convolution, or of a strided 1x1 one beside it."""
    carry = Carry("corner", promised=False)
    if max(op.stride) == 1:
        return Assembly((Branch(EVEN, (evened(op, order),)),), carry=carry)
    return Assembly((Branch(POOLED, (cells_of(op.window), evened(op, order))),), carry=carry)


def is_odd(op: object, kernels: Collection[int]) -> bool:
    """Whether a convolution extends by one of ``kernels``, all odd, along every axis on which it extends at all."""
    extents = [k for k in op.kernel if k > 1] if isinstance(op, Conv) and op.symmetric is None else []
    return bool(extents) and all(k % 2 and k in kernels for k in extents)


def groups_of(graph: Graph, kernels: Collection[int]) -> list[Group]:
    """Odd convolutions of ``kernels``, and strided 1x1 ones that must follow them, as they stand or fall together."""
    odd = [site for site in graph.convs() if is_odd(site.op, kernels)]
    found = [Group((site,), tuple(_by_channels(site))) for site in odd if max(site.op.window.stride) == 1]
    strided = [site for site in odd if max(site.op.window.stride) > 1]
    fixed = {site.id: (*_by_channels(site), *_by_positions(graph, site)) for site in strided}
    found += [Group((site,), fixed[site.id][:1]) for site in strided if fixed[site.id]]
    leading = {site.id for site in strided if not fixed[site.id]}
    points = [s for s in graph.convs() if graph.nodes and _is_strided_point(s) and not [*_by_positions(graph, s)]]
    movable = {site.id: site for site in (*strided, *points) if not fixed.get(site.id)}
    for ids, hindrances in _together(graph, movable) if leading else ():
        if not leading.isdisjoint(ids):
            found.append(Group(tuple(site for i, site in movable.items() if i in ids), hindrances))
    return found


def _by_channels(site: Site) -> Iterator[Hindrance]:
    """Why the channels of an odd convolution cannot be read from all sides alike."""
    op = site.op
    assert isinstance(op, Conv)
    channels, sides = op.in_channels // op.groups, 2 ** sum(k > 1 for k in op.kernel)
    if channels == 1 < op.groups:
        yield Hindrance("depthwise", "each output reads one channel, whose shift nothing cancels")
    elif channels < sides:
        yield Hindrance("few-channels", f"{channels} channels per group cannot be read from {sides} sides", "kept")
    elif channels % 2:
        rest = f"{channels} channels per group would be left with a mean shift of 1/{2 * channels} px"
        yield Hindrance("odd-channels", f"{rest}, where it has none", "kept")


def _is_strided_point(site: Site) -> bool:
    return isinstance(site.op, Conv) and max(site.op.kernel) == 1 < max(site.op.stride)


def _by_positions(graph: Graph, site: Site) -> Iterator[Hindrance]:
    """Why an average over cells and an even kernel would not have the outputs of a strided convolution."""
    op = site.op
    assert isinstance(op, Conv)
    strided = [a for a, s in enumerate(op.stride) if s > 1]
    if op.kernel == op.stride:
        yield Hindrance("patchify", "kernel and stride are equal: it reads each cell as a whole", "kept")
    elif graph.nodes is None:
        yield Hindrance("unseen-branches", "what its output is merged with shows with example_inputs only")
    elif any(op.padding[a] != ((op.kernel[a] - 1) // 2,) * 2 for a in strided):
        yield Hindrance("unpoolable", f"padding {op.padding} is not half of its kernel on each side")
    elif any(op.dilation[a] > 1 < op.kernel[a] for a in strided):
        yield Hindrance("unpoolable", f"its taps are {op.dilation} px apart, which cells of {op.stride} px are not")
    elif len(graph.conv_nodes[site.id].amounts) > graph.conv_nodes[site.id].own_pads:
        yield Hindrance("unpoolable", "an explicit pad before it is no padding of the averaged map")
    else:
        sizes = outputs(cells_of(op.window), (site.input_shape or ())[-op.window.rank :])
        if not can_fill(op, sizes):
            yield Hindrance("too-small", f"{op.padding_mode} cannot fill {op.padding} around a map of {sizes}")


@dataclass(frozen=True)
class _Moved:
    """Where a dimension sits, and by how much each convolution that becomes even would move it, in input pixels."""

    scale: Fraction
    offset: Fraction
    depth: int = 0
    by: tuple[tuple[str, Fraction], ...] = ()


@dataclass(frozen=True)
class _Meeting:
    """A place where branches meet: how far they are apart, and how far each convolution would move them apart."""

    told: str
    """What would happen there, as a clause."""
    apart: Fraction
    by: Mapping[str, Fraction]

    @property
    def possible(self) -> bool:
        """All together move nothing apart, or what was apart onto one place."""
        moved = sum(self.by.values(), Fraction(0))
        return moved == 0 or self.apart + moved == 0


def _together(graph: Graph, movable: Mapping[str, Site]) -> Iterator[tuple[frozenset[str], tuple[Hindrance, ...]]]:
    """Groups of strided convolutions that must all change or none, and what is in the way of that.

    Each moves what lies behind it by a number of pixels, whatever the others do: so one walk over the graph tells for
    every meeting of branches who would move them apart, and only together they may.
    """
    meetings, lost = _meetings(graph, movable)
    bound: nx.Graph[str] = nx.Graph()
    bound.add_nodes_from(movable)
    for meeting in meetings:
        nx.add_path(bound, meeting.by)
    for ids in map(frozenset, nx.connected_components(bound)):
        found = [
            Hindrance("unlike-branches", meeting.told)
            for meeting in meetings
            if not meeting.possible and not ids.isdisjoint(meeting.by)
        ]
        where = (lost[i] for i in movable if i in ids and i in lost)
        found += [Hindrance("unknown-positions", f"its positions are not followed through {name}") for name in where]
        yield ids, tuple(found[:1])


def _meetings(graph: Graph, movable: Mapping[str, Site]) -> tuple[list[_Meeting], dict[str, str]]:
    """Meetings at which some convolution moves branches apart; and per convolution where its positions are lost."""
    layout = read_layout(graph)
    at = {layout.sites[site.id]: site for site in movable.values()}
    meetings: list[_Meeting] = []

    def join(node: fx.Node, dim: int, given: Sequence[_Moved]) -> _Moved:
        main = max(given, key=lambda value: value.depth)
        for other in given:
            told = f"{_name(node)} would join it with a branch that does not move alike"
            meetings.extend(_met(told, other.offset - main.offset, other.by, main.by))
        return main

    def settle(node: fx.Node, dim: int, value: _Moved | None) -> _Moved | None:
        site = at.get(node)
        axis = dim - len(shape_of(node)) + site.op.window.rank if site is not None else -1
        if site is None or value is None or axis < 0 or site.op.window.stride[axis] == 1:
            return value
        stride = site.op.window.stride[axis]
        return replace(value, by=(*value.by, (site.id, value.scale / stride * Fraction(stride - 1, 2))))

    start = _Moved(Fraction(1), Fraction(0))
    fold = AxisFold[_Moved](layout, lambda n: start, _through, join, settle)
    for index, node in enumerate(layout.outputs):
        for d in range(len(layout.axes.get(node, ()))):
            value = fold.of(node, d)
            if value is not None and value.scale == 1:
                told = f"output {index}, as fine as the input, would move off its pixels"
                meetings.extend(_met(told, value.offset, value.by, ()))
    lost: dict[str, str] = {}
    for node, step in layout.steps.items():
        for read in step.reads if step.ended is not None else ():
            values = (fold.of(read.node, d) for d in range(len(layout.axes.get(read.node, ()))))
            lost |= {i: _name(node) for value in values if value is not None for i, _ in value.by if i not in lost}
    return meetings, lost


def _met(
    told: str, apart: Fraction, a: Iterable[tuple[str, Fraction]], b: Iterable[tuple[str, Fraction]]
) -> list[_Meeting]:
    by: dict[str, Fraction] = {}
    for sign, moves in ((1, a), (-1, b)):
        for site, amount in moves:
            by[site] = by.get(site, Fraction(0)) + sign * amount
    by = {site: amount for site, amount in by.items() if amount}
    return [_Meeting(told, apart, by)] if by else []


def _through(axis: AxisMap, value: _Moved, n: int) -> _Moved | None:
    phase = axis.phase(n)
    if phase is None:
        return None
    window = isinstance(axis, (Slide, Spread)) and axis.kernel > 1
    return replace(
        value,
        scale=value.scale * phase[0],
        offset=value.offset + value.scale * phase[1],
        depth=value.depth + window,
    )


def _name(node: fx.Node) -> str:
    where = node.meta["at"].owner.fqn if "at" in node.meta else node.meta.get("fqn")
    return f"{getattr(node.target, '__name__', node.name).strip('_')} in {where or 'the model'}"
