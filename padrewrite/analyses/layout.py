"""Which dimension of each tensor carries positions of which input dimension: the ground all analyses stand on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch.fx as fx

from padrewrite.graph import Graph
from padrewrite.ops.axis import Bins, Repeat, Slide, Spread, Whole
from padrewrite.ops.following import read_step
from padrewrite.ops.resample import Resample
from padrewrite.ops.sizes import evaluate_size
from padrewrite.ops.step import Read, Regroup, Source, Step, shape_of


@dataclass(frozen=True)
class Origin:
    """A dimension of a model input."""

    input: int
    dim: int


@dataclass(frozen=True)
class Lost:
    """Positions were carried here, but not in a way that is followed."""

    reason: str
    origins: frozenset[Origin] = field(default=frozenset(), compare=False)
    """The input dimensions whose positions may be among those carried."""


Axis = Origin | Lost | None


@dataclass(frozen=True)
class Layout:
    """The graph as steps over located dimensions, in execution order."""

    steps: Mapping[fx.Node, Step]
    """Every call whose result is a tensor. Sources are plain: what is no ``(dim, map)`` carries no position."""
    axes: Mapping[fx.Node, tuple[Axis, ...]]
    inputs: tuple[fx.Node, ...]
    sites: Mapping[str, fx.Node]
    users: Mapping[fx.Node, tuple[fx.Node, ...]]
    """Who reads a tensor, and is itself a step or the output."""
    outputs: tuple[fx.Node, ...]
    paths: Mapping[fx.Node, str] = field(default_factory=dict[fx.Node, str])
    """Where each output first stands in what the model returns, as far as it is known: ``2`` or ``aux[0]``."""

    def spatial(self, node: fx.Node) -> tuple[int, ...]:
        """Dimensions of ``node`` that carry positions."""
        return tuple(d for d, axis in enumerate(self.axes[node]) if isinstance(axis, Origin))

    def before(self, nodes: Iterable[fx.Node]) -> set[fx.Node]:
        """``nodes`` and everything that they are computed from."""
        found: set[fx.Node] = set()
        left = list(nodes)
        while left:
            node = left.pop()
            if node not in found:
                found.add(node)
                left += node.all_input_nodes
        return found

    def mixes(self, node: fx.Node) -> bool:
        """Whether all positions along a dimension become something else: features, as by a linear layer along it."""
        step, rank = self.steps[node], len(self.axes[node])
        return step.kind == "pointwise" and any(
            len(read.dims) == len(self.axes[read.node]) == rank
            and read.dims[d] is None
            and self.axes[read.node][d] is not None
            and self.axes[node][d] is None
            for read in step.reads
            for d in range(rank)
        )

    def lost(self, node: fx.Node, among: Collection[Origin] | None = None) -> str | None:
        """Why a dimension of ``node`` lost its positions: those of any input dimension, or of one ``among`` these."""
        for axis in self.axes[node]:
            if isinstance(axis, Lost) and (among is None or any(origin in axis.origins for origin in among)):
                return axis.reason
        return None


def read_layout(graph: Graph, besides: Collection[Origin] = ()) -> Layout:
    """Locates every dimension along which some call slides or resizes: that leaves out the batch and the channels.

    A tensor that is written into through a view or by index loses its positions.

    Args:
        besides: input dimensions to locate, too.
    """
    assert graph.nodes is not None
    convs = {conv.node: (site, conv) for site, conv in graph.conv_nodes.items()}
    inputs = tuple(node for node in graph.nodes.nodes if node.op == "placeholder")
    calls = [n for n in graph.nodes.nodes if n.op == "call_function" and n.target is not evaluate_size]
    read = {n: read_step(n, convs[n][1] if n in convs else None) for n in calls if "shape" in n.meta}
    origins = {node: _origins(i, node) for i, node in enumerate(inputs)}
    axes, _ = _locate_all(calls, read, origins)
    moved = _moved(read, axes).union(besides)
    kept = {node: tuple(axis if axis in moved else None for axis in found) for node, found in origins.items()}
    axes, steps = _locate_all(calls, read, kept)
    returned = next(n for n in graph.nodes.nodes if n.op == "output")
    users: dict[fx.Node, list[fx.Node]] = {}
    for node, step in steps.items():
        for source in step.reads:
            users.setdefault(source.node, []).append(node)
    sites = {site: node for node, (site, _) in convs.items()}
    frozen = {node: tuple(found) for node, found in users.items()}
    return Layout(steps, axes, inputs, sites, frozen, tuple(returned.all_input_nodes), _paths(returned))


def _paths(returned: fx.Node) -> dict[fx.Node, str]:
    tensors: Any = returned.args[0]
    placed = zip(tensors, returned.meta.get("paths", ()))
    return {node: re.sub(r"^\[(\d+)\]$", r"\1", path) for node, path in reversed(list(placed)) if path}


def _origins(index: int, node: fx.Node) -> tuple[Axis, ...]:
    return tuple(Origin(index, d) for d in range(len(node.meta.get("shape", ()))))


def _locate_all(
    calls: Iterable[fx.Node], read: Mapping[fx.Node, Step], inputs: Mapping[fx.Node, tuple[Axis, ...]]
) -> tuple[dict[fx.Node, tuple[Axis, ...]], dict[fx.Node, Step]]:
    axes, steps = dict(inputs), dict[fx.Node, Step]()
    for node in calls:
        if node in read:
            axes[node], steps[node] = _locate(read[node], shape_of(node), axes)
        _note_write(node, axes, steps)
    return axes, steps


def _moved(read: Mapping[fx.Node, Step], axes: Mapping[fx.Node, tuple[Axis, ...]]) -> set[Origin]:
    """Input dimensions along which some call has windows or another resolution."""
    found: set[Origin] = set()
    for step in read.values():
        for one in step.reads:
            given = axes.get(one.node, ())
            maps = [
                s
                for s in one.dims
                if isinstance(s, tuple) and isinstance(s[1], (Slide, Spread, Resample, Bins, Repeat))
            ]
            for axis in (given[d] for d, _ in maps if given):
                found |= {axis} if isinstance(axis, Origin) else axis.origins if axis is not None else frozenset()
    return found


def _locate(
    step: Step, shape: Sequence[int], axes: Mapping[fx.Node, tuple[Axis, ...]]
) -> tuple[tuple[Axis, ...], Step]:
    found: list[Axis] = [None] * len(shape)
    reads: list[Read] = []
    for read in step.reads:
        given = axes.get(read.node)
        if given is None:
            continue
        dims: list[Source] = []
        for d, source in enumerate(read.dims):
            source, axis = _resolve(source, given)
            dims.append(source)
            # An operand without positions takes none away from the others: it is read as a whole.
            if isinstance(axis, Origin) and not isinstance(found[d], Origin):
                found[d] = axis
            found[d] = axis if found[d] is None else found[d]
        pooled = tuple(d for d in read.pooled if isinstance(given[d], Origin))
        parts = tuple((share, tuple(_resolve(s, given)[0] for s in ways)) for share, ways in read.parts)
        made_up = step.kind == "conv" and any(_makes_up(s, given, read.node) for s in read.dims)
        reads.append(replace(read, dims=tuple(dims), pooled=pooled, parts=parts, made_up=made_up))
    carried = [axis for read in reads for axis in axes[read.node] if axis is not None]
    if step.ended is not None and carried:
        found = [_lose(carried, step.ended)] * len(shape)
    elif step.ended is not None:
        found = [None] * len(shape)
    return tuple(found), replace(step, reads=tuple(reads))


def _makes_up(source: Source, given: Sequence[Axis], node: fx.Node) -> bool:
    """Whether a window pads a dimension without positions, as one that was pooled away."""
    if not isinstance(source, tuple) or given[source[0]] is not None:
        return False
    return any(source[1].made_up(shape_of(node)[source[0]]))


def _resolve(source: Source, given: Sequence[Axis]) -> tuple[Source, Axis]:
    """A source with its axis; a source that carries no position is dropped."""
    if source is None:
        return None, None
    if isinstance(source, Regroup):
        held = [d for d in source.dims if given[d] is not None]
        if not held:
            return None, None
        if held == [source.dims[0]] and source.repeat is not None:
            return _resolve((held[0], Repeat(source.repeat)), given)
        return None, _lose([given[d] for d in held], source.reason)
    axis = given[source[0]]
    if isinstance(source[1], Whole):
        return (source, None) if isinstance(axis, Origin) else (None, None)
    return (source, axis) if isinstance(axis, Origin) else (None, axis)


def _lose(axes: Iterable[Axis], reason: str) -> Lost:
    """What is left of positions that end here; those that had ended before keep their reason."""
    origins: set[Origin] = set()
    before: list[str] = []
    for axis in axes:
        if isinstance(axis, Lost):
            before.append(axis.reason)
            origins |= axis.origins
        elif axis is not None:
            origins.add(axis)
    return Lost(before[0] if before else reason, frozenset(origins))


def _note_write(node: fx.Node, axes: dict[fx.Node, tuple[Axis, ...]], steps: Mapping[fx.Node, Step]) -> None:
    """Takes the positions of a tensor into which ``node`` writes other tensors by index or through a view."""
    name = getattr(node.target, "__name__", "")
    by_index = name in ("__setitem__", "setitem")
    in_place = (name.endswith("_") and not name.endswith("__")) or (name[:3] in ("__i",) and name != "__invert__")
    target = node.args[0] if node.args else None
    if not (by_index or in_place) or not isinstance(target, fx.Node):
        return
    written = [n for n in node.all_input_nodes if n is not target and any(axes.get(n, ()))]
    if not written:
        return
    bases = [target] if by_index else []
    while target in steps and steps[target].kind in ("reshape", "crop") and steps[target].reads:
        target = steps[target].reads[0].node
        bases.append(target)
    carried = [axis for n in written for axis in axes[n]]
    for base in bases:
        lost = _lose([*axes.get(base, ()), *carried], f"{name} writes into it")
        axes[base] = (lost,) * len(axes.get(base, ()))
