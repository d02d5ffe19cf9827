"""Given or computed for nothing: positions of a tensor that no later call reads."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import torch
import torch.fx as fx

from padrewrite.analyses.layout import Layout
from padrewrite.ops.axis import AxisMap, Cut, Pick, Same, Slide
from padrewrite.ops.step import Read, shape_of


def unread_share(layout: Layout, node: fx.Node) -> Fraction:
    """Share of the positions of ``node`` that none of its readers reads: 3/4 before 1x1 convolutions of stride 2."""
    spatial, shape = layout.spatial(node), shape_of(node)
    reads = [r for user in layout.users.get(node, ()) for r in layout.steps[user].reads if r.node is node]
    if node in layout.outputs or not reads or not spatial:
        return Fraction(0)
    axes = [[_read(read, d, shape[d]) for d in spatial] for read in reads]
    if any(all(axis is None for axis in one) for one in axes):
        return Fraction(0)
    live = torch.zeros([shape[d] for d in spatial], dtype=torch.bool)
    for one in axes:
        mine = torch.ones_like(live)
        for place, axis in enumerate(one):
            if axis is not None:
                mine &= axis.reshape([-1 if d == place else 1 for d in range(len(one))])
        live |= mine
    return 1 - Fraction(int(live.sum()), live.numel())


def _read(read: Read, dim: int, n: int) -> torch.Tensor | None:
    """Which positions along ``dim`` are read; None if all are, or if what is not was cut off on purpose."""
    found = next((s[1] for s in read.dims if isinstance(s, tuple) and s[0] == dim), None)
    if found is None or isinstance(found, Same) or read.pooled or _is_cut(found):
        return None
    flags = torch.zeros(n, dtype=torch.bool)
    flags[_positions(found, n)] = True
    return None if bool(flags.all()) else flags


def _is_cut(axis: AxisMap) -> bool:
    """Whether one piece is read without gaps: a crop, part of a split, negative padding."""
    return isinstance(axis, Cut) or (isinstance(axis, Pick) and axis.step == 1) or (
        isinstance(axis, Slide) and axis.kernel == axis.stride == 1
    )


def _positions(axis: AxisMap, n: int) -> list[int]:
    return sorted({p for row in axis.reads(n) for p in row})


def wasted(layout: Layout) -> Mapping[fx.Node, Fraction]:
    """Every tensor, inputs first, of which some positions are there for nothing, with their share."""
    whole = {node for step in layout.steps.values() for node in step.besides}
    inputs = (node for node in layout.inputs if "shape" in node.meta)
    shares = {node: unread_share(layout, node) for node in (*inputs, *layout.steps) if node not in whole}
    return {node: share for node, share in shares.items() if share > 0}
