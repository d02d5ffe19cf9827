"""Dilated chains, found by dataflow: runs of stride-1 convolutions at one resolution, each fed by the one before.

A convolution continues a chain if every path into it passes through the chain's last one: residual branches without
spatial convolutions of their own and dense concatenations are part of a chain, parallel branches (ASPP) never are.
[HDC] Section 3.2; the exact tests are those of ``padrewrite.formulas``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

import torch.fx as fx

from padrewrite import formulas
from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import Layout
from padrewrite.ops.axis import AxisMap, Same, Shift, Slide, Stretch, Whole
from padrewrite.ops.step import Read


@dataclass(frozen=True)
class Gridding:
    """How a run of rates along one axis covers what it spans."""

    rates: tuple[int, ...]
    kernels: tuple[int, ...]
    m2: int
    """The paper's M_2; compare it with the kernel."""
    hole_free: bool
    """Exact: every position in the span is reached."""
    score: float
    """0 is even; 1 means that the run splits into networks that never share an input."""
    networks: int
    """Along this axis, how many networks that never share an input the run splits into: the rates' common divisor."""

    @classmethod
    def of(cls, rates: Sequence[int], kernels: Sequence[int]) -> Gridding:
        return cls(
            tuple(rates),
            tuple(kernels),
            formulas.max_gap(rates, max(kernels)),
            formulas.is_hole_free(rates, kernels),
            formulas.gridding_score(rates, kernels),
            gcd(*rates),
        )


@dataclass(frozen=True)
class Chain:
    """Dilated convolutions in series."""

    sites: tuple[str, ...]
    """From the first dilated one to the last; with the one of rate 1 right before them if the rates ramp up from it,
    and with those of rate 1 behind them if the rates have come down again."""
    lead_in: tuple[str, ...]
    """Convolutions before them at the same resolution, all of rate 1."""
    axes: tuple[int, ...]
    """Spatial axes that these numbers hold for."""
    alone: Gridding
    with_lead_in: Gridding
    context: bool = False
    """Between them a global pool, a gate or a norm's statistics mixes all positions: the numbers are the windows'."""

    @property
    def rates(self) -> tuple[int, ...]:
        return self.alone.rates

    @property
    def m2(self) -> int:
        return self.alone.m2

    @property
    def hole_free(self) -> bool:
        """Of the chain alone; see ``with_lead_in`` for what the network really does."""
        return self.alone.hole_free

    @property
    def gridding_score(self) -> float:
        return self.alone.score


def find_chains(layout: Layout) -> tuple[Chain, ...]:
    """Every chain of two or more convolutions, in execution order."""
    site_of = {node: site for site, node in layout.sites.items()}
    found: list[Chain] = []
    for run in _runs(layout, set(site_of)):
        windows = [_windows(layout, node) for node in run]
        if len({len(w) for w in windows}) > 1:
            continue  # along some axis positions are lost on the way
        by_numbers: dict[tuple[Gridding, Gridding, tuple[str, ...], tuple[str, ...]], list[int]] = {}
        for axis in range(len(windows[0])):
            chain = _along(axis, [w[axis] for w in windows], [site_of[node] for node in run])
            if chain is not None:
                by_numbers.setdefault(chain, []).append(axis)
        for (alone, together, sites, lead_in), axes in by_numbers.items():
            context = _mixes_all(layout, layout.sites[sites[0]], layout.sites[sites[-1]])
            found.append(Chain(sites, lead_in, tuple(axes), alone, together, context))
    return tuple(found)


def _mixes_all(layout: Layout, first: fx.Node, last: fx.Node) -> bool:
    """Whether a position meets all others on the way from what ``first`` makes to what ``last`` reads."""
    before, behind = layout.before([last]), {first}
    for node, step in layout.steps.items():
        reads = [read for read in step.reads if read.node in behind]
        if reads and node in before:
            behind.add(node)
            if any(read.pooled or any(_is_whole(layout, read, d) for d in layout.spatial(read.node)) for read in reads):
                return True
    return False


def _is_whole(layout: Layout, read: Read, dim: int) -> bool:
    """Whether a dimension of what is read goes into all positions."""
    ways = [s[1] for s in read.dims if isinstance(s, tuple) and s[0] == dim]
    return dim not in dict(read.at) and all(isinstance(way, Whole) for way in ways)


def _along(
    axis: int, windows: Sequence[Slide], sites: Sequence[str]
) -> tuple[Gridding, Gridding, tuple[str, ...], tuple[str, ...]] | None:
    spatial = [i for i, w in enumerate(windows) if w.kernel > 1]
    rates, kernels = [windows[i].dilation for i in spatial], [windows[i].kernel for i in spatial]
    first, end = _extent(rates)
    if end - first < 2:
        return None
    alone, together = Gridding.of(rates[first:end], kernels[first:end]), Gridding.of(rates[:end], kernels[:end])
    return alone, together, tuple(sites[i] for i in spatial[first:end]), tuple(sites[i] for i in spatial[:first])


def _extent(rates: Sequence[int]) -> tuple[int, int]:
    """Where the chain begins and ends among the rates of a run; (0, 0) if nothing is dilated."""
    dilated = [i for i, rate in enumerate(rates) if rate > 1]
    if not dilated:
        return 0, 0
    first, last = dilated[0], dilated[-1]
    following = rates[first + 1] if first + 1 < len(rates) else 1
    ramps_up = first > 0 and (following > rates[first] or following == 1)
    comes_down = rates[last] < max(rates)
    return first - ramps_up, len(rates) if comes_down else last + 1


