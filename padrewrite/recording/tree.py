"""Sites without running anything: the convolution modules of the tree, in registration order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.utils import parametrize

from padrewrite.graph import ROOT, Call, Frame, Graph, Handle, Site
from padrewrite.nn.axis_padding import conv_op
from padrewrite.ops.conv import TransposedConv


def read_tree(model: nn.Module) -> Graph:
    """One site per convolution module. Order, call counts, explicit pads and functional calls stay unknown."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    convs = {fqn: module for fqn, module in model.named_modules() if isinstance(module, _ConvNd)}
    sites = {(fqn or ROOT): _site(fqn, module, names) for fqn, module in convs.items()}
    note = (
        "no example inputs: only convolution modules were read; explicit pads before them, functional convolutions "
        "and repeated calls were not seen"
    )
    return Graph(None, sites, "module tree", notes=(note,))


def _site(fqn: str, module: _ConvNd, names: Mapping[int, str]) -> Site:
    op = conv_op(module)
    prefix = "conv_transpose" if isinstance(op, TransposedConv) else "conv"
    call = Call((Frame(fqn, 0),), f"{prefix}{op.window.rank}d", owner_kind="conv")
    own = dict(module.named_parameters(recurse=False))
    weight = f"{fqn}.weight".removeprefix(".") if "weight" in own else None
    return Site(fqn or ROOT, fqn, 0, None, op, Handle(call, weight), weights=_weights(module, names))


def _weights(module: _ConvNd, names: Mapping[int, str]) -> tuple[tuple[str, int], ...]:
    """Name and number of elements of each parameter of a convolution, by the one name of what modules share.

    Of a parametrized weight these are the original parameters.
    """
    found = list(module.parameters(recurse=False))
    if parametrize.is_parametrized(module):
        found += module.get_submodule("parametrizations").parameters()
    return tuple(sorted((names[id(parameter)], parameter.numel()) for parameter in found))


def tree_fingerprint(model: nn.Module) -> str:
    """Hash of what a plan relies on: module names and classes, convolutions, and the names and shapes of the state."""
    rows: list[object] = []
    for fqn, module in model.named_modules():
        rows.append((fqn, type(module).__name__))
        if isinstance(module, _ConvNd):
            rows.append(conv_op(module))
    rows += [(name, tuple(t.shape)) for name, t in [*model.named_parameters(), *model.named_buffers()]]
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
