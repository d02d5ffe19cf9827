"""Tensors that hold one value along a dimension: what a forward fills or spreads, against what it makes up.

Zeros, a repeated single value and what is computed from such alone look alike on any grid. Coordinates, noise and
parameters with positions of their own do not.
"""

from __future__ import annotations

import torch.fx as fx

from padrewrite.ops.axis import Repeat, Same, Stretch
from padrewrite.ops.following import read_step
from padrewrite.ops.resample import Resample
from padrewrite.ops.step import Source, shape_of

_FILLED = (
    *("zeros", "ones", "full", "zeros_like", "ones_like", "full_like"),
    *("new_zeros", "new_ones", "new_full"),
)


def is_uniform(node: fx.Node, dim: int) -> bool:
    """Whether all positions along ``dim`` surely hold one value, in a tensor to which no input brings positions."""
    if shape_of(node)[dim] == 1:
        return True
    if node.op != "call_function":
        return False
    step = read_step(node)
    if step.kind == "constant":
        return step.name in _FILLED
    if step.ended is not None or not step.reads or step.besides:
        return False
    if any(n.op == "get_attr" for n in node.all_input_nodes):
        return False
    return all(_spreads(read.node, read.dims[dim]) for read in step.reads if not _is_lower(read.node, node, dim))


def _spreads(node: fx.Node, source: Source) -> bool:
    if not isinstance(source, tuple):
        return False
    place, axis = source
    if shape_of(node)[place] == 1:
        return isinstance(axis, (Same, Stretch, Repeat, Resample))
    return isinstance(axis, Same) and is_uniform(node, place)


def _is_lower(operand: fx.Node, node: fx.Node, dim: int) -> bool:
    """Whether an operand has too few dimensions to have this one."""
    return dim < len(shape_of(node)) - len(shape_of(operand))
