"""From an fx node to the convolution it makes, explicit pads before it folded in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.fx as fx

from padrewrite.ops.conv import Conv, ConvCall, TransposedConv, hint, read_conv, with_padding
from padrewrite.ops.pad import PadCall, read_pad
from padrewrite.ops.realise import ExplicitPad


@dataclass(frozen=True)
class ConvNode:
    """A convolution node, read: its call, the pads folded into it (nearest first), and the op of all together."""

    node: fx.Node
    call: ConvCall
    op: Conv | TransposedConv
    x: Any
    """The tensor before the first folded pad."""
    pads: tuple[fx.Node, ...] = ()
    amounts: tuple[ExplicitPad, ...] = ()

    @property
    def own_pads(self) -> int:
        """How many of the pads, the nearest ones, the layer itself makes, for its padding mode."""
        owner = self.node.meta["at"].owner
        return next((n for n, pad in enumerate(self.pads) if pad.meta["at"].owner != owner), len(self.pads))

    @property
    def given(self) -> Any:
        """The tensor that the layer is given: before its own pads, behind all others."""
        own = self.own_pads
        if own == 0:
            return self.call.x
        return self.pads[own] if own < len(self.pads) else self.x


def shape_of(value: Any) -> Sequence[int]:
    """The shape that a tensor argument had while recording."""
    return value.meta["shape"]


def read_node(node: fx.Node, shape: Callable[[Any], Sequence[int]] = shape_of) -> ConvNode | None:
    """The convolution that ``node`` makes, or None."""
    if node.op != "call_function":
        return None
    call = read_conv(node.target, node.args, dict(node.kwargs), shape)
    if call is None:
        return None
    told = isinstance(call.op, Conv) and not (call.op.symmetric is not None and call.op.partial is not None)
    if isinstance(call.op, TransposedConv) or call.op.window.rank == 0 or not told:
        # Zeros that were padded before are real pixels to a convolution that scales by its own padding only.
        return ConvNode(node, call, call.op, call.x)
    return _fold_pads(node, call, call.op)


def _fold_pads(node: fx.Node, call: ConvCall, op: Conv) -> ConvNode:
    rank, x = op.window.rank, call.x
    left = None if call.outer is None else [tuple(hint(v) for v in pair) for pair in call.outer]
    pads: list[fx.Node] = []
    amounts: list[ExplicitPad] = []
    while isinstance(x, fx.Node) and x.op == "call_function":
        pad = None if _is_overwritten(x) else read_pad(x.target, x.args, dict(x.kwargs))
        explicit = None if pad is None else _resolve(pad, rank)
        if pad is None or explicit is None or not _adds_up(op, explicit, left):
            break
        op = _joined(op, explicit)
        if left is not None and explicit.mode == "zeros":
            left = [(have[0] - p[0], have[1] - p[1]) for have, p in zip(left, explicit.amounts)]
        pads.append(x)
        amounts.append(explicit)
        x = pad.x
    return ConvNode(node, call, op, x, tuple(pads), tuple(amounts))


def _is_overwritten(pad: fx.Node) -> bool:
    """Whether something may have been written into the pad's result (by a view too, where that was recorded)."""
    names = [getattr(user.target, "__name__", str(user.target)) for user in pad.users]
    return bool(pad.meta.get("overwritten")) or any(n == "setitem" or n.endswith("_") for n in names if n[:2] != "__")


def _resolve(pad: PadCall, rank: int) -> ExplicitPad | None:
    """``pad`` on exactly the spatial axes, or None if it pads others too or with a constant that is not zero."""
    pairs = [(hint(lo), hint(hi)) for lo, hi in pad.amounts]
    extra, pairs = pairs[: max(0, len(pairs) - rank)], pairs[max(0, len(pairs) - rank) :]
    if any(pair != (0, 0) for pair in extra) or pad.mode == "constant":
        return None
    return ExplicitPad(((0, 0),) * (rank - len(pairs)) + tuple(pairs), pad.mode)


def _adds_up(op: Conv, pad: ExplicitPad, left: Sequence[tuple[int, int]] | None) -> bool:
    """Whether padding by ``pad`` and then by ``op`` is padding once by the sum."""
    for axis, pair in enumerate(pad.amounts):
        own = op.padding[axis]
        if pair == (0, 0):
            continue
        if min(pair) < 0 or (min(own) < 0 and (op.symmetric is None or pad.mode != "zeros")):
            return False
        if pad.mode != "zeros" and own != (0, 0):
            return False
        if own != (0, 0) and op.modes[axis] != pad.mode:
            return False
        if op.partial is not None and pad.mode == "zeros" and (left is None or left[axis] < pair):
            return False
    return True


def _joined(op: Conv, pad: ExplicitPad) -> Conv:
    pairs = [(own[0] + p[0], own[1] + p[1]) for own, p in zip(op.padding, pad.amounts)]
    modes = tuple(pad.mode if p != (0, 0) else m for m, p in zip(op.modes, pad.amounts))
    return replace(with_padding(op, pairs), modes=modes)
