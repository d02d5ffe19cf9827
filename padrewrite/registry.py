"""Passes by name: found through the entry-point group ``padrewrite.passes``, built-in and foreign ones alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import fields
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from padrewrite.errors import PassError
from padrewrite.rewriting import Pass
from padrewrite.selecting import closest

GROUP = "padrewrite.passes"


@lru_cache(maxsize=1)
def known_passes() -> dict[str, type[Pass]]:
    """Every installed pass class by its name."""
    found = {point.name: point.load() for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)}
    for name, cls in found.items():
        if not (isinstance(cls, type) and issubclass(cls, Pass) and cls.name == name):
            raise PassError(f"entry point {name!r} of {GROUP} is {cls!r}, not a Pass of that name.")
    return found


def parse_passes(passes: Iterable[str | Pass]) -> tuple[Pass, ...]:
    """Passes from names, names with options, and instances."""
    if isinstance(passes, (str, Pass)):
        raise PassError(f"passes is {passes!r}; give a list, as in passes=[{passes!r}].")
    if not isinstance(passes, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PassError(f"passes is {passes!r}; give a list of names or instances.")
    parsed = tuple(p if isinstance(p, Pass) else _parse(p) for p in passes)
    if not parsed:
        raise PassError(f"passes is empty. Known passes: {', '.join(known_passes())}.")
    _check_order(parsed)
    return parsed


def _check_order(passes: tuple[Pass, ...]) -> None:
    """Raises PassError naming every pair of passes that is in the wrong order."""
    pairs = [(early, late) for place, late in enumerate(passes) for early in passes[:place]]
    wrong = dict.fromkeys((late.name, early.name) for early, late in pairs if early.name in late.before)
    if wrong:
        told = "; ".join(f"{late} must come before {early}" for late, early in wrong)
        raise PassError(f"the passes are in the wrong order: {told}. Nothing was changed.")


def _parse(text: Any) -> Pass:
    shape = (
        re.fullmatch(r"\s*([\w-]+)\s*(?:\{(.*)\})?\s*", text, re.DOTALL) if isinstance(text, str) else None
    )
    if shape is None:
        raise PassError(
            f"{text!r} is not a pass; write a name, a name{{option=value,...}}, or give an instance."
        )
    name, body = shape.groups()
    known = known_passes()
    if name not in known:
        near = closest(name, known)
        raise PassError(
            f"unknown pass {name!r}. Closest: {near[0] if near else 'none'}. Known passes: {', '.join(known)}."
        )
    options = list(_options(name, body or ""))
    twice = [option for i, (option, _) in enumerate(options) if option in dict(options[:i])]
    if twice:
        raise PassError(f"{name}: option {twice[0]!r} is given twice.")
    return build_pass(known[name], dict(options))


def build_pass(cls: type[Pass], options: dict[str, Any]) -> Pass:
    """An instance of ``cls``; a wrong option is an error that lists the right ones."""
    names = [f.name for f in fields(cls)]
    for option in options:
        if option not in names:
            raise PassError(
                f"{cls.name} has no option {option!r}; its options are {', '.join(names) or 'none'}."
            )
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise PassError(f"{cls.name}: {error}") from error


def _options(name: str, body: str) -> Iterable[tuple[str, Any]]:
    for part in re.split(r",(?![^\[]*\])", body):
        if not part.strip():
            continue
        option, equals, value = part.partition("=")
        if not equals:
            raise PassError(f"{name}: {part.strip()!r} is not option=value.")
        yield option.strip(), _value(value.strip())


def _value(text: str) -> Any:
    if text.startswith("["):
        inner = text.strip("[]").strip()
        return tuple(_value(part.strip()) for part in inner.split(",")) if inner else ()
    try:
        return json.loads({"None": "null", "True": "true", "False": "false"}.get(text, text))
    except json.JSONDecodeError:
        return text.strip("\"'")
