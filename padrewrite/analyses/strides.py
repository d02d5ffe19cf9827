"""Strides into rates: what every operation must become for a network to keep a finer grid, by dataflow.

An operation that would take the network past the wanted output stride loses its stride and keeps the rate in force
before it; every later window on that path is dilated, and padded, by the factor that was lost. Then, exactly and at
every position, ``new[..., ::factor] == old`` ([DLv3] Section 3.1, with borders and any input size).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch.fx as fx

from padrewrite.analyses.fineness import AxisState, size_stays, why_it_ends
from padrewrite.analyses.layout import Layout, Lost, read_layout
from padrewrite.analyses.lengthening import End, ends_behind
from padrewrite.analyses.refitting import Refit, refit
from padrewrite.errors import RegionBlocked
from padrewrite.graph import Graph, PoolSite, Site
from padrewrite.ops.axis import AxisMap, Bins, Same, Slide, Spread, Stretch, Whole
from padrewrite.ops.conv import Conv
from padrewrite.ops.pool import Pool
from padrewrite.ops.resample import Resample
from padrewrite.ops.step import Read, Step, shape_of
from padrewrite.ops.window import Ints


@dataclass(frozen=True)
class Blocked:
    """Why nothing can be changed."""

    code: str
    reason: str


Windows = dict[int, Refit]
"""Per dimension of a window's output what becomes of it."""
Given = tuple[fx.Node, int, AxisMap, AxisState]
"""An operand, its dimension, how that is read, and what becomes of it."""


@dataclass
class Regrid:
    """The change that brings a network to an output stride."""

    ops: dict[str, Conv | Pool] = field(default_factory=dict)
    """Per site that changes its new op; convolutions and pools."""
    finer: dict[str, Ints] = field(default_factory=dict)
    """Convolutions and pools whose output is finer, and how much."""
    grid: dict[str, Ints] = field(default_factory=dict)
    """Convolutions, pools and model outputs ("(output 0)") whose old values stand in the new ones at these steps."""
    ended: dict[str, str] = field(default_factory=dict)
    """Changed operations and model outputs for which that is not so, and where it ended."""
    strided: list[str] = field(default_factory=list)
    """Sites that lose stride."""
    finest: int = 1
    """Output stride before the change."""
    blocked: Blocked | None = None


def regrid(graph: Graph, stride: int) -> Regrid:
    """What must change for no tensor to have a scale above ``stride`` input pixels per position."""
    layout = read_layout(graph)
    longer: Counter[End] = Counter()
    while True:
        one = _Regridder(graph, layout, stride, longer)
        made = one.run()
        if made.blocked is not None or not one.short:
            return made
        longer.update(one.short)


