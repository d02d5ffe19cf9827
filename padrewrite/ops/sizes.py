"""Size arithmetic that a model did while it was recorded, kept as expressions of its inputs' sizes."""

from __future__ import annotations

from functools import lru_cache
from types import CodeType
from typing import Any

from torch import Tensor
from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP


@lru_cache(maxsize=4096)
def _code(text: str) -> CodeType:
    return compile(text, "<size>", "eval")


def evaluate_size(text: str, names: tuple[str, ...], dims: tuple[int, ...], *inputs: Tensor) -> Any:
    """The value of the expression ``text`` (torch's printed form), ``names[i]`` being ``inputs[i].size(dims[i])``."""
    sizes = {name: tensor.size(dim) for name, dim, tensor in zip(names, dims, inputs)}
    return eval(_code(text), {**SYMPY_INTERP, **sizes})
