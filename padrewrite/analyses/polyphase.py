"""Space to depth by slices: a concatenation that is ``pixel_unshuffle``, but for the order of channels."""

from __future__ import annotations

from itertools import product

import torch.fx as fx

from padrewrite.analyses.layout import Layout
from padrewrite.ops.axis import AxisMap, Pick, Same
from padrewrite.ops.step import Read, shape_of

Slices = tuple[tuple[int, int], ...]
"""(first position, step) along each dimension."""


def is_space_to_depth(node: fx.Node, layout: Layout) -> bool:
    """Whether a call puts beside each other the slices of one tensor from all offsets of their steps, each once."""
    step = layout.steps[node]
    if step.kind != "merge" or not step.name.startswith(("cat", "concat", "stack")):
        return False
    if not all(isinstance(_map(read, d), Same) for read in step.reads for d in layout.spatial(node)):
        return False
    found = [_slices(read.node, layout) for read in step.reads]
    strides = tuple(stride for _, stride in found[0][1])
    if any(base is not found[0][0] or tuple(s for _, s in slices) != strides for base, slices in found):
        return False
    starts = sorted(tuple(start for start, _ in slices) for _, slices in found)
    every = product(*(range(first, first + stride) for first, stride in zip(starts[0], strides)))
    return len(starts) > 1 and starts == list(every)


def _map(read: Read, dim: int) -> AxisMap | None:
    source = read.dims[dim]
    return source[1] if isinstance(source, tuple) else None


def _slices(node: fx.Node, layout: Layout) -> tuple[fx.Node, Slices]:
    """The tensor that ``node`` is cut out of, through all cuts, and which of its positions are kept."""
    slices: Slices = ((0, 1),) * len(shape_of(node))
    while node in layout.steps and layout.steps[node].kind == "crop":
        (read,) = layout.steps[node].reads
        if len(shape_of(read.node)) != len(slices):
            break
        cuts = [_cut(read, d, n) for d, n in enumerate(shape_of(node))]
        if any(cut is None for cut in cuts):
            break
        known = [cut for cut in cuts if cut is not None]
        slices = tuple((first + by * start, by * stride) for (first, by), (start, stride) in zip(known, slices))
        node = read.node
    return node, slices


def _cut(read: Read, dim: int, size: int) -> tuple[int, int] | None:
    """(first position, step) of a dimension that is read in place; without positions it has to be read as a whole."""
    source = read.dims[dim]
    if source is None:
        return (0, 1) if shape_of(read.node)[dim] == size else None
    if not isinstance(source, tuple) or source[0] != dim or not isinstance(source[1], (Pick, Same)):
        return None
    axis = source[1]
    return (next(iter(axis.taps(0, shape_of(read.node)[dim]))), axis.step) if isinstance(axis, Pick) else (0, 1)
