"""Every convolution of an analysis in two lines: what it is, and what is spatially true of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import zip_longest

from rich.console import RenderableType
from rich.text import Text

from padrewrite.analyses.analysis import SiteRecord
from padrewrite.analyses.phases import AxisPhase
from padrewrite.reporting.aligned import INDENT, Group, aligned
from padrewrite.reporting.layout import Cell, clean
from padrewrite.reporting.ops import spec_text

_COLUMNS = ("input -> output", "output of H", "sits at", "field", "weights", "padding", "q", "MACs")
_LEGEND = (
    "sits at: input coordinate of output i. field: input pixels it depends on, were the input endless (+: all",
    "others too, through a pool, gate or norm). weights: share that meets real input. padding: share of the outputs",
    "that depend on made-up values. q: signal left by the border (mean field).",
)
_UNKNOWN = "-"
_UNITS = "kMGT"


def sites_parts(records: Iterable[SiteRecord], width: int) -> Iterator[RenderableType]:
    """A title, a row of numbers, and what else there is to say, per convolution call."""
    groups = [_group(record) for record in records]
    yield from aligned(
        _COLUMNS, groups, width, least=(12, 9, 8, 5, 0, 0, 0, 0), right=(3, 4, 5, 6, 7), fold=(0, 1, 2, 3)
    )
    if any(rows for _, rows in groups):
        yield Text(" ".join(_LEGEND), style="dim")


def _group(record: SiteRecord) -> Group:
    title = Text(f"{clean(record.id)}  ", style="bold")
    channels = f"{record.op.in_channels}>{record.op.out_channels}"
    title.append(f"{spec_text(record.op.spec())}  {channels}", style="not bold")
    if record.source:
        title.append(f"  {clean(record.source)}", style="not bold dim")
    for line in _remarks(record):
        title.append(f"\n{' ' * INDENT}{clean(line)}", style="not bold yellow")
    return title, [] if record.input_size is None else list(_rows(record))


def _remarks(record: SiteRecord) -> Iterator[str]:
    """What is not as it should be, and fits no column."""
    for given, seen in record.reached_of.items():
        if seen.holes:
            of = "input" if record.reached is not None else f"input {given}'s"
            yield f"the middle output depends on {seen.count:,} of the {per_axis(seen.extents)} {of} pixels it spans"
    if record.ended and record.input_size is not None:
        yield f"not followed: {record.ended}"
    if record.field_ended:
        yield f"no receptive field: {record.field_ended}"


def _rows(record: SiteRecord) -> Iterator[tuple[Cell, ...]]:
    """Numbers, with a line for each axis where the axes differ."""
    field = per_axis(record.receptive_field) + ("+" if record.context else "")
    sizes = _lines(record.size)
    phases = _lines([None if phase is None else phase_text(phase) for phase in record.phase])
    yield (
        f"{per_axis(record.input_size)} -> {per_axis(record.output_size)}",
        sizes[0],
        phases[0],
        field,
        share_text(record.valid_weights),
        share_text(record.saw_padding),
        _UNKNOWN if record.border is None else f"{record.border.q:.3f}",
        count_text(record.macs),
    )
    for size, phase in list(zip_longest(sizes, phases, fillvalue=""))[1:]:
        yield ("", size, phase, "", "", "", "", "")


def _lines(values: Sequence[object]) -> list[str]:
    """What holds for every axis, or a line for each."""
    parts = once(values).split(", ")
    return [f"{part}," for part in parts[:-1]] + parts[-1:]


def phase_text(phase: AxisPhase) -> str:
    """``4i + 3/2``: the input coordinate of position i, along the deepest path."""
    scale = "i" if phase.scale == 1 else f"{phase.scale}i" if phase.scale.denominator == 1 else f"({phase.scale})i"
    sign = "+" if phase.offset > 0 else "-"
    return f"{scale} {sign} {abs(phase.offset)}" if phase.offset else scale


def per_axis(values: Sequence[object] | None) -> str:
    """``7x7``: a size, a number per axis."""
    return _UNKNOWN if not values or None in values else "x".join(map(str, values))


def once(values: Sequence[object] | None) -> str:
    """What holds for every axis, written once; else one text per axis."""
    if not values or None in values:
        return _UNKNOWN
    texts = list(map(str, values))
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


def share_text(share: Fraction | float | None) -> str:
    return _UNKNOWN if share is None else f"{100 * float(share):.1f} %"


def count_text(count: int | None) -> str:
    """Three digits and a unit: ``893 M``."""
    if count is None:
        return _UNKNOWN
    if count < 1000:
        return str(count)
    power = next((p for p in range(1, len(_UNITS)) if count < 999.5 * 1000**p), len(_UNITS))
    value = count / 1000**power
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {_UNITS[power - 1]}"
