"""Branches that were equally long and on the finer grid are not: padding at the end of the shorter makes up for it.

A window of 2 at stride 2 beside one of 3 has as many outputs as that; without their strides it has one less. What is
added comes after all old positions, is no multiple of the step, and only windows that sit there ever read it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.fx as fx

from padrewrite.analyses.fineness import States
from padrewrite.analyses.layout import Layout
from padrewrite.graph import PoolSite, Site
from padrewrite.ops.axis import AxisMap, Same, Slide, Stretch
from padrewrite.ops.conv import Conv
from padrewrite.ops.pool import Pool
from padrewrite.ops.step import shape_of

End = tuple[str, int]
"""A site and one of its axes, counted from the last (-1)."""


def ends_behind(
    node: fx.Node, dim: int, layout: Layout, sites: Mapping[fx.Node, Site | PoolSite], states: States
) -> set[End] | None:
    """The windows to pad for ``node`` to become longer along ``dim``; None if something else sets its size."""
    found: set[End] = set()
    seen: set[tuple[fx.Node, int]] = set()
    todo = [(node, dim)]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        at, d = here
        step = layout.steps.get(at)
        if step is None:
            return None
        for read in step.reads:
            source = read.dims[d]
            if not isinstance(source, tuple) or states[read.node][source[0]] is None or isinstance(source[1], Stretch):
                continue
            axis = d - len(shape_of(at))
            if _passes(source[1]):
                todo.append((read.node, source[0]))
            elif at in sites and _can_pad(sites[at], axis):
                found.add((sites[at].id, axis))
            else:
                return None
    return found or None


def _passes(axis: AxisMap) -> bool:
    """As long as what it reads."""
    return isinstance(axis, Same) or (isinstance(axis, Slide) and (axis.kernel, axis.lo, axis.hi) == (1, 0, 0))


def _can_pad(site: Site | PoolSite, axis: int) -> bool:
    op = site.op
    return isinstance(op, Pool) or (isinstance(op, Conv) and op.modes[axis] == "zeros" and site.handle.pads_fixed)
