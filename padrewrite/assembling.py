"""Editing a copied fx graph where parameters change: a convolution call replaced by an assembly, or followed by one.

The calls are those that ``nn.Assembled`` makes, at the names of its children; the parameters are names that will
exist once the layer is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.fx as fx
import torch.nn.functional as F
from torch.fx.proxy import GraphAppendingTracer

from padrewrite.ops.assembly import Assembly, Attached, Norm, Part, outputs
from padrewrite.ops.conv import Conv, emit_conv, family, is_conv
from padrewrite.ops.pool import Pool, emit_pool, pool_family
from padrewrite.ops.reading import ConvNode, shape_of


def emit_assembly(
    tracer: GraphAppendingTracer, copied: dict[fx.Node, fx.Node], conv: ConvNode, after: Assembly | Attached
) -> None:
    """Puts the calls of ``after`` in the place of a convolution's call, or behind it, in the graph of ``copied``."""
    old = copied[conv.node]
    if isinstance(after, Attached):
        users = set(old.users)
        new = _Emitter(tracer, old, old.next, after.name).run(old, after.assembly)
        old.replace_all_uses_with(new, lambda user: user in users)
    else:
        new = _Emitter(tracer, old, old, "", _in_training(tracer.graph, after.drops)).run(copied[conv.given], after)
        old.replace_all_uses_with(new)
        _erase(tracer.graph, [old])
    copied[conv.node] = new


def drop_norms(nodes: fx.Graph, fqns: Collection[str]) -> None:
    """Puts copies in the place of the calls of batch norms, as ``nn.assembled.PassedOn`` makes them."""
    calls = [node for node in nodes.nodes if node.meta.get("fqn") in fqns and "at" not in node.meta]
    for node in calls:
        if node.target is F.batch_norm:
            with nodes.inserting_before(node):
                copied = nodes.call_function(torch.clone, (node.args[0],))
            copied.meta.update(node.meta)
            node.replace_all_uses_with(copied)
    _erase(nodes, calls)


def _erase(nodes: fx.Graph, calls: Sequence[fx.Node]) -> None:
    """Erases calls, and the parameters that only they read."""
    parameters = dict.fromkeys(n for call in calls for n in call.all_input_nodes if n.op == "get_attr")
    for node in (*reversed(calls), *parameters):
        if not node.users:
            nodes.erase_node(node)


def _in_training(nodes: fx.Graph, norms: Collection[str]) -> bool:
    """Whether the recording ran these batch norms in train mode; new ones take their place."""
    calls = (n for n in nodes.nodes if n.target is F.batch_norm and n.meta.get("fqn") in norms)
    return any(bool(node.kwargs.get("training")) for node in calls)


