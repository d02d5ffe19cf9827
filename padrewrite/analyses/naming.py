"""Names of calls: those of nodes in records, and of sites in findings."""

from __future__ import annotations

from collections import Counter

import torch.fx as fx

from padrewrite.analyses.layout import Layout
from padrewrite.graph import Graph


def named(graph: Graph, layout: Layout) -> dict[fx.Node, str]:
    """Every input and every call with its id: convolutions and pools their own, others numbered by module and function.

    A module's calls of a function are numbered over all calls of the module.
    """
    own = {node: name for sites in (graph.pool_nodes, layout.sites) for name, node in sites.items()}
    taken, seen = set(own.values()), Counter[str]()
    found: dict[fx.Node, str] = {}
    for node in (*layout.inputs, *layout.steps):
        name = own.get(node)
        while name is None or (node not in own and name in taken):
            base = f"{_module(node)}#{call_name(node, layout)}"
            name = f"{base}.{seen[base]}"
            seen[base] += 1
        found[node] = name
    return found


def _module(node: fx.Node) -> str:
    return node.meta["at"].owner.fqn if "at" in node.meta else node.meta.get("fqn") or ""


def call_name(node: fx.Node, layout: Layout) -> str:
    """The torch function, or "input"."""
    step = layout.steps.get(node)
    return "input" if step is None else step.name
