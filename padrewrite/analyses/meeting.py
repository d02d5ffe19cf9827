"""Input dimensions that meet those over which convolutions slide: of masks and maps that are added or concatenated.

Most analyses are about what is convolved, and the other inputs have no positions for them. What reaches an output may
come from any input, so supports follow these dimensions, too.
"""

from __future__ import annotations

from collections.abc import Collection

import torch.fx as fx

from padrewrite.analyses.layout import Layout, Lost, Origin, read_layout
from padrewrite.graph import Graph
from padrewrite.ops.axis import Whole
from padrewrite.ops.step import Read, shape_of

Bases = tuple[frozenset[Origin], ...]
"""Per dimension of a tensor the input dimensions that come in along it."""


def with_all_inputs(graph: Graph, layout: Layout, tracked: Collection[Origin]) -> tuple[Layout, tuple[Origin, ...]]:
    """The layout and the dimensions to follow, with those of inputs of which no dimension is ``tracked``."""
    own = {origin.input for origin in tracked}
    shapes = [node.meta.get("shape", ()) for node in layout.inputs]
    others = {Origin(i, d) for i, shape in enumerate(shapes) if i not in own for d in range(len(shape))}
    if not others or not tracked:
        return layout, tuple(tracked)
    everything = read_layout(graph, {*others, *tracked})
    more = _met(everything, tracked) & others
    return (read_layout(graph, more), (*tracked, *sorted(more, key=_place))) if more else (layout, tuple(tracked))


def read_as_a_whole(graph: Graph, layout: Layout, tracked: Collection[Origin]) -> set[fx.Node]:
    """Calls that inputs reach through a global pool alone: inputs of which no dimension is ``tracked``.

    Those of one or two dimensions have features, and no positions.
    """
    own = {origin.input for origin in tracked}
    shapes = [node.meta.get("shape", ()) for node in layout.inputs]
    others = {Origin(i, d) for i, s in enumerate(shapes) if i not in own and len(s) > 2 for d in range(len(s))}
    found: set[fx.Node] = set()
    if not others or not tracked:
        return found
    everything = read_layout(graph, others)
    for node, step in everything.steps.items():
        whole = any(_pools(everything, node, read, others) for read in step.reads)
        if whole or any(before in found for before in (*step.besides, *(read.node for read in step.reads))):
            found.add(node)
    return found


def _pools(layout: Layout, node: fx.Node, read: Read, among: Collection[Origin]) -> bool:
    """Whether positions of inputs ``among`` these end in a call that reads all of them, and does not regroup them."""
    if any(isinstance(axis, Lost) for axis in layout.axes[node]):
        return False
    kept = {s[0] for s in read.dims if isinstance(s, tuple) and not isinstance(s[1], Whole)}
    single = {d for d, n in enumerate(shape_of(read.node)) if n == 1}
    for d, axis in enumerate(layout.axes[read.node]):
        origins = {axis} if isinstance(axis, Origin) else axis.origins if isinstance(axis, Lost) else set[Origin]()
        # A linear layer along a dimension that is one of an input mixes features.
        features = isinstance(axis, Origin) and len(read.dims) == len(layout.axes[read.node]) and read.dims[d] is None
        ends = d not in kept | single | dict(read.at).keys() and not features
        if (ends or d in read.pooled) and not origins.isdisjoint(among):
            return True
    return False


def _place(origin: Origin) -> tuple[int, int]:
    return origin.input, origin.dim


def _met(layout: Layout, tracked: Collection[Origin]) -> set[Origin]:
    """``tracked``, and all that comes in along the same dimension of some tensor as one of them, or as one of these."""
    together = {bases for found in _bases(layout).values() for bases in found if len(bases) > 1}
    met, size = set(tracked), 0
    while len(met) > size:
        size = len(met)
        met.update(*(bases for bases in together if bases & met))
    return met


def _bases(layout: Layout) -> dict[fx.Node, Bases]:
    """Where positions are lost, dimensions are taken to stay where they are, counted from the last one."""
    found: dict[fx.Node, Bases] = {
        node: tuple(frozenset({axis} if isinstance(axis, Origin) else ()) for axis in layout.axes[node])
        for node in layout.inputs
    }
    for node, step in layout.steps.items():
        axes = layout.axes[node]
        made = [frozenset[Origin]() for _ in axes]
        for read in step.reads:
            given = found[read.node]
            for d, source in enumerate(read.dims):
                there = d - len(made) + len(given)
                if isinstance(source, tuple):
                    made[d] |= given[source[0]]
                elif there >= 0 and (isinstance(axes[d], Lost) or isinstance(layout.axes[read.node][there], Lost)):
                    made[d] |= given[there]
        found[node] = tuple(made)
    return found
