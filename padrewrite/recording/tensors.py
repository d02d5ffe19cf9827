"""Walking the tensors inside whatever a model takes or returns: containers, dataclasses, plain objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor reachable in ``value``, in a fixed order; each container once."""
    return (tensor for _, tensor in placed_tensors(value))


def placed_tensors(value: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Those of ``tensors_in`` with the place of each: ``aux[0]``; nothing for ``value`` itself."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        yield path, value
        return
    children = _children(value)
    if children is None or id(value) in seen:
        return
    seen.add(id(value))
    for key, child in children:
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
        yield from placed_tensors(child, path + step, seen)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """``value`` with each tensor replaced; containers are rebuilt, everything else is shared."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, set, frozenset)):
        return type(value)(map_tensors(v, function) for v in value)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if isinstance(value, tuple):
        parts = [map_tensors(v, function) for v in value]  # pyright: ignore[reportUnknownVariableType]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if isinstance(value, Mapping):
        mapped = copy.copy(value)  # pyright: ignore[reportUnknownVariableType]
        mapped.update({k: map_tensors(v, function) for k, v in value.items()})  # pyright: ignore
        return mapped  # pyright: ignore[reportUnknownVariableType]
    if hasattr(value, "__dict__") and _children(value) is not None and any(True for _ in tensors_in(value)):
        mapped = copy.copy(value)
        for name, child in vars(value).items():
            object.__setattr__(mapped, name, map_tensors(child, function))
        return mapped
    return value


def _children(value: Any) -> list[tuple[Any, Any]] | None:
    """What a container holds, by number or name; None if it is none."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(zip(getattr(value, "_fields", range(len(value))), value))  # pyright: ignore
    if isinstance(value, Mapping):
        return list(value.items())  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    if isinstance(value, (str, bytes, int, float, type)) or value is None or callable(value):
        return None
    if hasattr(value, "__dict__"):
        return list(vars(value).items())
    return None
