"""What compiles a rewritten graph: Inductor with its modes and options, or any other backend of torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import torch.fx as fx

from padrewrite.errors import PassError
from padrewrite.selecting import closest

Compiler: TypeAlias = Callable[[fx.GraphModule, list[Any]], Any]
"""Takes a graph and its example inputs, gives what runs instead of it."""


def find_compiler(inner: str | Compiler, mode: str | None, options: Mapping[str, Any]) -> Compiler:
    """The compiler, its mode and options checked now.

    Raises:
        PassError: no such compiler, mode or option.
    """
    if inner == "inductor":
        return _inductor(mode, options)
    if mode not in (None, "default") or options:
        given = ", ".join([*([] if mode is None else ["mode"]), *options])
        raise PassError(f"{given}: only Inductor takes a mode and options; the inner backend is {inner!r}.")
    if not isinstance(inner, str):
        return inner
    try:
        return torch._dynamo.lookup_backend(inner)
    except Exception as error:
        known = ", ".join(torch._dynamo.list_backends())
        raise PassError(f"unknown inner backend {inner!r}. Known: {known}.") from error


def _inductor(mode: str | None, options: Mapping[str, Any]) -> Compiler:
    if options:
        known = [name.replace("-", "_") for name in torch._inductor.list_options()]
        for name in options:
            if name.replace("-", "_") not in known:
                near = ", ".join(closest(name, [*_OURS, *known]))
                raise PassError(f"unknown option {name!r}. Closest: {near}. The backend's own: {', '.join(_OURS)}.")
    if mode not in (None, "default"):
        modes = torch._inductor.list_mode_options()
        if mode not in modes:
            raise PassError(f"unknown mode {mode!r}. Known: default, {', '.join(modes)}.")
    try:
        return torch._TorchCompileInductorWrapper(mode, dict(options), None)
    except RuntimeError as error:
        raise PassError(f"Inductor refuses the options: {error}") from error


_OURS = ("passes", "include", "exclude", "where", "allow_no_effect", "inner", "mode")
