"""Dynamo's graphs read as the project's: what each call is, where it is made, at what sizes, from which line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import Tensor, nn

from padrewrite.emitting.convolutions import Hidden, hint_of, is_symbolic, is_written, read_with_hints, written_out
from padrewrite.emitting.legality import EXPANDED, SYMBOLIC, symbolic_padding
from padrewrite.emitting.naming import Namer, stack_of
from padrewrite.graph import Call, Graph, Handle, Site
from padrewrite.graph import _site_id as site_id
from padrewrite.ops.conv import Conv, family, is_conv
from padrewrite.rewriting import Check
from padrewrite.source import Source, first_outside

_PADS = (F.pad, torch._C._nn.pad)  # pyright: ignore[reportAttributeAccessIssue]
_ZERO_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)


@dataclass(frozen=True)
class Part:
    """A Dynamo graph, or a graph nested in it (the body of a checkpoint, say), read."""

    owner: fx.GraphModule
    root: str
    """FQN of the module whose forward Dynamo was compiling."""
    graph: Graph
    fixed: Graph
    """Sites to decide about that are no part of ``graph``, because they have to stay as they are."""
    refusals: Mapping[str, Check]
    """Sites of either that cannot be rewritten, and why."""
    calls: int
    repeated: bool
    """Several calls run it, each with parameters of its own."""

    @property
    def sites(self) -> tuple[Site, ...]:
        return (*self.graph.convs(), *self.fixed.convs())


def read_parts(namer: Namer, gm: fx.GraphModule, inputs: Sequence[Any]) -> list[Part]:
    """``gm`` and the graphs nested in it; copies, so that nothing is changed."""
    owners = {name: m for name, m in gm.named_modules() if isinstance(m, fx.GraphModule)}
    callers = {name: _callers(gm, name) if name else 1 for name in owners}
    # Dynamo leaves graphs behind that nothing calls, where it tried a region and then wrote it out.
    owners = {name: owner for name, owner in owners.items() if callers[name]}
    namer.start(gm, inputs, (node for owner in owners.values() for node in owner.graph.nodes))
    parts = [_read_part(namer, owner, callers[name] > 1) for name, owner in owners.items()]
    namer.finish()
    return parts


def _callers(gm: fx.GraphModule, name: str) -> int:
    """How many calls are given the graph ``name``, which is nested in ``gm``."""
    parent, _, attribute = name.rpartition(".")
    nodes = cast("fx.GraphModule", gm.get_submodule(parent)).graph.nodes
    return sum(len(n.users) for n in nodes if n.op == "get_attr" and n.target == attribute)


def _read_part(namer: Namer, owner: fx.GraphModule, repeated: bool) -> Part:
    nodes = fx.Graph()
    nodes.output(nodes.graph_copy(owner.graph, {}))
    for node in nodes.nodes:
        _describe(node)
    fixed: dict[str, tuple[Site, Check]] = {}
    for node in nodes.nodes:
        if not node.op.startswith("call_"):
            continue
        if is_conv(node.target):
            weight = node.args[1] if len(node.args) > 1 else node.kwargs["weight"]
            node.meta["at"] = namer.place(node, family(node.target, weight.meta["example_value"].dim()))
            found = _fixed_site(node)
            if found is not None:
                fixed[found[0].id] = found
                node.target = Hidden(node.target)
            continue
        node.meta["at"] = namer.place(node)
        if node.op == "call_function" and node.target in _PADS:
            _prepare_pad(node)
    graph = Graph.from_nodes(nodes, "dynamo", {})
    refusals = {name: check for name, (_, check) in fixed.items()} | symbolic_padding(graph)
    alone = Graph(None, {name: site for name, (site, _) in fixed.items()}, "dynamo")
    calls = sum(node.op.startswith("call_") for node in nodes.nodes)
    return Part(owner, namer.root, graph, alone, refusals, calls, repeated)


def _describe(node: fx.Node) -> None:
    """Writes the meta that the recorder writes."""
    node.meta["origin"] = node.name
    value = node.meta.get("example_value")
    if isinstance(value, Tensor):
        sizes = tuple(hint_of(size) for size in value.shape)
        if None not in sizes:
            node.meta["shape"] = sizes
    elif isinstance(value, torch.SymInt):
        node.meta["value"] = hint_of(value)
    node.meta["source"] = _source(node.meta.get("stack_trace"))


def _prepare_pad(node: fx.Node) -> None:
    """Hides a pad that no convolution can take over; says what the value of the others is."""
    amounts: Any = node.args[1] if len(node.args) > 1 else node.kwargs["pad"]
    unknown = any(isinstance(v, fx.Node) and v.meta.get("value") is None for v in amounts)
    if unknown or is_written(node):
        node.target = Hidden(cast("Callable[..., Any]", node.target))
        return
    stack = stack_of(node)
    if stack and isinstance(stack[-1][2], type) and issubclass(stack[-1][2], _ZERO_PADS) and len(node.args) > 3:
        # With dynamic=True the layer's 0.0 is an input of the graph, but its class says what it is.
        node.update_arg(3, 0.0)


def _source(trace: str | None) -> Source | None:
    """The innermost line in a stack trace that is neither torch's nor ours."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', trace or "")
    return first_outside((file, int(line)) for file, line in reversed(lines))


def _fixed_site(node: fx.Node) -> tuple[Site, Check] | None:
    """The site of a convolution that cannot be rewritten here, and why; None if it can."""
    op = read_with_hints(node).op
    ours = written_out(node, op) if isinstance(op, Conv) else None
    if ours is None and not is_symbolic(node):
        return None
    at: Call = node.meta["at"]
    site = Site(site_id(at, "conv"), at.owner.fqn, at.owner.call, node.meta["source"], ours or op, Handle(at))
    return site, SYMBOLIC if ours is None else EXPANDED
