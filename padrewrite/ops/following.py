"""From any recorded call to its ``Step``: the table of every torch function whose positions are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch.fx as fx

from padrewrite.ops import elementwise, pooling, reshaping
from padrewrite.ops.axis import AxisMap, Slide, Spread, Straddle
from padrewrite.ops.conv import Conv, TransposedConv
from padrewrite.ops.reading import ConvNode
from padrewrite.ops.step import Called, Read, Reader, Source, Step, barrier, others, same, shape_of, tensors

_READERS: dict[str, Reader] = {**reshaping.READERS, **pooling.READERS, **elementwise.READERS}
_ALIKE = {*pooling.READERS, *reshaping.PAIRS, "cummax", "cummin"}
"""Calls whose results, where they are several (values and indices, mean and variance), all read alike."""


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
    """The name that a torch function and its in-place, reflected, operator and ``torch.special`` forms share."""
    name = getattr(target, "__name__", str(target))
    return name.removeprefix("special_").removesuffix(".default").strip("_") or name


def _picked(node: fx.Node) -> Step | None:
    """Part of a call that returns several tensors."""
    source = _maker(node)
    if source is None:
        return None
    call, index = Called(source, name_of(source.target)), node.args[1] if len(node.args) > 1 else 0
    if source in node.args[:1] and isinstance(index, int) and next(tensors(source), None) is not None:
        part = reshaping.part_of(call, index)
        if part is not None:
            return part
        if call.name in _ALIKE:
            source.meta["shape"] = shape_of(node)
            try:
                return _READERS[call.name](call)
            finally:
                del source.meta["shape"]
    reason = f"{call.name}, which returns several tensors, is not a call whose positions are known"
    return barrier(Called(node, call.name), reason, source)


def _maker(node: fx.Node) -> fx.Node | None:
    """The call that returns several tensors, if ``node`` is one of them."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source.op != "call_function":
        return None
    if "shape" in source.meta or "value" in source.meta:
        return None
    return _maker(source) or source


def _conv_step(conv: ConvNode) -> Step:
    op, rank = conv.op, conv.op.window.rank
    lead = len(shape_of(conv.x)) - rank

    def dims(axes: Sequence[AxisMap]) -> tuple[Source, ...]:
        return (*same(conv.x)[: lead - 1], None, *((lead + a, axis) for a, axis in enumerate(axes)))

    axes = [axis_of(op, a) for a in range(rank)]
    reads = (Read(conv.x, dims(axes)),)
    if isinstance(op, Conv) and op.symmetric is not None:
        channels = op.in_channels // op.groups
        parts = [
            (Fraction(block.channels, channels), dims([_one_side(axis, side) for axis, side in zip(axes, block.after)]))
            for block in op.symmetric.blocks(channels, rank)
        ]
        if len(parts) == 2 ** len(op.symmetric.axes):  # each axis both ways, however the others are read
            reads = (Read(conv.x, dims(axes), parts=tuple(parts)),)
        else:
            reads = tuple(Read(conv.x, part[1], parts=(part,)) for part in parts)
    return Step(op.kind, name_of(conv.node.target), reads, besides=others(conv.node, conv.call.x))


def _one_side(axis: AxisMap, side: int) -> AxisMap:
    return replace(axis, side=side) if isinstance(axis, Straddle) else axis


def axis_of(op: Conv | TransposedConv, axis: int) -> AxisMap:
    """One axis of a convolution."""
    w = op.window
    numbers = (w.kernel[axis], w.stride[axis], w.dilation[axis], w.lo[axis], w.hi[axis])
    if isinstance(op, TransposedConv):
        return Spread(*numbers, op.output_padding[axis])
    mode = op.modes[axis]
    if mode == "zeros" and op.partial is not None:
        mode = "partial" if op.partial == "mean" else f"partial-{op.partial}"
    if op.symmetric is None or axis not in op.symmetric.axes:
        return Slide(*numbers, mode)
    before = op.symmetric.before(op.in_channels // op.groups, axis)
    return Straddle(numbers[0] + 1, *numbers[1:], mode, before=before)
