"""Which parameters stand behind the weight and the bias of a convolution call."""

from __future__ import annotations

from collections.abc import Iterator, Set
from math import prod

import torch.fx as fx

from padrewrite.ops.following import name_of
from padrewrite.ops.reading import ConvNode

_LAYERS = (
    *("linear", "bilinear", "embedding", "embedding_bag", "batch_norm", "group_norm", "layer_norm", "instance_norm"),
    *("prelu", "rms_norm", "multi_head_attention_forward", "scaled_dot_product_attention"),
)
"""What these make of the model's input is a feature of it: their own parameters are not those of the convolution."""


def weights_of(conv: ConvNode, fed: Set[fx.Node]) -> tuple[tuple[str, int], ...]:
    """Name and number of elements of each parameter behind the weight and the bias of a call, by name.

    ``fed`` are the nodes that ``reading_inputs`` of the graph finds.

    If a weight is computed from parameters alone, all of these count. If the model's input takes part, those count
    that are joined with it by arithmetic (a modulated kernel), but not those of the layers that it went through: a
    feature that is used as a kernel has none.
    """
    given = [n for n in (conv.call.weight, conv.call.bias) if isinstance(n, fx.Node)]
    found = {str(n.target): prod(n.meta["shape"]) for node in given for n in _leaves(node, fed)}
    return tuple(sorted(found.items()))


def _leaves(node: fx.Node, fed: Set[fx.Node]) -> Iterator[fx.Node]:
    """The parameters behind a node."""
    left, seen = [node], set[fx.Node]()
    while left:
        current = left.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op == "get_attr" and not current.meta.get("buffer"):
            yield current
        if current not in fed or not _is_layer(current):
            left += [before for before in current.all_input_nodes if "shape" in before.meta or before in fed]


def reading_inputs(graph: fx.Graph) -> Set[fx.Node]:
    """The nodes that the values of the model's inputs reach."""
    reached: set[fx.Node] = set()
    for node in graph.nodes:
        reads = node.op == "placeholder" or any(before in reached for before in node.all_input_nodes)
        if reads and "value" not in node.meta:  # a size reads no values
            reached.add(node)
    return reached


def _is_layer(node: fx.Node) -> bool:
    return name_of(node.target) in _LAYERS or "conv" in name_of(node.target)
