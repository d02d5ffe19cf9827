"""Frozen dataclasses to JSON and back, by their type hints."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

T = TypeVar("T")


def encode(value: Any) -> Any:
    """``value`` as JSON types. Dataclasses that have a ``kind`` carry it, so that unions can be read back."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": value.kind} if isinstance(getattr(type(value), "kind", None), str) else {}  # pyright: ignore
        return {
            **kind,
            **{f.name: encode(getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")},
        }
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if isinstance(value, (tuple, list)):
        return [encode(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def decode(kind: type[T], data: Any) -> T:
    """The inverse of ``encode`` for the dataclass ``kind``.

    Raises:
        ValueError, KeyError, TypeError: ``data`` is not of that form.
    """
    hints = _hints(kind)
    if not isinstance(data, dict):
        raise ValueError(f"expected the fields of {kind.__name__}, found {type(data).__name__}")
    names = [f.name for f in fields(kind) if not f.name.startswith("_")]  # pyright: ignore[reportArgumentType]
    missing = [n for n in names if n not in data]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
    return kind(**{n: _value(hints[n], data[n]) for n in names})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(hint: Any, data: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        tagged = [a for a in options if isinstance(data, dict) and getattr(a, "kind", None) == data.get("kind")]  # pyright: ignore
        return _value((tagged or options)[0], data)
    if origin is typing.Literal:
        return _checked(data in args, data, f"one of {args}")
    if origin is tuple:
        _checked(isinstance(data, list), data, "a list")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_value(args[0], v) for v in data)
        return tuple(_value(a, v) for a, v in zip(args, data, strict=True))
    if is_dataclass(hint):
        return decode(hint, data)  # pyright: ignore[reportArgumentType]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {k: _tuples(v) for k, v in _checked(isinstance(data, dict), data, "an object").items()}
    if isinstance(hint, type):
        fits = type(data) is hint or (hint is float and type(data) is int)
        return _checked(fits, data, hint.__name__)
    return _tuples(data)


def _checked(fits: bool, data: Any, wanted: str) -> Any:
    if not fits:
        raise ValueError(f"{data!r} is not {wanted}")
    return data


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}  # pyright: ignore
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value  # pyright: ignore
