"""Titled groups of rows whose columns are aligned over all groups: names get a line of their own and are never cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from padrewrite.reporting.layout import Cell, grid, natural_widths

INDENT = 2

Group = tuple[Text, Sequence[Sequence[Cell]]]
"""A title and the rows below it."""


def aligned(
    columns: Sequence[str],
    groups: Sequence[Group],
    width: int,
    *,
    least: Sequence[int],
    right: Collection[int],
    fold: Collection[int] = (),
) -> Iterator[RenderableType]:
    """A header, if there is a row, and the groups; ``least``, ``right`` and ``fold`` are those of ``grid``."""
    header: list[Cell] = [Text(name, style="bold") for name in columns]
    rows = [row for _, rows in groups for row in rows]
    widths = natural_widths([header, *rows])

    def line(row: Sequence[Cell]) -> RenderableType:
        return grid([row], width, least=least, right=right, fold=fold, indent=INDENT, wanted=widths)

    if rows:
        yield line(header)
    for title, below in groups:
        title.overflow = "fold"
        yield title
        yield from map(line, below)
