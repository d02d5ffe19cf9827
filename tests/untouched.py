"""Everything about a model and the random generators that planning, recording or a failed call could disturb."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_REGISTRIES = ("_parameters", "_buffers", "_modules")


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Asserts that ``model``, its tensors, its attributes and all random states are what they were, errors or not."""
    before = facts(model)
    try:
        yield
    finally:
        found = difference(before, facts(model))
        assert found is None, found


def facts(model: nn.Module) -> dict[str, Any]:
    """What can be observed of a model, by name, values copied."""
    found: dict[str, Any] = {
        "random": random.getstate(),
        "torch random": torch.get_rng_state().clone(),
        "numpy random": np.random.get_state()[1].copy(),  # pyright: ignore
        "grad mode": torch.is_grad_enabled(),
        "state_dict": list(model.state_dict()),
        "modules": [name for name, _ in model.named_modules()],
    }
    for name, module in model.named_modules():
        found[f"{name}: class"] = type(module)
        found[f"{name}: __dict__ keys"] = list(vars(module))
        found |= {
            f"{name}.{key}": _copied(value) for key, value in vars(module).items() if key not in _REGISTRIES
        }
        for registry in _REGISTRIES:
            found[f"{name}: {registry}"] = {k: id(v) for k, v in vars(module)[registry].items()}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"{name}: value"] = tensor.detach().clone()
        found[f"{name}: form"] = (tensor.dtype, str(tensor.device), tensor.stride(), tensor.requires_grad)
        found[f"{name}: gradient"] = None if tensor.grad is None else (id(tensor.grad), tensor.grad.clone())
    return found


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """The first fact that differs, as text."""
    for name in [*before, *(n for n in after if n not in before)]:
        if name not in after or name not in before or not same(before[name], after[name]):
            return f"{name}: {before.get(name, 'absent')!r} became {after.get(name, 'absent')!r}"
    return None


def same(a: Any, b: Any) -> bool:
    """Equality that looks into containers, tensors and generators."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and (a.is_meta or torch.equal(a, b))
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return bool(a == b)


def _copied(value: Any) -> Any:
    """``value`` as it is now: later changes inside it do not change the copy."""
    if isinstance(value, torch.Generator):
        return value.get_state().clone()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    if callable(value) or isinstance(value, (type, nn.Module)):
        return id(value)
    if isinstance(value, (list, tuple)):
        return [_copied(v) for v in value]
    return copy.deepcopy(vars(value)) if hasattr(value, "__dict__") else copy.copy(value)
