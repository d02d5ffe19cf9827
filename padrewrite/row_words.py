"""Rows of a graph's normal form in words, for people who ask in which call two graphs differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Rows = Sequence[tuple[Any, ...]]


def difference_text(predicted: Any, found: Any, before: Rows, after: Rows) -> str:
    """What was predicted of a call and what was found, where they differ. The rows around them name their operands."""
    if predicted[0] == found[0] == "conv" and predicted[1][0] == found[1][0]:
        old, new = (row[1][1].spec() for row in (predicted, found))
        changed = [name for name in old if old[name] != new.get(name)]
        if changed:
            pairs = (", ".join(f"{name} {spec.get(name)}" for name in changed) for spec in (old, new))
            return f"{predicted[1][0]}: predicted {' but found '.join(pairs)}"
    old, new = row_text(predicted, before), row_text(found, after)
    return f"predicted {old}, found {new}" if old != new else f"{old} has other numbers than predicted"


def row_text(row: Any, rows: Rows) -> str:
    """One call: its function, what it is given, and the layer that makes it."""
    kind, _, fqn, operands = row
    given = ", ".join(_operands(operands, rows))
    return f"{_name(row)} of {given}" if kind == "conv" else f"{_name(row)}({given}) in {fqn or 'the model'}"


def _name(row: Any) -> str:
    return f"convolution {row[1][0]}" if row[0] == "conv" else str(row[1])


def _operands(part: Any, rows: Rows) -> Iterator[str]:
    if not isinstance(part, tuple):
        yield str(part)
    elif len(part) == 2 and part[0] == "row" and isinstance(part[1], int):
        yield _name(rows[part[1]])
    elif len(part) == 2 and part[0] in ("size", "parameter", "input"):
        yield str(part[1])
    elif len(part) == 2 and isinstance(part[0], str):
        yield f"{part[0]}={', '.join(_operands(part[1], rows))}"
    else:
        for one in part:  # pyright: ignore[reportUnknownVariableType]
            yield from _operands(one, rows)
