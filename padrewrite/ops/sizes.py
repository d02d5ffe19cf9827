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


def print_size(expression: Any) -> str:
    """A size expression as text that ``evaluate_size`` reads."""
    from torch.utils._sympy.printers import PythonPrinter

    return PythonPrinter().doprint(expression)


@lru_cache(maxsize=4096)
def _printed(expression: Any) -> str:
    return print_size(expression)


def value_of(expression: Any, sizes: dict[str, int]) -> Any:
    """The value of a size expression, its symbols given by name."""
    return eval(_code(_printed(expression)), {**SYMPY_INTERP, **sizes})


def evaluate_size(text: str, names: tuple[str, ...], dims: tuple[int, ...], *inputs: Tensor) -> Any:
    """The value of the expression ``text`` (torch's printed form), ``names[i]`` being ``inputs[i].size(dims[i])``."""
    sizes = {name: tensor.size(dim) for name, dim, tensor in zip(names, dims, inputs)}
    return eval(_code(text), {**SYMPY_INTERP, **sizes})


def size_name(index: int, dim: int) -> str:
    """The name that a model input's size has in recorded expressions."""
    return f"input_{index}_size_{dim}"


def size_words(index: int, dim: int) -> str:
    """The same for people."""
    return f"the size of input {index} along dimension {dim}"
