"""From any recorded call to its ``Step``: the table of every torch function whose positions are known."""

from __future__ import annotations

from typing import Any

import torch.fx as fx

from padrewrite.ops import elementwise, pooling, reshaping
from padrewrite.ops.axis import AxisMap, Slide, Spread
from padrewrite.ops.conv import Conv, TransposedConv
from padrewrite.ops.reading import ConvNode
from padrewrite.ops.step import Called, Read, Reader, Source, Step, barrier, others, same, shape_of

_READERS: dict[str, Reader] = {**reshaping.READERS, **pooling.READERS, **elementwise.READERS}


def read_step(node: fx.Node, conv: ConvNode | None = None) -> Step:
    """What a call does to positions; ``conv``: the same call read as a convolution, its pads folded in."""
    if conv is not None:
        return _conv_step(conv)
    call = Called(node, name_of(node.target))
    picked = _picked(node)
    if picked is not None:
        return picked
    reader = _READERS.get(call.name)
    if reader is None:
        return barrier(call, f"{call.name} is not a call whose positions are known")
    if not any("shape" in n.meta for n in node.all_input_nodes):
        return Step("constant", call.name, ())
    return reader(call)


def name_of(target: Any) -> str:
    """The name that a torch function and its in-place, reflected and operator forms share."""
    name = getattr(target, "__name__", str(target))
    return name.strip("_") or name


def _picked(node: fx.Node) -> Step | None:
    """Part of a call that returns several tensors."""
    source = node.args[0] if node.args else None
    if node.op != "call_function" or not isinstance(source, fx.Node):
        return None
    if "shape" in source.meta or "value" in source.meta:
        return None
    index = node.args[1] if len(node.args) > 1 else 0
    call = Called(source, name_of(source.target))
    if source.op != "call_function" or not isinstance(index, int):
        return None
    part = reshaping.part_of(call, index)
    if part is not None:
        return part
    reader = _READERS.get(call.name)
    if index == 0 and reader is not None and call.name in (*pooling.READERS, "max", "min"):
        source.meta["shape"] = shape_of(node)
        try:
            return reader(call)
        finally:
            del source.meta["shape"]
    return barrier(Called(node, call.name), f"output {index} of {call.name} has no known positions")


def _conv_step(conv: ConvNode) -> Step:
    op, rank = conv.op, conv.op.window.rank
    lead = len(shape_of(conv.x)) - rank
    dims: list[Source] = [*same(conv.x)[: lead - 1], None]
    dims += [(lead + a, axis_of(op, a)) for a in range(rank)]
    read = Read(conv.x, tuple(dims))
    return Step(op.kind, name_of(conv.node.target), (read,), besides=others(conv.node, conv.call.x))


def axis_of(op: Conv | TransposedConv, axis: int) -> AxisMap:
    """One axis of a convolution."""
    w = op.window
    numbers = (w.kernel[axis], w.stride[axis], w.dilation[axis], w.lo[axis], w.hi[axis])
    if isinstance(op, TransposedConv):
        return Spread(*numbers, op.output_padding[axis])
    mode = op.modes[axis]
    if mode == "zeros" and op.partial is not None:
        mode = "partial" if op.partial == "mean" else f"partial-{op.partial}"
    return Slide(*numbers, mode)
