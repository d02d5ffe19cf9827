"""Example inputs: what the user gave, as positional and keyword arguments, never modified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from padrewrite.errors import InputsError
from padrewrite.recording.tensors import map_tensors, tensors_in


@dataclass(frozen=True)
class Inputs:
    """The arguments of one forward call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, example_inputs: Any) -> Inputs:
        """A tensor is one positional argument, a tuple all of them, a dict the keyword arguments."""
        if isinstance(example_inputs, Inputs):
            return example_inputs
        if isinstance(example_inputs, Tensor):
            return cls((example_inputs,), {})
        if isinstance(example_inputs, tuple):
            return cls(example_inputs, {})  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(example_inputs, dict):
            if not all(isinstance(k, str) for k in example_inputs):  # pyright: ignore[reportUnknownVariableType]
                raise InputsError("example_inputs is a dict whose keys are not all names of forward's arguments.")
            return cls((), dict(example_inputs))  # pyright: ignore[reportUnknownArgumentType]
        raise InputsError(
            f"example_inputs is a {type(example_inputs).__name__}; give a tensor, a tuple of positional arguments "
            "or a dict of keyword arguments (a list that is one argument goes inside a tuple: `([a, b],)`)."
        )

    def map(self, function: Any) -> Inputs:
        """The same arguments with every tensor replaced."""
        args, kwargs = map_tensors((self.args, self.kwargs), function)
        return Inputs(args, kwargs)

    def fresh(self) -> Inputs:
        """Copies that a forward may write to."""
        return self.map(lambda t: t.detach().clone())

    def double(self) -> Inputs:
        """The floating-point tensors in float64."""
        return self.map(lambda t: t.detach().clone().double() if t.is_floating_point() else t.detach().clone())

    @property
    def tensors(self) -> list[Tensor]:
        return list(tensors_in((self.args, self.kwargs)))

    @property
    def on_meta(self) -> bool:
        return any(t.is_meta for t in self.tensors)

    def __str__(self) -> str:
        shapes = ["x".join(map(str, t.shape)) or "scalar" for t in self.tensors]
        return ", ".join(shapes) or "no tensors"

    def spec(self) -> dict[str, Any] | None:
        """Shapes and types as JSON, enough to record the model again; None if an argument has no JSON form."""
        try:
            return {
                "args": tuple(_encode(a) for a in self.args),
                "kwargs": {k: _encode(v) for k, v in self.kwargs.items()},
            }
        except TypeError:
            return None

    @staticmethod
    def check_spec(spec: Any) -> None:
        """ValueError if ``spec`` is neither None nor what ``spec()`` gives."""
        fits = spec is None or (isinstance(spec.get("args"), tuple) and isinstance(spec.get("kwargs"), dict))
        if not fits:
            raise ValueError("inputs is not a record of positional and keyword arguments")

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Inputs:
        """Zeros of the recorded shapes and types."""
        return cls(tuple(_decode(a) for a in spec["args"]), {k: _decode(v) for k, v in spec["kwargs"].items()})


def _encode(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"tensor": tuple(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):  # pyright: ignore[reportUnknownArgumentType]
        return {type(value).__name__: tuple(_encode(v) for v in value)}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if type(value) is dict and all(isinstance(k, str) for k in value):  # pyright: ignore[reportUnknownVariableType]
        return {"dict": {k: _encode(v) for k, v in value.items()}}  # pyright: ignore[reportUnknownVariableType]
    raise TypeError(type(value).__name__)


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return torch.zeros(value["tensor"], dtype=getattr(torch, value["dtype"]))
    kind, content = next(iter(value.items()))  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if kind == "dict":
        return {k: _decode(v) for k, v in content.items()}  # pyright: ignore
    return (list if kind == "list" else tuple)(_decode(v) for v in content)  # pyright: ignore
