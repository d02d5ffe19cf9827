"""What a model holds outside torch's registries, remembered deeply enough to be put back after a forward."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Snapshot:
    """The attributes of every module: containers, plain objects, tensors and generators inside them, by value."""

    def __init__(self, model: nn.Module) -> None:
        self._seen: set[int] = set()
        self._undo: list[tuple[Any, Any]] = []
        """(object, what it held), outermost first; tensors by value, containers by their elements."""
        self._alive: list[Any] = []
        for module in model.modules():
            self._seen.add(id(module))
        for module in model.modules():
            self._undo.append((module, dict(vars(module))))
            for value in vars(module).values():
                self._remember(value)

    def restore(self) -> None:
        """Puts everything back, in the objects that held it."""
        for held, saved in self._undo:
            if isinstance(held, Tensor):
                with torch.no_grad():
                    held.data.copy_(saved)
            elif isinstance(held, torch.Generator):
                held.set_state(saved)
            elif isinstance(held, (list, deque)):
                held.clear()
                held.extend(saved)  # pyright: ignore[reportUnknownMemberType]
            elif isinstance(held, (dict, set)):
                held.clear()
                held.update(saved)  # pyright: ignore[reportUnknownMemberType]
            else:
                vars(held).clear()
                vars(held).update(saved)

    def _remember(self, value: Any) -> None:
        if id(value) in self._seen or isinstance(value, (nn.Module, type)):
            return
        self._seen.add(id(value))
        self._alive.append(value)
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter) and not value.is_meta and value.layout == torch.strided:
                self._undo.append((value, value.detach().clone()))
        elif isinstance(value, torch.Generator):
            self._undo.append((value, value.get_state()))
        elif isinstance(value, (list, deque, set)):
            self._undo.append((value, list(value)))  # pyright: ignore[reportUnknownArgumentType]
            self._all(value)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, dict):
            self._undo.append((value, dict(value)))  # pyright: ignore[reportUnknownArgumentType]
            self._all(value.values())  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, (tuple, Mapping)):
            self._all(value.values() if isinstance(value, Mapping) else value)  # pyright: ignore
        elif _is_plain_object(value):
            self._undo.append((value, dict(vars(value))))
            self._all(vars(value).values())

    def _all(self, values: Any) -> None:
        for value in values:
            self._remember(value)


def _is_plain_object(value: Any) -> bool:
    """An object of the user's: with attributes, and not code, a library's handle or a class."""
    library = type(value).__module__.split(".")[0] in _LIBRARIES
    return hasattr(value, "__dict__") and not callable(value) and not library


_LIBRARIES = ("torch", "builtins", "functools", "weakref", "padrewrite")
