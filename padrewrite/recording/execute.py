"""Running a recorded graph: node by node, with the parameters and buffers given, freeing values after last use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.fx as fx
from torch import Tensor
from torch.fx.node import map_arg

Override = Callable[[fx.Node, tuple[Any, ...], dict[str, Any]], Any]


def execute(
    nodes: fx.Graph, state: Mapping[str, Tensor], inputs: Sequence[Tensor], override: Override | None = None
) -> tuple[Tensor, ...]:
    """The flat tuple of output tensors.

    Args:
        state: parameters, buffers and constants by the name their ``get_attr`` nodes carry.
        inputs: the tensors among the model's arguments, in order.
        override: called for every call node; what it returns, unless ``NotImplemented``, is the node's value.
    """
    last_use: dict[fx.Node, fx.Node] = {}
    for node in nodes.nodes:
        for source in node.all_input_nodes:
            last_use[source] = node
    env: dict[fx.Node, Any] = {}
    given = iter(inputs)
    for node in nodes.nodes:
        if node.op == "placeholder":
            env[node] = next(given)
        elif node.op == "get_attr":
            env[node] = state[node.target]
        else:
            args, kwargs = map_arg((node.args, dict(node.kwargs)), env.__getitem__)
            if node.op == "output":
                return args[0]
            value = override(node, args, kwargs) if override is not None else NotImplemented
            with _autocast(node.meta.get("autocast")):
                env[node] = node.target(*args, **kwargs) if value is NotImplemented else value
        for source in node.all_input_nodes:
            if last_use[source] is node:
                del env[source]
    raise AssertionError("the graph has no output")


def autocast_state() -> tuple[tuple[str, bool, torch.dtype], ...]:
    """Whether each kind of device casts automatically here, and to what."""
    return tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda"))


@contextmanager
def _autocast(state: tuple[tuple[str, bool, torch.dtype], ...] | None) -> Iterator[None]:
    with ExitStack() as stack:
        for kind, enabled, dtype in state or ():
            if enabled != torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
        yield


def state_of(model: torch.nn.Module, constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters, buffers and constants as ``execute`` wants them, shared with the model."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers()), **constants}