class _Regridder:
    def __init__(self, graph: Graph, layout: Layout, stride: int, longer: Mapping[End, int]) -> None:
        self.graph, self.layout, self.stride, self.longer = graph, layout, stride, longer
        self.short: dict[End, int] = {}
        """Windows whose branch is shorter than what it is merged with, and by how many positions."""
        self.states: dict[fx.Node, tuple[AxisState | None, ...]] = {}
        self.ended: dict[fx.Node, str] = {}
        self.made = Regrid()
        self.site_of: Mapping[fx.Node, Site | PoolSite] = {
            **{graph.node_of(s.id): s for s in graph.convs()},
            **{graph.pool_nodes[i]: s for i, s in graph.pools.items()},
        }

    def run(self) -> Regrid:
        for node in self.layout.inputs:
            self.states[node] = tuple(AxisState(Fraction(1), 1, n) for n in node.meta.get("shape", ()))
        try:
            folded = _folded_pads(self.graph)
            for node, step in self.layout.steps.items():
                if node not in folded:
                    self._step(node, step)
            self._note_outputs()
        except RegionBlocked as stop:
            self.made.blocked = Blocked(stop.code, stop.reason)
        scales = [s.scale for node in self.site_of for s in self.states.get(node, ()) if s is not None]
        self.made.finest = int(max(scales, default=Fraction(1)))
        return self.made

    def _note_outputs(self) -> None:
        assert self.graph.nodes is not None
        outputs: Any = next(n for n in self.graph.nodes.nodes if n.op == "output").args[0]
        for index, node in enumerate(outputs):
            states = self.states.get(node, ())
            factors = _factors(states, max(0, len(states) - 2))
            if node in self.ended:
                self.made.ended[f"(output {index})"] = self.ended[node]
            elif any(f > 1 for f in factors):
                self.made.grid[f"(output {index})"] = factors

    def _step(self, node: fx.Node, step: Step) -> None:
        reasons = [self.ended[n] for n in (*(read.node for read in step.reads), *step.besides) if n in self.ended]
        ends = why_it_ends(node, step, self.states)
        if reasons or ends:
            self.ended[node] = reasons[0] if reasons else f"{self._name(node, step)}, {ends}"
        site = self.site_of.get(node)
        windows: Windows = {}
        found: list[AxisState | None] = []
        for d in range(len(shape_of(node))):
            given = [
                (read.node, *source, state)
                for read in step.reads
                for source in (read.dims[d],)
                if isinstance(source, tuple) and self.states[read.node][source[0]] is not None
                for state in (self._through(node, step, d, read, source, windows),)
                if state is not None
            ]
            found.append(self._join(node, step, given))
        self.states[node] = tuple(found)
        if site is not None:
            self._check_positions(node, site)
            self._change(node, site, windows)

    def _through(
        self, node: fx.Node, step: Step, dim: int, read: Read, source: tuple[int, AxisMap], windows: Windows
    ) -> AxisState | None:
        place, axis = source
        n, state = shape_of(read.node)[place], self.states[read.node][place]
        assert state is not None
        if isinstance(axis, Same):
            return state
        if isinstance(axis, Whole):
            return None
        if isinstance(axis, Stretch):
            return self._stretched(node, step, axis, state)
        if isinstance(axis, Slide) and node in self.site_of:
            return self._window(node, dim, axis, state, windows)
        if isinstance(axis, (Bins, Resample)) and axis.count is not None:
            factor = self._factor_of_size(node, dim - len(shape_of(node)), axis.count, state)
            if factor != 1:
                self.ended.setdefault(node, f"{self._name(node, step)}, which resamples to the size of another map")
            scale = Fraction(0) if isinstance(axis, Bins) else state.scale * Fraction(n, axis.count)
            return AxisState(scale, factor, axis.count if factor == 1 else None)
        plain = isinstance(axis, Slide) and (axis.kernel, axis.stride, axis.lo, axis.hi) == (1, 1, 0, 0)
        strided = isinstance(axis, Slide) and state.scale * axis.stride > self.stride and axis.stride > 1
        if (state.factor != 1 or strided) and not plain:
            raise RegionBlocked(_blocking(axis), f"{self._name(node, step)} cannot work on the finer grid")
        period = axis.period(n)
        scale = state.scale * Fraction(period[1], period[0]) if period is not None else state.scale
        return AxisState(scale, state.factor, None if state.size is None else axis.size(state.size))

    def _stretched(self, node: fx.Node, step: Step, axis: Stretch, state: AxisState) -> AxisState:
        """One position, repeated: there must still be one."""
        if state.factor != 1 and state.size != 1:
            told = f"{self._name(node, step)} repeats a map of one position, which would have {state.size}"
            raise RegionBlocked("unequal-sizes", told)
        return AxisState(state.scale, None, axis.count)

    def _factor_of_size(self, node: fx.Node, axis: int, count: int, state: AxisState) -> int | None:
        """1 if a map is resized to a size that stays; None if that may be the size of a map on the finer grid."""
        if size_stays(node, axis, self.graph.how == "symbolic"):
            return 1
        finer = (
            shape_of(other)[d] == count
            for other, states in self.states.items()
            for d, s in enumerate(states)
            if s is not None and s.factor != 1
        )
        return None if state.factor != 1 or any(finer) else 1

    def _window(self, node: fx.Node, dim: int, axis: Slide, state: AxisState, windows: Windows) -> AxisState:
        site, stride = self.site_of[node].id, axis.stride
        if state.factor is None and (axis.kernel, stride, axis.lo, axis.hi) == (1, 1, 0, 0):
            windows[dim] = Refit(1, state)
            return state
        if state.factor is None:
            raise RegionBlocked("unknown-positions", f"{site} reads a map whose size another tensor sets")
        real = state.scale / state.factor
        if real * stride > self.stride:
            left = self.stride / real
            if left.denominator != 1 or stride % int(left):
                told = f"{site} goes from a stride of {real} to {real * stride}, past {self.stride}"
                raise RegionBlocked("uneven-stride", told)
            stride = int(left)
        factor = state.factor * (axis.stride // stride)
        shape = shape_of(node)
        windows[dim] = Refit(stride, state, self.longer.get((site, dim - len(shape)), 0))
        size = windows[dim].size(axis)
        if windows[dim].longer and size is not None and size > shape[dim] * factor:
            raise RegionBlocked("unequal-sizes", f"{site} would have to be {size} long, past its old positions")
        return AxisState(state.scale * axis.stride, factor, size)

    def _join(self, node: fx.Node, step: Step, given: Sequence[Given]) -> AxisState | None:
        if not given:
            return None
        states = [state for *_, state in given]
        factors = {state.factor for state in states} - {None}
        if len(factors) > 1:
            shown = " and ".join(str(f) for f in sorted(f for f in factors if f is not None))
            told = f"{self._name(node, step)} joins branches that lost strides of {shown}"
            raise RegionBlocked("unequal-branches", told)
        known = [state for state in states if state.factor is not None]
        # A branch resized to the size of the other has a scale near that of the other.
        joined = max(known or states, key=lambda state: (-state.scale.denominator, state.scale))
        found = [state.size for state in known if state.factor != 1 and state.size is not None and state.size > 1]
        if len(set(found)) < 2:
            return joined
        for source, place, axis, state in given:
            if state.size is not None and 1 < state.size < max(found) and state.factor is not None:
                self._lengthen(node, step, source, place if isinstance(axis, Same) else None, state.size, max(found))
        return replace(joined, size=max(found))

    def _lengthen(self, node: fx.Node, step: Step, source: fx.Node, dim: int | None, size: int, wanted: int) -> None:
        ends = None if dim is None else ends_behind(source, dim, self.layout, self.site_of, self.states)
        if ends is None:
            told = f"on the finer grid {self._name(node, step)} would join sizes {size} and {wanted}"
            raise RegionBlocked("unequal-sizes", told)
        for end in ends:
            self.short[end] = max(self.short.get(end, 0), wanted - size)

    def _check_positions(self, node: fx.Node, site: Site | PoolSite) -> None:
        """A window behind something that ended the grid must still know its factor, and a stride what it adds to."""
        lost = [axis.reason for axis in self.layout.axes[node][-site.op.window.rank :] if isinstance(axis, Lost)]
        if lost and (max(site.op.window.stride) > 1 or (node in self.ended and max(site.op.kernel) > 1)):
            raise RegionBlocked("unknown-positions", f"{site.id} reads positions that are not followed: {lost[0]}")

    def _change(self, node: fx.Node, site: Site | PoolSite, windows: Windows) -> None:
        op = site.op
        rank = len(shape_of(node))
        dims = [rank - op.window.rank + a for a in range(op.window.rank)]
        axes = [windows.get(d) for d in dims]
        factors = _factors(self.states[node], op.window.rank)
        if any(f > 1 for f in factors):
            self.made.finer[site.id] = factors
            if node in self.ended:
                self.made.ended[site.id] = self.ended[node]
            else:
                self.made.grid[site.id] = factors
        if not any(a is not None and a.changes(s) for a, s in zip(axes, op.window.stride)):
            return
        new = refit(site, axes)
        if new.window.stride != op.window.stride:
            self.made.strided.append(site.id)
        if new != op:
            self.made.ops[site.id] = new

    def _name(self, node: fx.Node, step: Step) -> str:
        site = self.site_of.get(node)
        return site.id if site is not None else f"{step.name} in {node.meta.get('fqn') or 'the model'}"


def _folded_pads(graph: Graph) -> set[fx.Node]:
    """Explicit pads that nothing reads but the convolutions of whose padding they are part."""
    assert graph.nodes is not None
    into: dict[fx.Node, set[fx.Node]] = {}
    for conv in graph.conv_nodes.values():
        for pad in conv.pads:
            into.setdefault(pad, set()).add(conv.node)
    folded: set[fx.Node] = set()
    for pad in reversed(graph.nodes.nodes):
        if pad in into and all(user in into[pad] or user in folded for user in pad.users):
            folded.add(pad)
    return folded


def _factors(states: Sequence[AxisState | None], least: int) -> Ints:
    """The steps of a grid, one for each of the last dimensions: ``least`` of them, and more if need be."""
    found = [1 if s is None or s.factor is None else s.factor for s in states]
    while len(found) > least and found[0] == 1:
        found = found[1:]
    return tuple(found)


def _blocking(axis: AxisMap) -> str:
    return "transposed" if isinstance(axis, Spread) else "fixed-upsampling" if isinstance(axis, Resample) else "cropped"
