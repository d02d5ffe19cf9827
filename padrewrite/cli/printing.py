"""Standard output: rich on a terminal, plain text of at most 100 columns in a pipe, JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, RenderableType

from padrewrite.reporting.layout import WIDTH, plain_text

Parts = Callable[[int], Iterable[RenderableType]]
"""Renderables for a width in columns."""


def show(parts: Parts) -> None:
    """Prints ``parts``, in colour where a person reads them."""
    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        print(plain_text(parts(WIDTH)))
        return
    for part in parts(min(console.width, WIDTH)):
        console.print(part)


def show_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=1, sort_keys=True, allow_nan=False))


def say(text: str) -> None:
    """A remark that is not the result: to standard error, so that a pipe gets the result alone."""
    print(text, file=sys.stderr)
