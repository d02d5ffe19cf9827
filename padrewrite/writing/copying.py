"""Copying a model, also where torch's deepcopy refuses."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from padrewrite.errors import ModelError


@torch.inference_mode(False)
def copy_model(model: nn.Module) -> nn.Module:
    """A deep copy.

    Old-style weight_norm leaves a computed, non-leaf weight on the module, which deepcopy refuses; it is replaced
    by its value for the time of the copy (the next forward computes it anew).
    """
    held = [(m, name, t) for m in model.modules() for name, t in vars(m).items() if _computed(t)]
    for module, name, tensor in held:
        vars(module)[name] = tensor.detach()
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({error}). Use inplace=True, or remove what cannot be copied."
        ) from error
    finally:
        for module, name, tensor in held:
            vars(module)[name] = tensor


def _computed(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.grad_fn is not None
