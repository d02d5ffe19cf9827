"""Which dimension of each tensor carries positions of which input dimension: the ground all analyses stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch.fx as fx

from padrewrite.graph import Graph
from padrewrite.ops.axis import Repeat, Whole
from padrewrite.ops.following import read_step
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

    def spatial(self, node: fx.Node) -> tuple[int, ...]:
        """Dimensions of ``node`` that carry positions."""
        return tuple(d for d, axis in enumerate(self.axes[node]) if isinstance(axis, Origin))

    def lost(self, node: fx.Node) -> str | None:
        """Why a dimension of ``node`` lost its positions."""
        return next((axis.reason for axis in self.axes[node] if isinstance(axis, Lost)), None)


def read_layout(graph: Graph) -> Layout:
    """Locates every dimension. A tensor that is written into through a view or by index loses its positions."""
    assert graph.nodes is not None
    convs = {conv.node: (site, conv) for site, conv in graph.conv_nodes.items()}
    steps: dict[fx.Node, Step] = {}
    axes: dict[fx.Node, tuple[Axis, ...]] = {}
    inputs: list[fx.Node] = []
    for node in graph.nodes.nodes:
        if node.op == "placeholder":
            axes[node] = tuple(Origin(len(inputs), d) for d in range(len(node.meta.get("shape", ()))))
            inputs.append(node)
        elif node.op == "call_function" and node.target is not evaluate_size:
            if "shape" in node.meta:
                step = read_step(node, convs[node][1] if node in convs else None)
                axes[node], steps[node] = _locate(step, shape_of(node), axes)
            _note_write(node, axes, steps)
    outputs = next(n for n in graph.nodes.nodes if n.op == "output").all_input_nodes
    users: dict[fx.Node, list[fx.Node]] = {}
    for node, step in steps.items():
        for read in step.reads:
            users.setdefault(read.node, []).append(node)
    sites = {site: node for node, (site, _) in convs.items()}
    frozen = {node: tuple(found) for node, found in users.items()}
    return Layout(steps, axes, tuple(inputs), sites, frozen, tuple(outputs))


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
        reads.append(replace(read, dims=tuple(dims), pooled=pooled))
    carried = [axis for read in reads for axis in axes[read.node] if axis is not None]
    if step.ended is not None and carried:
        before = next((axis.reason for axis in carried if isinstance(axis, Lost)), None)
        found = [Lost(before or step.ended)] * len(shape)
    elif step.ended is not None:
        found = [None] * len(shape)
    return tuple(found), replace(step, reads=tuple(reads))


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
        before = next((a.reason for d in held for a in (given[d],) if isinstance(a, Lost)), None)
        return None, Lost(before or source.reason)
    axis = given[source[0]]
    if isinstance(source[1], Whole):
        return (source, None) if isinstance(axis, Origin) else (None, None)
    return (source, axis) if isinstance(axis, Origin) else (None, axis)


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
    for base in bases:
        axes[base] = tuple(Lost(f"{name} writes into it") for _ in axes.get(base, ()))
