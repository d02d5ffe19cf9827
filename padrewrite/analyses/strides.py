"""Strides into rates: what every operation must become for a network to keep a finer grid, by dataflow.

An operation that would take the network past the wanted output stride loses its stride and keeps the rate in force
before it; every later window on that path is dilated, and padded, by the factor that was lost. Then, exactly and at
every position, ``new[..., ::factor] == old`` ([DLv3] Section 3.1, with borders and any input size).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import torch.fx as fx

from padrewrite.analyses.layout import Layout, Lost, read_layout
from padrewrite.graph import Graph, PoolSite, Site
from padrewrite.ops.axis import AxisMap, Bins, Same, Slide, Spread, Stretch, Whole
from padrewrite.ops.conv import Conv
from padrewrite.ops.following import read_step
from padrewrite.ops.pool import Pool
from padrewrite.ops.resample import Resample
from padrewrite.ops.step import Read, Regroup, Step, shape_of
from padrewrite.ops.window import Ints


@dataclass(frozen=True)
class Blocked:
    """Why nothing can be changed."""

    code: str
    reason: str


@dataclass(frozen=True)
class AxisState:
    """One dimension of a tensor: its scale in the old network, and how much finer it is in the new one."""

    scale: Fraction
    factor: int | None
    """None: as fine as what it is merged with, as after a resize to another tensor's size."""
    size: int | None
    """In the new network; None if it is not known."""


Windows = dict[int, tuple[int, AxisState]]
"""Per dimension of a window's output: its new stride, and the state of what it reads."""


@dataclass
class Regrid:
    """The change that brings a network to an output stride."""

    ops: dict[str, Conv | Pool] = field(default_factory=dict)
    """Per site that changes its new op; convolutions and pools."""
    grid: dict[str, Ints] = field(default_factory=dict)
    """Convolutions, pools and model outputs ("(output 0)") whose old values stand in the new ones at these steps."""
    ended: dict[str, str] = field(default_factory=dict)
    """Changed convolutions for which that is not so, and where it ended."""
    strided: list[str] = field(default_factory=list)
    """Sites that lose stride."""
    finest: int = 1
    """Output stride before the change."""
    blocked: Blocked | None = None


def regrid(graph: Graph, stride: int) -> Regrid:
    """What must change for no tensor to have a scale above ``stride`` input pixels per position."""
    return _Regridder(graph, stride).run()


class _Stop(Exception):
    def __init__(self, code: str, reason: str) -> None:
        self.blocked = Blocked(code, reason)


