"""Multi-grid: the units of the last stage at rates of their own, times the rate of the stage ([DLv3] Section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.fx as fx

from padrewrite.analyses.chains import Flow, find_chains
from padrewrite.analyses.layout import Layout, read_layout
from padrewrite.analyses.strides import Blocked, Regrid
from padrewrite.graph import Graph, Site
from padrewrite.ops.conv import Conv, with_padding
from padrewrite.ops.window import Ints


def multiply(graph: Graph, change: Regrid, multi_grid: Sequence[int] | None, convention: str) -> Regrid:
    """``change`` with the last stage's rates multiplied, and with the convention's rate where a stride is lost.

    Only convolutions with a window get a rate, never 1x1. The sites whose rate is no longer the one that keeps the
    grid, and all behind them, leave ``grid``.
    """
    last = convention == "stride_last" or (convention == "auto" and multi_grid is not None)
    if not change.ops:
        return change if multi_grid is None else _as_it_is(graph, change, multi_grid)
    wanted = {s: change.finer[s] for s in change.strided if last}
    if multi_grid is not None:
        stage = _stage(graph, change)
        if not stage or len(stage) % len(multi_grid):
            reason = f"the last stage has {len(stage)} spatial convolutions in a row, for {len(multi_grid)} rates"
            return replace(change, blocked=Blocked("no-stage", reason))
        each = len(stage) // len(multi_grid)
        for place, site in enumerate(stage):
            rate = change.finer[site.id] if last else _changed(change, site).dilation
            wanted[site.id] = tuple(r * multi_grid[place // each] for r in rate)
    new = {s: _with_rate(_changed(change, graph.sites[s]), wanted[s]) for s in graph.sites if s in wanted}
    broken = [s for s, op in new.items() if op != _changed(change, graph.sites[s])]
    change = replace(change, ops={**change.ops, **{s: new[s] for s in broken}})
    return _without_grid(graph, change, broken, "multi_grid" if multi_grid else convention)


def _as_it_is(graph: Graph, change: Regrid, multi_grid: Sequence[int]) -> Regrid:
    """Where nothing loses its stride: as it is if a chain ends in rates of that ratio, else there is no stage."""
    for chain in find_chains(read_layout(graph)):
        for count in range(len(multi_grid), len(chain.rates) + 1, len(multi_grid)):
            units = [unit for unit in multi_grid for _ in range(count // len(multi_grid))]
            ratios = {rate * units[0] == unit * chain.rates[-count] for rate, unit in zip(chain.rates[-count:], units)}
            if ratios == {True}:
                return change
    reason = f"nothing loses its stride, and no chain has rates in the ratio {','.join(map(str, multi_grid))}"
    return replace(change, blocked=Blocked("no-stage", reason))


def _stage(graph: Graph, change: Regrid) -> list[Site]:
    """The run of spatial convolutions behind the last stride, the one that carried it included if it is spatial."""
    flow = Flow(read_layout(graph))
    nodes = {graph.node_of(site.id): site for site in graph.convs()}
    finest = max((f for site, f in change.finer.items() if site in graph.sites), default=())
    members = {n for n, s in nodes.items() if change.finer.get(s.id) == finest and max(s.op.kernel) > 1}
    chosen = {n for n in members if isinstance(nodes[n].op, Conv)}
    after: dict[fx.Node, fx.Node] = dict(flow.links(chosen.__contains__))
    starts = [n for n in flow.spatial if n in chosen and n not in after.values()]
    if not starts:
        return []
    run = [starts[0]]
    while run[-1] in after:
        run.append(after[run[-1]])
    return [nodes[n] for n in run]


def _changed(change: Regrid, site: Site) -> Conv:
    op = change.ops.get(site.id, site.op)
    assert isinstance(op, Conv)
    return op


def _with_rate(op: Conv, rate: Ints) -> Conv:
    """``op`` dilated by ``rate`` on the axes on which it has a window, and padded accordingly."""
    rate = tuple(r if k > 1 else d for r, k, d in zip(rate, op.kernel, op.dilation))
    pairs = [(lo * r // d, hi * r // d) for (lo, hi), r, d in zip(op.padding, rate, op.dilation)]
    padded = with_padding(op, pairs)
    return replace(padded, window=replace(padded.window, dilation=rate))


def _without_grid(graph: Graph, change: Regrid, broken: Sequence[str], what: str) -> Regrid:
    """``change`` that promises no grid at the sites ``broken`` and behind them."""
    if not broken:
        return change
    reason = f"{broken[0]}, whose rate {what} sets"
    behind = _behind(graph, read_layout(graph), broken)
    ended = {**change.ended, **dict.fromkeys(behind & {*change.grid, *broken}, reason)}
    return replace(change, ended=ended, grid={s: f for s, f in change.grid.items() if s not in ended})


def _behind(graph: Graph, layout: Layout, first: Sequence[str]) -> set[str]:
    """Convolutions, pools and outputs that depend on sites, these included."""
    assert graph.nodes is not None
    reached = {graph.node_of(site) for site in first}
    for node, step in layout.steps.items():
        if any(n in reached for n in (*(read.node for read in step.reads), *step.besides)):
            reached.add(node)
    outputs: Any = next(n for n in graph.nodes.nodes if n.op == "output").args[0]
    named = {**layout.sites, **graph.pool_nodes, **{f"(output {i})": n for i, n in enumerate(outputs)}}
    return {name for name, node in named.items() if node in reached}
