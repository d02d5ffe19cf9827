"""How a symmetric convolution is computed here: a table over device, memory format and input channels.

All formulations are one function up to rounding, so the table is about time only. The built-in one holds what was
measured (docs/performance.md); ``PADREWRITE_FORMULATIONS`` names a file of another machine's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from padrewrite.codec import decode
from padrewrite.errors import SettingsError
from padrewrite.settings import Settings

FORMULATIONS = ("concat", "embedded", "crops")
LAYOUTS = ("any", "contiguous", "channels_last")
SCHEMA = "padrewrite.formulations/1"
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Row:
    """From so many input channels on, on this device and in this memory format: this formulation."""

    device: str
    layout: str
    channels: int
    formulation: str


DEFAULT = (Row("cpu", "any", 0, "concat"), Row("cuda", "any", 0, "concat"))


def choose(x: Tensor, channels: int, table: Sequence[Row] | None = None) -> str:
    """The formulation for an input: the row with the most channels that it has, of those for its device and format.

    Of two with as many channels the one for its format counts, not the one for any.
    """
    found, most = "concat", (-1, False)
    for row in table or TABLE:
        rank = (row.channels, row.layout != "any")
        fits = row.device == x.device.type and row.channels <= channels and rank > most
        if fits and (row.layout == "any" or row.layout == _layout(x)):
            found, most = row.formulation, rank
    return found


def merged(table: Sequence[Row], measured: Sequence[Row]) -> tuple[Row, ...]:
    """The table with the rows of the devices and formats that were measured replaced, all others kept; sorted."""
    again = {(row.device, row.layout) for row in measured}
    kept = [row for row in table if (row.device, row.layout) not in again]
    return tuple(sorted((*kept, *measured), key=lambda row: (row.device, row.layout, row.channels)))


def _layout(x: Tensor) -> str:
    """Asked only if the table distinguishes: torch.compile guards on what is asked."""
    last = x.dim() in _CHANNELS_LAST and x.is_contiguous(memory_format=_CHANNELS_LAST[x.dim()])
    return "channels_last" if last and not x.is_contiguous() else "contiguous"


def table_json(rows: Sequence[Row]) -> str:
    """The table as text that ``read_table`` reads."""
    return json.dumps({"schema": SCHEMA, "rows": [asdict(row) for row in rows]}, indent=1, sort_keys=True) + "\n"


def read_table(text: str, where: str) -> tuple[Row, ...]:
    """The table in ``text``; ``where`` it came from, for errors.

    Raises:
        SettingsError: it is no such table, or names what does not exist.
    """
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r}, not {SCHEMA!r}")
        rows = tuple(decode(Row, row) for row in data["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{where} is no table of formulations: {error}. Write one by bench --tune.") from error
    for row in rows:
        if row.formulation not in FORMULATIONS or row.layout not in LAYOUTS:
            known = f"{', '.join(FORMULATIONS)} and {', '.join(LAYOUTS)}"
            raise SettingsError(f"{where} names {row.formulation!r} for layout {row.layout!r}; known are {known}.")
    return rows


def _table() -> tuple[Row, ...]:
    path = Settings.from_environment().formulations
    if path is None:
        return DEFAULT
    try:
        return read_table(Path(path).read_text(encoding="utf-8"), path)
    except OSError as error:
        raise SettingsError(f"PADREWRITE_FORMULATIONS: {path} cannot be read: {error}.") from error


TABLE = _table()
