"""What counts as a model, and what to write instead when something wrapped is given."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from padrewrite.errors import ModelError


def check_model(model: Any, function: str = "transform") -> nn.Module:
    """``model`` if it can be rewritten; otherwise a ModelError with the line to write instead.

    Args:
        function: what the user called.
    """
    if not isinstance(model, nn.Module):
        made = f"an instance, as in {function}(Model(), ...)" if isinstance(model, type) else "an nn.Module"
        raise ModelError(f"the model is a {type(model).__name__}; give {made}.")
    for name, module in model.named_modules():
        advice = _wrapper(module, function)
        if advice is not None:
            where = f"{name} is" if name else "the model is"
            raise ModelError(f"{where} {advice}")
    return model


def _wrapper(module: nn.Module, function: str) -> str | None:
    kind = type(module).__name__
    if getattr(module, "_compiled_call_impl", None) is not None:
        line = "new = transform(...) on a model not compiled; new.compile()"
        line = line if function == "transform" else f"{function}(...) on a model not compiled"
        return f"compiled in place by .compile(). Write: {line}."
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # pyright: ignore
        return f"a {kind} that is not initialised. Run one forward first: model(x); then {function}(model, ...)."
    if isinstance(module, nn.parallel.DistributedDataParallel):
        line = _called(function, "model.module, ...", "DistributedDataParallel(new)")
        return f"wrapped by DistributedDataParallel. Write: {line}"
    if isinstance(module, nn.DataParallel):
        return f"wrapped by DataParallel. Write: {_called(function, 'model.module, ...', 'DataParallel(new)')}"
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # importing it takes longer than most plans
    if dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        return f"compiled. Write: {_called(function, 'model._orig_mod, ...', 'torch.compile(new)')}"
    if isinstance(module, torch.jit.ScriptModule):
        return "a torch.jit.ScriptModule, whose code cannot be rewritten. Give the eager model instead."
    if kind == "FullyShardedDataParallel":
        return (
            "wrapped by FullyShardedDataParallel, which flattens the parameters. Write: "
            + ("new = transform(model, ...) first" if function == "transform" else f"{function}(model, ...) first")
            + f", then FullyShardedDataParallel({'new' if function == 'transform' else 'model'})."
        )
    return None


def _called(function: str, given: str, then: str) -> str:
    """The line to write."""
    return f"new = {function}({given}); {then}." if function == "transform" else f"{function}({given})."
