"""A record of every tensor that has positions, and of the model's outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import torch.fx as fx

from padrewrite.analyses.analysis import NodeRecord
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.scene import Scene
from padrewrite.ops.step import shape_of


def node_records(scene: Scene) -> tuple[dict[str, NodeRecord], tuple[NodeRecord, ...]]:
    """The tensors with positions by their ids, in execution order; and the outputs, with positions or without."""
    outputs = set(scene.layout.outputs)
    made = {
        node: _record(name, node, scene)
        for node, name in _named(scene)
        if node in outputs or any(isinstance(axis, Origin) for axis in scene.layout.axes[node])
    }
    nodes = {record.id: record for record in made.values() if record.dims}
    return nodes, tuple(made[node] for node in scene.layout.outputs if node in made)


def _named(scene: Scene) -> Iterator[tuple[fx.Node, str]]:
    """Every input and every call with its id: convolutions and pools their own, others numbered by module and function.

    A module's calls of a function are numbered over all calls of the module.
    """
    layout, pools = scene.layout, scene.graph.pool_nodes
    own = {node: name for sites in (pools, layout.sites) for name, node in sites.items()}
    taken, seen = set(own.values()), Counter[str]()
    for node in (*layout.inputs, *layout.steps):
        name = own.get(node)
        while name is None or (node not in own and name in taken):
            base = f"{_module(node)}#{call_name(node, scene)}"
            name = f"{base}.{seen[base]}"
            seen[base] += 1
        yield node, name


def _module(node: fx.Node) -> str:
    return node.meta["at"].owner.fqn if "at" in node.meta else node.meta.get("fqn") or ""


def call_name(node: fx.Node, scene: Scene) -> str:
    """The torch function, or "input"."""
    step = scene.layout.steps.get(node)
    return "input" if step is None else step.name


def _record(name: str, node: fx.Node, scene: Scene) -> NodeRecord:
    located: Mapping[int, Origin] = {
        d: axis for d, axis in enumerate(scene.layout.axes[node]) if isinstance(axis, Origin)
    }
    fields = [scene.fields.of(node, d) for d in located]
    return NodeRecord(
        name,
        call_name(node, scene),
        node.meta.get("source"),
        shape_of(node),
        dims=tuple(located),
        inputs=tuple((axis.input, axis.dim) for axis in located.values()),
        size=tuple(scene.sizes.of(node, d) for d in located),
        phase=tuple(scene.phases.of(node, d) for d in located),
        receptive_field=tuple(None if field is None else field.size for field in fields),
        ended=scene.layout.lost(node),
    )
