"""Multi-grid: the units of the last stage at rates of their own, times the rate of the stage ([DLv3] Section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch.fx as fx

from padrewrite.analyses.chains import Flow
from padrewrite.analyses.layout import read_layout
from padrewrite.analyses.strides import Blocked, Regrid
from padrewrite.graph import Graph, Site
from padrewrite.ops.conv import Conv, with_padding


def multiply(graph: Graph, change: Regrid, multi_grid: Sequence[int] | None, convention: str) -> Regrid:
    """``change`` with the last stage's rates multiplied; without multi-grid, with the convention's rate at its start.

    Only convolutions with a window get a rate, never 1x1. The sites whose rate is no longer the one that keeps the
    grid, and all behind them, leave ``grid``.
    """
    last = convention == "stride_last" or (convention == "auto" and multi_grid is not None)
    if multi_grid is None and not last:
        return change
    stage = _stage(graph, change)
    units = tuple(multi_grid or (1,))
    if not stage or len(stage) % len(units):
        reason = f"the last stage has {len(stage)} spatial convolutions in a row, for {len(units)} rates"
        return replace(change, blocked=Blocked("no-stage", reason))
    each = len(stage) // len(units)
    ops, ended = dict(change.ops), dict(change.ended)
    broken: list[str] = []
    for place, site in enumerate(stage):
        op = ops.get(site.id, site.op)
        assert isinstance(op, Conv)
        rate = _stage_rate(stage, change) if last else op.dilation
        wanted = tuple(r * units[place // each] if k > 1 else 1 for r, k in zip(rate, op.kernel))
        if wanted != op.dilation:
            ops[site.id] = _with_rate(op, wanted)
            broken.append(site.id)
    if broken:
        reason = f"{broken[0]}, whose rate {'multi_grid' if multi_grid else convention} sets"
        behind = _behind(graph, broken[0])
        ended |= {site: reason for site in change.grid if site in behind or site not in graph.sites}
        ended |= dict.fromkeys(broken, reason)
    return replace(change, ops=ops, ended=ended, grid={s: f for s, f in change.grid.items() if s not in ended})


def _stage(graph: Graph, change: Regrid) -> list[Site]:
    """The run of spatial convolutions behind the last stride, the one that carried it included if it is spatial."""
    layout = read_layout(graph)
    flow = Flow(layout)
    nodes = {graph.node_of(site.id): site for site in graph.convs()}
    finest = max((f for site, f in change.grid.items() if site in graph.sites), default=())
    members = {n for n, s in nodes.items() if change.grid.get(s.id) == finest and max(s.op.kernel) > 1}
    chosen = {n for n in members if isinstance(nodes[n].op, Conv)}
    after: dict[fx.Node, fx.Node] = dict(flow.links(chosen.__contains__))
    starts = [n for n in flow.spatial if n in chosen and n not in after.values()]
    if not starts:
        return []
    run = [starts[0]]
    while run[-1] in after:
        run.append(after[run[-1]])
    return [nodes[n] for n in run]


def _stage_rate(stage: Sequence[Site], change: Regrid) -> tuple[int, ...]:
    factors = change.grid[stage[0].id]
    return tuple(factors)


def _with_rate(op: Conv, rate: tuple[int, ...]) -> Conv:
    pairs = [(lo * r // d, hi * r // d) for (lo, hi), r, d in zip(op.padding, rate, op.dilation)]
    padded = with_padding(op, pairs)
    return replace(padded, window=replace(padded.window, dilation=rate))


def _behind(graph: Graph, first: str) -> set[str]:
    """Convolutions that depend on a site, itself included."""
    layout = read_layout(graph)
    reached = {graph.node_of(first)}
    for node, step in layout.steps.items():
        if any(read.node in reached for read in step.reads):
            reached.add(node)
    return {site for site, node in layout.sites.items() if node in reached}
