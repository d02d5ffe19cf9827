"""What counts as a model, and what to write instead when something wrapped is given."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from padrewrite.errors import ModelError


def check_model(model: Any) -> nn.Module:
    """``model`` if it can be rewritten; otherwise a ModelError with the line to write instead."""
    if not isinstance(model, nn.Module):
        made = "an instance, as in transform(Model(), ...)" if isinstance(model, type) else "an nn.Module"
        raise ModelError(f"the model is a {type(model).__name__}; give {made}.")
    for name, module in model.named_modules():
        advice = _wrapper(module)
        if advice is not None:
            where = f"{name} is" if name else "the model is"
            raise ModelError(f"{where} {advice}")
    return model


def _wrapper(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if getattr(module, "_compiled_call_impl", None) is not None:
        return "compiled in place by .compile(). Write: new = transform(...) on a model not compiled; new.compile()."
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # pyright: ignore
        return f"a {kind} that is not initialised. Run one forward first: model(x); then transform(model, ...)."
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return (
            "wrapped by DistributedDataParallel. "
            "Write: new = transform(model.module, ...); DistributedDataParallel(new)."
        )
    if isinstance(module, nn.DataParallel):
        return "wrapped by DataParallel. Write: new = transform(model.module, ...); DataParallel(new)."
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # importing it takes longer than most plans
    if dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        return "compiled. Write: new = transform(model._orig_mod, ...); torch.compile(new)."
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "a torch.jit.ScriptModule, whose code cannot be rewritten. Transform the eager model instead."
        )
    if kind == "FullyShardedDataParallel":
        return (
            "wrapped by FullyShardedDataParallel, which flattens the parameters. Write: new = transform(model, ...) "
            "first, then FullyShardedDataParallel(new)."
        )
    return None
