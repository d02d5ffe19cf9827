"""Strides into rates: what every operation must become for a network to keep a finer grid, by dataflow.

An operation that would take the network past the wanted output stride loses its stride and keeps the rate in force
before it; every later window on that path is dilated, and padded, by the factor that was lost. Then, exactly and at
every position, ``new[..., ::factor] == old`` ([DLv3] Section 3.1, with borders and any input size).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch.fx as fx

from padrewrite.analyses.layout import Layout, Lost, read_layout
from padrewrite.analyses.uniform import is_uniform
from padrewrite.errors import RegionBlocked
from padrewrite.graph import Graph, PoolSite, Site
from padrewrite.ops.axis import AxisMap, Bins, Same, Slide, Spread, Stretch, Whole
from padrewrite.ops.conv import Conv
from padrewrite.ops.following import read_step
from padrewrite.ops.pool import Pool
from padrewrite.ops.resample import Resample
from padrewrite.ops.sizes import evaluate_size
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
    """Input pixels per position; 0 behind an adaptive pool, whose bins are no grid."""
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
        except RegionBlocked as stop:
            self.made.blocked = Blocked(stop.code, stop.reason)
        scales = [s.scale for node in self.site_of for s in self.states.get(node, ()) if s is not None]
        self.made.finest = int(max(scales, default=Fraction(1)))
        return self.made

    def _note_outputs(self) -> None:
        assert self.graph.nodes is not None
        outputs: Any = next(n for n in self.graph.nodes.nodes if n.op == "output").args[0]
        for index, node in enumerate(outputs):
            factors = _factors(self.states.get(node, ()), max(0, len(self.states.get(node, ())) - 2))
            if node not in self.ended and any(f > 1 for f in factors):
                self.made.grid[f"(output {index})"] = factors

    def _step(self, node: fx.Node, step: Step) -> None:
        reasons = [self.ended[n] for n in (*(read.node for read in step.reads), *step.besides) if n in self.ended]
        ends = next((reason for read in step.reads for reason in self._ends(node, step, read)), None)
        ends = ends or self._made_up(node, step)
        if reasons or ends:
            self.ended[node] = reasons[0] if reasons else f"{ends}"
        site = self.site_of.get(node)
        windows: Windows = {}
        found: list[AxisState | None] = []
        for d in range(len(shape_of(node))):
            given = [
                self._through(node, step, d, read, source, windows)
                for read in step.reads
                for source in (read.dims[d],)
                if isinstance(source, tuple) and self.states[read.node][source[0]] is not None
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
                self._check_head(node, step, read, d)
                yield f"{step.name}, which regroups positions"
            elif axis is None or isinstance(axis, Whole):
                self._check_linear(node, step, d)
                yield f"{step.name}, which reads all positions"
            elif isinstance(axis, (Resample, Bins)):
                yield f"{step.name}, which resamples"

    def _made_up(self, node: fx.Node, step: Step) -> str | None:
        """Why not, where positions meet values that the forward makes for each of them (coordinates, noise)."""
        for n in step.besides:
            if any(s is not None and s.factor != 1 for s in self.states.get(n, ())):
                raise RegionBlocked("unknown-positions", f"the weight of {self._name(node, step)} is a map on the finer grid")
        fine = [d for d, s in enumerate(self._joined_factors(node, step)) if s != 1]
        if not fine or len(node.all_input_nodes) < 2 or node in self.site_of:
            return None
        for read in read_step(node).reads:
            for source in (read.dims[d] for d in fine):
                state = self.states.get(read.node, ())[source[0]] if isinstance(source, tuple) else None
                if isinstance(source, tuple) and state is None and not is_uniform(read.node, source[0]):
                    return f"{step.name}, which reads values made for each position"
        return None

    def _joined_factors(self, node: fx.Node, step: Step) -> list[int | None]:
        """Per dimension of a result a factor that some operand has there, 1 if none has."""
        found: list[int | None] = [1] * len(shape_of(node))
        for read in step.reads:
            for d, source in enumerate(read.dims):
                state = self.states[read.node][source[0]] if isinstance(source, tuple) else None
                found[d] = state.factor if state is not None and state.factor != 1 else found[d]
        return found

    def _check_head(self, node: fx.Node, step: Step, read: Read, dim: int) -> None:
        """A flattened map with its channels goes into a layer of fixed size; so does one that was a single position."""
        raw = next((r for r in read_step(node).reads if r.node is read.node), None)
        merged = [s for s in (raw.dims if raw is not None else ()) if isinstance(s, Regroup) and dim in s.dims]
        shape, states = shape_of(read.node), self.states[read.node]
        state, name = states[dim], node.meta.get("fqn") or "the model"
        if any(states[d] is None and shape[d] > 1 for s in merged for d in s.dims):
            raise RegionBlocked("fixed-size-head", f"{name} flattens the map for a layer of fixed size")
        if shape[dim] == 1 and step.name != "getitem" and state is not None and state.size != 1:
            raise RegionBlocked("fixed-size-head", f"{name} drops a dimension of size 1, which would have {state.size}")

    def _check_linear(self, node: fx.Node, step: Step, dim: int) -> None:
        if step.name == "linear" and dim == len(shape_of(node)) - 1:
            raise RegionBlocked("fixed-size-head", f"{self._name(node, step)} multiplies positions by a matrix of fixed size")

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
        if isinstance(axis, Bins):
            return AxisState(Fraction(0), 1, axis.count)
        if isinstance(axis, Resample) and axis.count is not None:
            factor = self._factor_of_size(node, dim - len(shape_of(node)), axis.count, state)
            return AxisState(state.scale * Fraction(n, axis.count), factor, axis.count if factor == 1 else None)
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
        """1 if a map is resized to a size that stays; None if it may be that of a map on the finer grid."""
        size = node.kwargs.get("size", node.args[1] if len(node.args) > 1 else None)
        one: Any = size[axis] if isinstance(size, (tuple, list)) else size
        if isinstance(one, fx.Node):
            stays = one.target is evaluate_size and one.args[0] in one.args[1]  # pyright: ignore[reportOperatorIssue]
        else:
            stays = self.graph.how == "symbolic"
        finer = (
            shape_of(other)[d] == count
            for other, states in self.states.items()
            for d, s in enumerate(states)
            if s is not None and s.factor != 1
        )
        return 1 if stays or (state.factor == 1 and not any(finer)) else None

    def _window(self, node: fx.Node, dim: int, axis: Slide, state: AxisState, windows: Windows) -> AxisState:
        site, stride = self.site_of[node].id, axis.stride
        if state.factor is None and (axis.kernel, stride, axis.lo, axis.hi) == (1, 1, 0, 0):
            windows[dim] = (1, state)
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
            told = f"{self._name(node, step)} joins branches that lost strides of {shown}"
            raise RegionBlocked("unequal-branches", told)
        known = [state for state in states if state.factor is not None]
        found = [state.size for state in known if state.factor != 1 and state.size is not None]
        sizes = sorted({n for n in found if n > 1})
        if len(sizes) > 1:
            shown = " and ".join(map(str, sizes))
            raise RegionBlocked("unequal-sizes", f"on the finer grid {self._name(node, step)} would join sizes {shown}")
        # A branch resized to the size of the other has a scale near that of the other.
        return max(known or states, key=lambda state: (-state.scale.denominator, state.scale))

    def _check_positions(self, node: fx.Node, site: Site | PoolSite) -> None:
        """A window behind something that ended the grid must still know its factor."""
        rank = len(shape_of(node))
        dims = range(rank - site.op.window.rank, rank)
        lost = any(isinstance(self.layout.axes[node][d], Lost) for d in dims)
        if lost and node in self.ended and max(site.op.kernel) > 1:
            told = f"{site.id} reads positions that are not followed: {self.ended[node]}"
            raise RegionBlocked("unknown-positions", told)

    def _change(self, node: fx.Node, site: Site | PoolSite, windows: Windows) -> None:
        op = site.op
        rank = len(shape_of(node))
        dims = [rank - op.window.rank + a for a in range(op.window.rank)]
        axes = [windows.get(d) for d in dims]
        factors = _factors(self.states[node], op.window.rank)
        if any(f > 1 for f in factors):
            if node in self.ended:
                self.made.ended[site.id] = self.ended[node]
            else:
                self.made.grid[site.id] = factors
        if all(a is None or (a[0] == s and a[1].factor in (1, None)) for a, s in zip(axes, op.window.stride)):
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


def _factors(states: Sequence[AxisState | None], least: int) -> Ints:
    """The steps of a grid, one for each of the last dimensions: ``least`` of them, and more if need be."""
    found = [1 if s is None or s.factor is None else s.factor for s in states]
    while len(found) > least and found[0] == 1:
        found = found[1:]
    return tuple(found)


def _blocking(axis: AxisMap) -> str:
    return "transposed" if isinstance(axis, Spread) else "fixed-upsampling" if isinstance(axis, Resample) else "cropped"


def _check_op(site: Site | PoolSite, before: Ints, sizes: Sequence[int | None]) -> None:
    op = site.op
    if isinstance(op, Pool) and op.ceil:
        raise RegionBlocked("ceil-mode", f"{site.id} rounds its size up, which depends on the stride")
    if isinstance(op, Conv) and any(f > 1 for f in before):
        if not site.handle.pads_fixed:
            raise RegionBlocked("size-dependent-padding", f"the padding of {site.id} is computed from its input's size")
        for a in op.padded_axes:
            mode, f, n = op.modes[a], before[a], sizes[a]
            fits = mode == "zeros" or f == 1 or (n is not None and (n if mode == "circular" else n - 1) % f == 0)
            if not fits:
                rule = "its size" if mode == "circular" else "its size less 1"
                raise RegionBlocked("border-mode", f"{site.id} pads by {mode}: {rule} ({n}) must be a multiple of {f}")

