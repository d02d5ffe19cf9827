"""A record of every tensor that has positions, and of the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch.fx as fx

from padrewrite.analyses.analysis import NodeRecord
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.naming import call_name
from padrewrite.analyses.scene import Scene
from padrewrite.ops.step import shape_of


def node_records(scene: Scene) -> tuple[dict[str, NodeRecord], tuple[NodeRecord, ...]]:
    """The tensors with positions by their ids, in execution order; and the outputs, with positions or without."""
    outputs = set(scene.layout.outputs)
    made = {
        node: _record(name, node, scene)
        for node, name in scene.names.items()
        if node in outputs or any(isinstance(axis, Origin) for axis in scene.layout.axes[node])
    }
    nodes = {record.id: record for record in made.values() if record.dims}
    return nodes, tuple(made[node] for node in scene.layout.outputs if node in made)


def _record(name: str, node: fx.Node, scene: Scene) -> NodeRecord:
    located: Mapping[int, Origin] = {
        d: axis for d, axis in enumerate(scene.layout.axes[node]) if isinstance(axis, Origin)
    }
    fields = [scene.fields.of(node, d) for d in located]
    return NodeRecord(
        name,
        call_name(node, scene.layout),
        node.meta.get("source"),
        shape_of(node),
        dims=tuple(located),
        inputs=tuple((axis.input, axis.dim) for axis in located.values()),
        size=tuple(scene.sizes.of(node, d) for d in located),
        phase=tuple(scene.phases.of(node, d) for d in located),
        receptive_field=tuple(None if field is None else field.size for field in fields),
        ended=scene.layout.lost(node),
    )