class _Regridder:
    def __init__(self, graph: Graph, stride: int) -> None:
        self.graph, self.stride = graph, stride
        self.layout: Layout = read_layout(graph)
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
            for node, step in self.layout.steps.items():
                self._step(node, step)
            self._note_outputs()
        except _Stop as stop:
            self.made.blocked = stop.blocked
        scales = [s.scale for node in self.site_of for s in self.states.get(node, ()) if s is not None]
        self.made.finest = int(max(scales, default=Fraction(1)))
        return self.made

    def _note_outputs(self) -> None:
        for index, node in enumerate(self.layout.outputs):
            states = self.states.get(node, ())[2:]
            factors = tuple(1 if s is None or s.factor is None else s.factor for s in states)
            if node not in self.ended and any(f > 1 for f in factors):
                self.made.grid[f"(output {index})"] = factors

    def _step(self, node: fx.Node, step: Step) -> None:
        reasons = [self.ended[read.node] for read in step.reads if read.node in self.ended]
        ends = next((reason for read in step.reads for reason in self._ends(node, step, read)), None)
        if reasons or ends:
            self.ended[node] = reasons[0] if reasons else f"{ends}"
        site = self.site_of.get(node)
        windows: Windows = {}
        found: list[AxisState | None] = []
        for d in range(len(shape_of(node))):
            given = [
                self._through(node, step, d, source[1], state, windows)
                for read in step.reads
                for source in (read.dims[d],)
                if isinstance(source, tuple)
                for state in (self.states[read.node][source[0]],)
                if state is not None
            ]
            found.append(self._join(node, step, given))
        self.states[node] = tuple(found)
        if site is not None:
            self._check_positions(node, site)
            self._change(node, site, windows)

    def _ends(self, node: fx.Node, step: Step, read: Read) -> Iterator[str]:
        """Why values on the grid are no longer those of the old network."""
        fine = [d for d, state in enumerate(self.states[read.node]) if state is not None and state.factor not in (1,)]
        kept = {s[0]: s[1] for s in read.dims if isinstance(s, tuple)}
        for d in fine:
            axis = kept.get(d)
            if d in read.pooled:
                yield f"{step.name}, whose statistics are taken over all positions"
            elif axis is None and step.kind == "reshape":
                self._check_head(node, read, d)
                yield f"{step.name}, which regroups positions"
            elif axis is None or isinstance(axis, Whole):
                yield f"{step.name}, which reads all positions"
            elif isinstance(axis, (Resample, Bins)):
                yield f"{step.name}, which resamples"

    def _check_head(self, node: fx.Node, read: Read, dim: int) -> None:
        """A flattened map with its channels goes into a layer of fixed size."""
        raw = next((r for r in read_step(node).reads if r.node is read.node), None)
        merged = [s for s in (raw.dims if raw is not None else ()) if isinstance(s, Regroup) and dim in s.dims]
        shape, states = shape_of(read.node), self.states[read.node]
        if any(states[d] is None and shape[d] > 1 for s in merged for d in s.dims):
            name = node.meta.get("fqn") or "the model"
            raise _Stop("fixed-size-head", f"{name} flattens the feature map for a layer of fixed size")

    def _through(
        self, node: fx.Node, step: Step, dim: int, axis: AxisMap, state: AxisState, windows: Windows
    ) -> AxisState | None:
        if isinstance(axis, Same):
            return state
        if isinstance(axis, Whole):
            return None
        if isinstance(axis, Stretch):
            return AxisState(state.scale, None, axis.count)
        if isinstance(axis, Slide) and node in self.site_of:
            return self._window(node, dim, axis, state, windows)
        if isinstance(axis, Resample) and axis.count is not None:
            return AxisState(state.scale * axis.ratio(axis.count), None if state.factor != 1 else 1, None)
        plain = isinstance(axis, Slide) and (axis.kernel, axis.stride, axis.lo, axis.hi) == (1, 1, 0, 0)
        if state.factor != 1 and isinstance(axis, Bins):
            return AxisState(state.scale, 1, axis.count)
        strided = isinstance(axis, Slide) and state.scale * axis.stride > self.stride and axis.stride > 1
        if (state.factor != 1 or strided) and not plain:
            raise _Stop(_blocking(axis), f"{self._name(node, step)} cannot work on the finer grid")
        period = axis.period(shape_of(step.reads[0].node)[0])
        scale = state.scale * Fraction(period[1], period[0]) if period is not None else state.scale
        return AxisState(scale, state.factor, None if state.size is None else axis.size(state.size))

    def _window(self, node: fx.Node, dim: int, axis: Slide, state: AxisState, windows: Windows) -> AxisState:
        if state.factor is None:
            raise _Stop("unknown-positions", f"{self.site_of[node].id} reads a map whose size another tensor sets")
        real, stride = state.scale / state.factor, axis.stride
        if real * stride > self.stride:
            left = self.stride / real
            if left.denominator != 1 or axis.stride % int(left):
                raise _Stop("uneven-stride", f"{self.site_of[node].id} goes from {real} to {real * stride}")
            stride = int(left)
        factor = state.factor * (axis.stride // stride)
        windows[dim] = (stride, state)
        reach = state.factor * axis.reach
        room = None if state.size is None else state.size + state.factor * (axis.lo + axis.hi) - reach - 1
        return AxisState(state.scale * axis.stride, factor, None if room is None else room // stride + 1)

    def _join(self, node: fx.Node, step: Step, given: Sequence[AxisState | None]) -> AxisState | None:
        states = [state for state in given if state is not None]
        if not states:
            return None
        factors = {state.factor for state in states} - {None}
        if len(factors) > 1:
            shown = " and ".join(str(f) for f in sorted(f for f in factors if f is not None))
            raise _Stop("unequal-branches", f"{self._name(node, step)} joins branches that lost strides of {shown}")
        known = [state for state in states if state.factor is not None]
        found = [state.size for state in known if state.factor != 1 and state.size is not None]
        sizes = sorted({n for n in found if n > 1})
        if len(sizes) > 1:
            shown = " and ".join(map(str, sizes))
            raise _Stop("unequal-sizes", f"on the finer grid {self._name(node, step)} would join sizes {shown}")
        return known[0] if known else states[0]

    def _check_positions(self, node: fx.Node, site: Site | PoolSite) -> None:
        """A window behind something that ended the grid must still know its factor."""
        rank = len(shape_of(node))
        dims = range(rank - site.op.window.rank, rank)
        lost = any(isinstance(self.layout.axes[node][d], Lost) for d in dims)
        if lost and node in self.ended and max(site.op.kernel) > 1:
            raise _Stop("unknown-positions", f"{site.id} reads positions that are not followed: {self.ended[node]}")

    def _change(self, node: fx.Node, site: Site | PoolSite, windows: Windows) -> None:
        op = site.op
        rank = len(shape_of(node))
        dims = [rank - op.window.rank + a for a in range(op.window.rank)]
        axes = [windows.get(d) for d in dims]
        states = [self.states[node][d] for d in dims]
        factors = tuple(1 if s is None or s.factor is None else s.factor for s in states)
        if any(f > 1 for f in factors):
            if node in self.ended:
                self.made.ended[site.id] = self.ended[node]
            else:
                self.made.grid[site.id] = factors
        if all(a is None or (a[0] == s and a[1].factor == 1) for a, s in zip(axes, op.window.stride)):
            return
        before = tuple(1 if a is None or a[1].factor is None else a[1].factor for a in axes)
        strides = tuple(s if a is None else a[0] for a, s in zip(axes, op.window.stride))
        _check_op(site, before, [a[1].size if a is not None else None for a in axes])
        w = op.window
        window = replace(
            w,
            stride=strides,
            dilation=tuple(d * f if k > 1 else d for k, d, f in zip(w.kernel, w.dilation, before)),
            lo=tuple(p * f for p, f in zip(w.lo, before)),
            hi=tuple(p * f for p, f in zip(w.hi, before)),
        )
        if strides != w.stride:
            self.made.strided.append(site.id)
        if window != w:
            assert isinstance(op, (Conv, Pool))
            self.made.ops[site.id] = replace(op, window=window)

    def _name(self, node: fx.Node, step: Step) -> str:
        site = self.site_of.get(node)
        return site.id if site is not None else f"{step.name} in {node.meta.get('fqn') or 'the model'}"


def _blocking(axis: AxisMap) -> str:
    return "transposed" if isinstance(axis, Spread) else "fixed-upsampling" if isinstance(axis, Resample) else "cropped"


def _check_op(site: Site | PoolSite, before: Ints, sizes: Sequence[int | None]) -> None:
    op = site.op
    if isinstance(op, Pool) and op.ceil:
        raise _Stop("ceil-mode", f"{site.id} rounds its size up, which depends on the stride")
    if isinstance(op, Conv) and any(f > 1 for f in before):
        if not site.handle.pads_fixed:
            raise _Stop("size-dependent-padding", f"the padding of {site.id} is computed from its input's size")
        for a in op.padded_axes:
            mode, f, n = op.modes[a], before[a], sizes[a]
            fits = mode == "zeros" or f == 1 or (n is not None and (n if mode == "circular" else n - 1) % f == 0)
            if not fits:
                rule = "its size" if mode == "circular" else "its size less 1"
                raise _Stop("border-mode", f"{site.id} pads by {mode}: {rule} ({n}) must be a multiple of {f}")

