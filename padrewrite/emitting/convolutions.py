"""Calls of Dynamo's graphs that stay as they are: convolutions written out or symbolic, pads written into."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.fx as fx
from torch import Tensor
from torch.fx.node import map_arg

from padrewrite.ops import partial, symmetric
from padrewrite.ops.conv import Conv, read_conv
from padrewrite.ops.directions import Symmetry, even_axes
from padrewrite.ops.reading import ConvNode, read_node

_IN_PLACE = {"setitem", *(n for n in vars(operator) if n[0] == "i" and hasattr(operator, n[1:]))}


@dataclass(frozen=True)
class Hidden:
    """Stands in for the target of a call that is to be left alone."""

    target: Callable[..., Any]

    @property
    def __name__(self) -> str:
        return getattr(self.target, "__name__", "call")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.target(*args, **kwargs)


def hint_of(size: Any) -> int | None:
    """A size, or the number that a symbolic size had when Dynamo traced; None if it had none."""
    if not isinstance(size, torch.SymInt):
        return int(size)
    if size.node.maybe_as_int() is not None:
        return size.node.maybe_as_int()
    return int(size.node.hint) if size.node.has_hint() else None


def is_symbolic(conv: fx.Node) -> bool:
    """True if the kernel's shape or an argument other than the input is not a plain number."""
    weight = conv.args[1] if len(conv.args) > 1 else conv.kwargs["weight"]
    assert isinstance(weight, fx.Node)
    sizes = weight.meta["example_value"].shape
    return any(isinstance(s, torch.SymInt) for s in sizes) or any(
        isinstance(n.meta.get("example_value"), torch.SymInt) for n in conv.all_input_nodes
    )


def read_with_hints(conv: fx.Node) -> ConvNode:
    """The convolution with the numbers that its arguments had when Dynamo traced."""
    if not is_symbolic(conv):
        found = read_node(conv)
        assert found is not None
        return found

    def number(value: fx.Node) -> Any:
        return value.meta.get("value", value)

    args, kwargs = map_arg((conv.args, dict(conv.kwargs)), number)
    call = read_conv(conv.target, args, kwargs, lambda n: n.meta["shape"])
    assert call is not None
    return ConvNode(conv, call, call.op, call.x)


def written_out(conv: fx.Node, op: Conv) -> Conv | None:
    """The convolution of ours whose code made this call, ``op`` being the call's; None if other code made it.

    Dynamo writes our convolutions out; the trace of where each call comes from tells them from plain ones. In which
    order a symmetric one has its channels is not looked for.
    """
    if not _comes_from(conv, partial.__file__):
        return None
    scaled = [user for user in conv.users if _name(user) in ("mul", "addcmul") and _comes_from(user, partial.__file__)]
    ratios = [user.args[-1] for user in scaled]
    near = [n for ratio in ratios if isinstance(ratio, fx.Node) for n in _near(ratio, 3)]
    scale = "sqrt" if any(_name(n) == "sqrt" for n in near) else "mean"
    axes = even_axes(op.kernel)
    if _comes_from(conv, symmetric.__file__):
        return replace(op, partial=scale if scaled else None, symmetric=Symmetry("balanced", axes) if axes else None)
    return replace(op, partial=scale)


def _comes_from(node: fx.Node, file: str) -> bool:
    return f'File "{file}"' in (node.meta.get("stack_trace") or "")


def is_written(node: fx.Node) -> bool:
    """True if something writes into the result of ``node``, be it through a view."""
    return any(_writes(user, node) or (_share(user, node) and is_written(user)) for user in node.users)


def _writes(user: fx.Node, target: fx.Node) -> bool:
    if user.kwargs.get("out") is target:
        return True
    name = _name(user)
    in_place = name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))
    flagged = user.kwargs.get("inplace") is True or any(arg is True for arg in user.args)
    return bool(user.args) and user.args[0] is target and (in_place or flagged)


def _share(one: fx.Node, other: fx.Node) -> bool:
    """Whether two calls give tensors of the same memory."""
    mine, theirs = one.meta.get("example_value"), other.meta.get("example_value")
    if not (isinstance(mine, Tensor) and isinstance(theirs, Tensor)):
        return False
    return mine.untyped_storage()._cdata == theirs.untyped_storage()._cdata


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _near(node: fx.Node, steps: int) -> list[fx.Node]:
    """The node and what it was made of, at most ``steps`` calls back."""
    if steps == 0:
        return [node]
    return [node, *(n for source in node.all_input_nodes for n in _near(source, steps - 1))]
