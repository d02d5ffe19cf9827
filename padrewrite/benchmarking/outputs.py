"""Tensors inside whatever a model returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import cast

import torch


def tensors_in(output: object) -> Iterator[torch.Tensor]:
    """Every tensor in a tensor, sequence, mapping or dataclass, nested to any depth, in the order they
    appear.

    Anything else holds no tensors as far as this function is concerned.
    """
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in cast("Mapping[object, object]", output).values():
            yield from tensors_in(value)
    elif isinstance(output, (list, tuple)):
        for value in cast("list[object]", output):
            yield from tensors_in(value)
    elif is_dataclass(output) and not isinstance(output, type):
        for field in fields(output):
            yield from tensors_in(getattr(output, field.name))


def mean_square(output: object) -> torch.Tensor | None:
    """Sum, over every output tensor that requires grad, of the mean of its squared absolute values (float32
    or wider).

    Returns:
        A scalar tensor, or None when no tensor in the output requires grad.
    """
    terms = [_mean_square_of(t) for t in tensors_in(output) if t.requires_grad and t.numel()]
    return torch.stack(terms).sum() if terms else None


def _mean_square_of(tensor: torch.Tensor) -> torch.Tensor:
    real = tensor.abs() if tensor.is_complex() else tensor
    # Half types overflow when squared; one common type lets outputs of different types be added.
    return real.to(torch.promote_types(real.dtype, torch.float32)).square().mean().to(torch.float64)


def describe(output: object) -> str:
    """The type of an output and the tensors in it, for error messages."""
    tensors = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors_in(output)]
    return f"{type(output).__name__} with {', '.join(tensors) if tensors else 'no tensors'}"
