"""Titled groups of rows whose columns are aligned over all groups: names get a line of their own and are never cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from padrewrite.reporting.layout import Cell, clean, grid, natural_widths

INDENT = 2

Group = tuple[Text, Sequence[Sequence[Cell]]]
"""A title and the rows below it."""


def aligned(
    columns: Sequence[str], groups: Sequence[Group], width: int, *, least: Sequence[int], right: Collection[int]
) -> Iterator[RenderableType]:
    """A header and the groups; ``least`` and ``right`` are those of ``grid``."""
    header: list[Cell] = [Text(name, style="bold") for name in columns]
    widths = natural_widths([header, *(row for _, rows in groups for row in rows)])

    def line(row: Sequence[Cell]) -> RenderableType:
        cells = [_padded(cell, n, c in right) for c, (cell, n) in enumerate(zip(row, widths))]
        return grid([cells], width, least=least, indent=INDENT)

    yield line(header)
    for title, rows in groups:
        title.overflow = "fold"
        yield title
        yield from map(line, rows)


def _padded(cell: Cell, width: int, right: bool) -> Text:
    text, style = (cell.plain, cell.style) if isinstance(cell, Text) else (cell, "")
    text = clean(text)
    room = " " * (width - cell_len(text))
    return Text(room + text if right else text + room, style=style)
