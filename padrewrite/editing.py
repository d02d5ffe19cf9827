"""Editing a copied fx graph: one site's call replaced by the calls that compute its new op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.fx as fx
from torch.fx.proxy import GraphAppendingTracer

from padrewrite.ops.conv import Conv, convolve
from padrewrite.ops.pad import read_pad
from padrewrite.ops.pool import Pool, emit_pool
from padrewrite.ops.reading import ConvNode
from padrewrite.ops.realise import Realisation


def emit_pool_site(
    tracer: GraphAppendingTracer, copied: dict[fx.Node, fx.Node], node: fx.Node, x: fx.Node, op: Pool
) -> None:
    """Puts the calls of ``op`` in the place of a pool call."""
    old = copied[node]
    before = old.prev
    with tracer.graph.inserting_before(old):
        new: fx.Node = emit_pool(fx.Proxy(copied[x], tracer), op).node
    copied[node] = new
    take_over(old, new, before)


def emit_site(
    tracer: GraphAppendingTracer, copied: dict[fx.Node, fx.Node], conv: ConvNode, change: Realisation
) -> None:
    """Puts the call of ``change`` in the place of a site's call, in the graph that ``copied`` leads to."""

    def proxy(value: Any) -> Any:
        return fx.Proxy(copied[value], tracer) if isinstance(value, fx.Node) else value

    node = copied[conv.node]
    op, outer = change.own, None
    if change.bypass:
        own = conv.call.op.padding if isinstance(conv.call.op, Conv) else ()
        padding = _symbolic_amounts(conv, own, op.padding, op.padding, copied)
    else:
        padding = op.padding
    if change.outer is not None:
        zero = ((0, 0),) * op.window.rank
        outer = _proxies(tracer, _symbolic_amounts(conv, zero, change.outer, change.outer, copied))
    x = proxy(conv.x if change.bypass else conv.pads[0] if conv.pads else conv.call.x)
    w, before = op.window, node.prev
    with tracer.graph.inserting_before(node):
        new: fx.Node = convolve(
            x,
            proxy(conv.call.weight),
            proxy(conv.call.bias),
            w.stride,
            _proxies(tracer, padding),
            w.dilation,
            op.groups,
            op.modes,
            op.partial,
            outer,
            op.symmetric,
        ).node
    copied[conv.node] = new
    take_over(node, new, before)


def _symbolic_amounts(
    conv: ConvNode, own: Sequence[Any], wanted: Any, fallback: Any, copied: Mapping[fx.Node, fx.Node]
) -> tuple[Any, ...]:
    """``wanted`` padding with the size expressions that a single explicit pad was given in place of their values.

    Only where the pad's amount is the whole of what is wanted; otherwise the numbers stay.
    """
    if len(conv.pads) != 1:
        return fallback
    call = read_pad(conv.pads[0].target, conv.pads[0].args, dict(conv.pads[0].kwargs))
    assert call is not None
    rank = len(wanted)
    given = (((0, 0),) * rank + tuple(call.amounts))[-rank:]
    pairs = [
        sym if conv.amounts[0].amounts[axis] == want and own[axis] == (0, 0) else want
        for axis, (want, sym) in enumerate(zip(wanted, given))
    ]
    return tuple(tuple(copied.get(v, v) if isinstance(v, fx.Node) else v for v in pair) for pair in pairs)


def _proxies(tracer: GraphAppendingTracer, pairs: Sequence[tuple[Any, Any]]) -> tuple[Any, ...]:
    """Size expressions among ``pairs`` as proxies, so that emitted calls can take them."""
    return tuple(tuple(fx.Proxy(v, tracer) if isinstance(v, fx.Node) else v for v in pair) for pair in pairs)


def take_over(old: fx.Node, new: fx.Node, before: fx.Node) -> None:
    """Puts ``new`` in the place of ``old``; every node made since ``before`` is recorded as being where ``old`` was."""
    node = before.next
    while node is not old:
        node.meta.update(old.meta)
        node = node.next
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)
