"""Fixed-width text from rich renderables: grids whose columns share the width, cells cut in the middle.

Everything is built from ASCII; only names that a user's model brings along may hold other characters.
Widths are counted in terminal cells.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 100
"""Terminal cells of a line in plain text."""

GAP = 2
_ELLIPSIS = "..."

Cell = str | Text


def plain_text(parts: Iterable[RenderableType], width: int = WIDTH) -> str:
    """``parts`` as lines of at most ``width`` cells, without control codes, whatever the terminal."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=False, color_system=None, highlight=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).rstrip("\n")


def clean(text: str) -> str:
    """``text`` on one line: what a terminal cannot print is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells; what is too much is taken from the middle."""
    if cell_len(text) <= width:
        return text
    if width <= len(_ELLIPSIS):
        return _ELLIPSIS[:width]
    room = width - len(_ELLIPSIS)
    return _take(text, room // 2) + _ELLIPSIS + _take(text, room - room // 2, from_end=True)


def _take(text: str, width: int, from_end: bool = False) -> str:
    """As much of one end of ``text`` as fits into ``width`` cells."""
    cut = 0
    while cell_len(text[cut:] if from_end else text[: len(text) - cut]) > width:
        cut += 1
    return text[cut:] if from_end else text[: len(text) - cut]


def share(natural: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """Column widths that add up to at most ``width``: the widest column that may shrink gives way first."""
    widths = list(natural)
    while sum(widths) > width:
        able = [i for i, w in enumerate(widths) if w > least[i]]
        if not able:
            break
        widths[max(able, key=lambda i: widths[i])] -= 1
    return widths


def natural_widths(rows: Sequence[Sequence[Cell]]) -> list[int]:
    """Cells that each column wants."""
    return [max(cell_len(_plain(cell)) for cell in column) for column in zip(*rows)]


def grid(
    rows: Sequence[Sequence[Cell]],
    width: int,
    *,
    least: Sequence[int],
    fold: Iterable[int] = (),
    right: Iterable[int] = (),
    indent: int = 0,
    gap: int = GAP,
    wanted: Sequence[int] | None = None,
) -> Table:
    """Rows in aligned columns, at most ``width`` cells together.

    Args:
        least: per column, the cells below which it does not shrink (0: it never shrinks).
        fold: columns that wrap where they are too narrow; the others are cut in the middle.
        right: columns aligned to the right.
        indent: cells left free before the first column.
        gap: cells between columns.
        wanted: cells that each column wants, if more than these rows do.
    """
    folded, aligned = set(fold), set(right)
    columns = len(least)
    natural = wanted or (natural_widths(rows) if rows else [0] * columns)
    floors = [min(n, low) if low else n for n, low in zip(natural, least)]
    widths = share(natural, floors, width - indent - gap * (columns - 1))
    table = Table.grid(padding=(0, gap, 0, 0), pad_edge=False)
    if indent:
        table.add_column(width=max(0, indent - gap))
    for c, cells in enumerate(widths):
        overflow, justify = "fold" if c in folded else "crop", "right" if c in aligned else "left"
        table.add_column(width=cells, no_wrap=c not in folded, overflow=overflow, justify=justify)
    for row in rows:
        cells = [_cell(row[c], None if c in folded else widths[c]) for c in range(columns)]
        table.add_row(*([""] if indent else []), *cells)
    return table


def listing(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(clean(n) for n in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _plain(cell: Cell) -> str:
    return clean(cell.plain if isinstance(cell, Text) else cell)


def _cell(cell: Cell, width: int | None) -> Text:
    text = _plain(cell) if width is None else shorten(_plain(cell), width)
    return Text(text, style=cell.style if isinstance(cell, Text) else "")
