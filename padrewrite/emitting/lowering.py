"""From a rewritten graph back to Dynamo's: plain torch calls only, each with the meta that compilers look for.

Everything is written out in calls that the compilers' caches know; a call of our own would switch them off.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch.fx as fx
from torch import Tensor
from torch.fx.node import map_aggregate
from torch.fx.proxy import GraphAppendingTracer

from padrewrite.emitting.convolutions import Hidden
from padrewrite.ops.arguments import read_window
from padrewrite.ops.conv import is_our_conv
from padrewrite.ops.formulations import choose
from padrewrite.ops.partial import border_form, partial_conv
from padrewrite.ops.symmetric import convolves_channels_last, read_symmetric, symmetric_conv, symmetric_form

_OURS = ("at", "origin", "shape", "source", "value")
_SHARED = ("nn_module_stack", "source_fn_stack", "stack_trace")
"""Meta that describes every call a call is written out as."""
_ARGUMENTS: dict[Any, inspect.Signature] = {form: inspect.signature(form) for form in (partial_conv, symmetric_conv)}


def lower(nodes: fx.Graph, original: fx.Graph) -> fx.Graph:
    """``nodes``, a rewritten copy of ``original``, in the form of a Dynamo graph. Edited in place."""
    _drop_stale_values(nodes)
    tracer = GraphAppendingTracer(nodes)
    for node in list(nodes.nodes):
        if isinstance(node.target, Hidden):
            node.target = node.target.target
        elif is_our_conv(node.target):
            _expand(node, tracer)
    for mine, given in zip(nodes.find_nodes(op="placeholder"), original.find_nodes(op="placeholder")):
        if hasattr(given, "_dynamo_source"):
            mine._dynamo_source = given._dynamo_source
    nodes.output_node().meta.update(original.output_node().meta)
    for node in nodes.nodes:
        for key in _OURS:
            node.meta.pop(key, None)
    nodes.lint()
    return nodes


def _partial(given: dict[str, Any], shape: Sequence[int], value: Tensor) -> Any:
    window = read_window(tuple(shape[2:]), given["stride"], given["padding"], given["dilation"])
    tensors = (given["x"], given["weight"], given["bias"])
    return border_form(*tensors, window, given["groups"], scale=given["scale"], outer=given["outer"], dtype=value.dtype)


def _symmetric(given: dict[str, Any], shape: Sequence[int], value: Tensor) -> Any:
    numbers = (given[name] for name in ("stride", "dilation", "order", "padding", "axes", "modes"))
    window, symmetry, modes = read_symmetric(tuple(shape[2:]), *numbers)
    tensors = (given["x"], given["weight"], given["bias"])
    options: dict[str, Any] = {"modes": modes, "scale": given["scale"], "dtype": value.dtype}
    options["last"] = convolves_channels_last(value, window.rank)
    options["formulation"] = given["formulation"] or choose(value, shape[1] * given["groups"])
    return symmetric_form(*tensors, window, given["groups"], symmetry, shape[1], **options)


_FORMS: dict[Any, Any] = {partial_conv: _partial, symmetric_conv: _symmetric}


def _drop_stale_values(nodes: fx.Graph) -> None:
    """Of the calls that stand for one call of Dynamo's, only the last has the value that call had."""
    last: dict[str, fx.Node] = {}
    for node in nodes.nodes:
        origin = node.meta.get("origin", node.name)
        if origin in last:
            last[origin].meta.pop("example_value", None)
        last[origin] = node


def _expand(node: fx.Node, tracer: GraphAppendingTracer) -> None:
    """Writes a partial or symmetric convolution out in torch calls."""
    call = _ARGUMENTS[node.target].bind(*node.args, **node.kwargs)
    call.apply_defaults()
    shape = call.arguments["weight"].meta["shape"]

    def proxy(value: Any) -> Any:
        return fx.Proxy(value, tracer) if isinstance(value, fx.Node) else value

    before = node.prev
    with node.graph.inserting_before(node):
        given = {name: map_aggregate(value, proxy) for name, value in call.arguments.items()}
        new: fx.Node = _FORMS[node.target](given, shape, node.meta["example_value"]).node
    while before.next is not node:
        before = before.next
        before.meta.update({key: node.meta[key] for key in _SHARED if key in node.meta})
    new.meta.update(node.meta)
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)