class _Emitter:
    """Emits calls right before ``point``, as calls of children of the layer that makes ``call``."""

    def __init__(
        self, tracer: GraphAppendingTracer, call: fx.Node, point: fx.Node, child: str, training: bool = False
    ) -> None:
        self._tracer, self._point, self._training = tracer, point, training
        self._meta: dict[str, Any] = {key: call.meta[key] for key in _SHARED if key in call.meta}
        self._at: Any = call.meta["at"]
        self._checkpoint: int | None = call.meta.get("checkpoint")
        self._child = child

    def run(self, x: fx.Node, op: Assembly) -> fx.Node:
        total = x if op.skip else None
        for branch in op.branches:
            value = x
            for index, part in enumerate(branch.parts):
                value = self._call(value, part, (branch.name, str(index)))
            total = value if total is None else self._sum(total, value)
        assert total is not None
        return total

    def _call(self, x: fx.Node, part: Part, names: tuple[str, ...]) -> fx.Node:
        shape = tuple(shape_of(x))
        if isinstance(part, Conv):
            kernel = (part.out_channels, part.in_channels // part.groups, *part.kernel)
            weight = self._parameter(names, "weight", kernel)
            bias = self._parameter(names, "bias", (part.out_channels,)) if part.bias else None
            shape = (*shape[: -part.window.rank - 1], part.out_channels, *outputs(part, shape[-part.window.rank :]))
            place = self._place(names, f"conv{part.window.rank}d", "conv")
            return self._emit(lambda v: emit_conv(v, weight, bias, part), x, shape, {**place, "owner_input": x})
        if isinstance(part, Pool):
            shape = (*shape[: -part.window.rank], *outputs(part, shape[-part.window.rank :]))
            return self._emit(lambda v: emit_pool(v, part), x, shape, self._place(names, part.family, None))
        if isinstance(part, Norm):
            return self._norm(x, part, names)
        return self._emit(lambda v: F.relu(v, inplace=False), x, shape, {"fqn": self._fqn(*names)})

    def _norm(self, x: fx.Node, part: Norm, names: tuple[str, ...]) -> fx.Node:
        """As ``nn.BatchNorm`` calls it, which counts its batches first."""
        fqn = self._fqn(*names)
        if self._training:
            count = self._parameter(names, "num_batches_tracked", ())
            made = self._tracer.create_proxy("call_function", torch.Tensor.add_, (count, 1), {})
            self._point.prepend(made.node)
            made.node.meta.update({**self._meta, "fqn": fqn, "shape": ()})
        tensors = ("running_mean", "running_var", "weight", "bias")
        given = {name: self._parameter(names, name, (part.channels,)) for name in tensors}
        numbers: Any = {"training": self._training, "momentum": 0.1, "eps": 1e-5}
        mean, var = given.pop("running_mean"), given.pop("running_var")
        return self._emit(lambda v: F.batch_norm(v, mean, var, **given, **numbers), x, shape_of(x), {"fqn": fqn})  # pyright: ignore[reportArgumentType]

    def _sum(self, a: fx.Node, b: fx.Node) -> fx.Node:
        other = fx.Proxy(b, self._tracer)
        return self._emit(lambda v: torch.add(v, other), a, shape_of(a), {"fqn": self._fqn()})  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _emit(self, function: Callable[[Any], Any], x: fx.Node, shape: Any, meta: dict[str, Any]) -> fx.Node:
        """The calls of ``function``, each recorded as being at the place that ``meta`` tells."""
        before = self._point.prev
        with self._tracer.graph.inserting_before(self._point):
            made: fx.Node = function(fx.Proxy(x, self._tracer)).node
        node = before
        while node.next is not self._point:
            node = node.next
            if node.op != "get_attr":
                node.meta.update({**self._meta, **meta, "shape": tuple(shape)})
        return made

    def _parameter(self, names: tuple[str, ...], name: str, shape: tuple[int, ...]) -> fx.Proxy:
        with self._tracer.graph.inserting_before(self._point):
            node = self._tracer.graph.get_attr(f"{self._fqn(*names)}.{name}")
        node.meta["shape"] = shape
        node.meta["buffer"] = name in ("running_mean", "running_var", "num_batches_tracked")
        return fx.Proxy(node, self._tracer)

    def _fqn(self, *names: str) -> str:
        return ".".join(filter(None, (self._at.owner.fqn, self._child, *names)))

    def _place(self, names: tuple[str, ...], kind: str, owner: str | None) -> dict[str, Any]:
        """Where a call of a grandchild is made: in the frames of the layer, its child and the grandchild."""
        inner = [names[:depth] for depth in range(0 if self._child else 1, len(names) + 1)]
        frames = tuple(replace(self._at.owner, fqn=self._fqn(*below), ordinal=0) for below in inner)
        depth = None if self._checkpoint is None else self._checkpoint + len(frames)
        at = replace(self._at, frames=self._at.frames + frames, family=kind, direct=0, owner_kind=owner)
        return {"at": at, "checkpoint": depth}


_SHARED = ("source", "symbolic", "autocast", "dtype")


def renumber(nodes: fx.Graph) -> None:
    """Counts convolution and pool calls anew, per module call around them and per module that makes them."""
    inside, direct = Counter[Any](), Counter[Any]()
    for node in nodes.nodes:
        at = node.meta.get("at")
        if at is None or _family(node) != at.family:
            continue
        frames = tuple(replace(f, ordinal=inside[f.fqn, f.call, at.family]) for f in at.frames)
        inside.update((f.fqn, f.call, at.family) for f in at.frames)
        key = (at.owner.fqn, at.owner.call, at.family)
        node.meta["at"] = replace(at, frames=frames, direct=direct[key])
        direct[key] += 1


def _family(node: fx.Node) -> str | None:
    if node.op != "call_function":
        return None
    if is_conv(node.target):
        weight: Any = node.args[1] if len(node.args) > 1 else node.kwargs["weight"]
        return family(node.target, len(shape_of(weight)))
    return pool_family(node.target)