def _windows(layout: Layout, node: fx.Node) -> list[Slide]:
    read = layout.steps[node].reads[0]  # of several, as of few channels from several sides, windows are alike
    return [s[1] for s in read.dims if isinstance(s, tuple) and isinstance(s[1], Slide)]


def _runs(layout: Layout, sites: set[fx.Node]) -> list[list[fx.Node]]:
    flow = Flow(layout)
    joined: set[fx.Node] = set()
    runs: list[list[fx.Node]] = []
    after = dict(flow.links(lambda node: node in sites and _keeps_resolution(layout, node)))
    for node in flow.spatial:
        if node in joined or node not in sites or not _keeps_resolution(layout, node):
            continue
        run = [node]
        while run[-1] in after:
            run.append(after[run[-1]])
        joined.update(run)
        runs.append(run)
    return runs


def _keeps_resolution(layout: Layout, node: fx.Node) -> bool:
    windows = _windows(layout, node)
    return bool(windows) and all(w.stride == 1 for w in windows)


def _moves(axis: AxisMap) -> bool:
    """Whether an axis is read through a window or made finer. Skipping positions (1x1 of stride 2) adds no offset."""
    if isinstance(axis, Slide):
        return axis.kernel > 1
    return not isinstance(axis, (Same, Stretch, Shift, Whole))


def _scale_through(axis: AxisMap, scale: Fraction, n: int) -> Fraction:
    period = axis.period(n)
    return scale if period is None else scale * Fraction(period[1], period[0])


class Flow:
    """Which spatial operation feeds which, as bit sets over the steps in execution order."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        order = list(layout.steps)
        self._bit: Mapping[fx.Node, int] = {node: 1 << i for i, node in enumerate(order)}
        self._node = order
        self.spatial = [node for node in order if self._is_spatial(node)]
        self._sources: dict[fx.Node, int] = {}
        """The nearest spatial operations behind a node."""
        self._before: dict[fx.Node, int] = {}
        """All spatial operations behind a spatial one."""
        self._feeds: dict[fx.Node, list[fx.Node]] = {}
        spatial = set(self.spatial)
        for node in order:
            near = 0
            for read in layout.steps[node].reads:
                if not self._is_context(node, read.dims):
                    near |= self._bit[read.node] if read.node in spatial else self._sources.get(read.node, 0)
            self._sources[node] = near
            if node in spatial:
                behind = 0
                for before in self._members(near):
                    behind |= self._before[before]
                self._before[node] = behind | near
                for before in self._members(near & ~behind):
                    self._feeds.setdefault(before, []).append(node)
        self._ahead = self._descendants(order)
        self._scales = AxisFold[Fraction](layout, lambda n: Fraction(1), _scale_through, lambda node, dim, s: max(s))

    def links(self, allowed: Callable[[fx.Node], bool]) -> list[tuple[fx.Node, fx.Node]]:
        """(u, v): every path into v passes through u, and u's other readers never meet v again."""
        keeps = [n for n in self.spatial if allowed(n)]
        chosen = set(keeps)
        found: list[tuple[fx.Node, fx.Node]] = []
        for u in keeps:
            feeds = self._feeds.get(u, [])
            for v in feeds:
                single = self._direct(v) == self._bit[u] and self._one_resolution(u, v)
                apart = all(self._ahead[v] & self._ahead[w] == 0 for w in feeds if w is not v)
                if v in chosen and single and apart:
                    found.append((u, v))
                    break
        return found

    def _one_resolution(self, u: fx.Node, v: fx.Node) -> bool:
        """Whether ``v`` reads positions as far apart as those of ``u``."""
        read = self.layout.steps[v].reads[0]
        places = [(d, s[0]) for d, s in enumerate(read.dims) if isinstance(s, tuple) and isinstance(s[1], Slide)]
        return all(self._scales.of(u, d) == self._scales.of(read.node, source) for d, source in places)

    def _direct(self, node: fx.Node) -> int:
        """Spatial operations right behind ``node``, those left out that are behind another of them."""
        near = self._sources[node]
        behind = 0
        for before in self._members(near):
            behind |= self._before[before]
        return near & ~behind

    def _descendants(self, order: Sequence[fx.Node]) -> dict[fx.Node, int]:
        ahead: dict[fx.Node, int] = {}
        for node in reversed(order):
            bits = self._bit[node]
            for user in self.layout.users.get(node, ()):
                bits |= ahead[user]
            ahead[node] = bits
        return ahead

    def _members(self, bits: int) -> list[fx.Node]:
        found: list[fx.Node] = []
        while bits:
            low = bits & -bits
            found.append(self._node[low.bit_length() - 1])
            bits ^= low
        return found

    def _is_spatial(self, node: fx.Node) -> bool:
        reads = self.layout.steps[node].reads
        moved = any(isinstance(s, tuple) and _moves(s[1]) for read in reads for s in read.dims)
        return moved or any(self._is_not_followed(node, read) for read in reads)

    def _is_not_followed(self, node: fx.Node, read: Read) -> bool:
        """Whether positions that were lost come in along a dimension that others give positions: from anywhere."""
        if self.layout.lost(read.node) is None:
            return False
        return not all(isinstance(read.dims[d], tuple) for d in self.layout.spatial(node))

    def _is_context(self, node: fx.Node, dims: Sequence[object]) -> bool:
        spatial = self.layout.spatial(node)
        followed = [s for d in spatial for s in (dims[d],) if isinstance(s, tuple)]
        return bool(spatial) and not any(not isinstance(s[1], Whole) for s in followed)
