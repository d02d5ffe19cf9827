"""What the convolutions of a graph cost: parameters, multiply-accumulates, and the receptive field that they buy."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from padrewrite.analyses.fields import Fields
from padrewrite.analyses.layout import read_layout
from padrewrite.graph import Graph
from padrewrite.ops.conv import Conv, TransposedConv
from padrewrite.ops.step import shape_of


@dataclass(frozen=True)
class Cost:
    """What the convolutions of a model cost, and how far they see."""

    parameters: int
    macs: int | None
    """Multiply-accumulates for one sample; None without inputs."""
    field: int | None
    """The largest receptive field in input pixels, along any axis; None if it is not known."""


def parameters_of(op: Conv | TransposedConv) -> int:
    """Weights and biases of a convolution."""
    return op.in_channels * op.out_channels // op.groups * prod(op.kernel) + op.bias * op.out_channels


def cost_of(graph: Graph) -> Cost:
    """The cost of all convolution calls; a layer that is called twice counts its parameters once."""
    layers = {(s.fqn, s.handle.call.family, s.handle.call.direct): parameters_of(s.op) for s in graph.convs()}
    if graph.nodes is None:
        return Cost(sum(layers.values()), None, None)
    sites = [(s, s.input_shape) for s in graph.convs()]
    macs = sum(s.op.macs(shape[-s.op.window.rank :]) for s, shape in sites if shape is not None)
    return Cost(sum(layers.values()), macs, _field(graph))


def _field(graph: Graph) -> int | None:
    fields = Fields(read_layout(graph))
    found: list[int] = []
    for site in graph.convs():
        node = graph.node_of(site.id)
        rank = len(shape_of(node))
        along = [fields.of(node, d) for d in range(rank - site.op.window.rank, rank)]
        found += [field.size for field in along if field is not None]
    return max(found, default=None)
