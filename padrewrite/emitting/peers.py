"""Modules that run in one another's graphs.

Where Dynamo cannot follow a model as a whole it compiles the forwards of submodules on their own, and such a graph
serves every module that has the same forward and the same convolutions: one decision holds for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from padrewrite.graph import Site
from padrewrite.nn.axis_padding import conv_op


def peers_of(model: nn.Module, root: str, site: Site) -> Iterator[Site]:
    """The sites of other modules that run in the graph of ``site``, which is that of the module ``root``."""
    if not root:
        return
    module = model.get_submodule(root)
    for fqn, other in model.named_modules():
        if other is module or not isinstance(other, type(module)) or _code(other) is not _code(module):
            continue
        name = (fqn + site.fqn.removeprefix(root)).removeprefix(".")
        if _same_convolution(model, site.fqn, name):
            yield replace(site, id=name + site.id.removeprefix(site.fqn), fqn=name)


def _code(module: nn.Module) -> Any:
    return getattr(type(module).forward, "__code__", None)


def _same_convolution(model: nn.Module, one: str, other: str) -> bool:
    try:
        mine, theirs = model.get_submodule(one), model.get_submodule(other)
    except AttributeError:
        return False
    if isinstance(mine, _ConvNd) and isinstance(theirs, _ConvNd):
        return conv_op(mine) == conv_op(theirs)
    return type(mine) is type(theirs)
