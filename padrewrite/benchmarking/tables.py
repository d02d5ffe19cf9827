"""Text of a benchmark report: rich tables of at most 100 columns, and the same rows as Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from padrewrite.benchmarking.intervals import CONFIDENCE

if TYPE_CHECKING:
    from padrewrite.benchmarking.comparing import Timing
    from padrewrite.benchmarking.results import BenchReport, Structure

WIDTH = 100
_TIME_COLUMNS = ("median", "95 % interval", "ratio", "95 % interval", "first", "first\nratio")
_COUNT_COLUMNS = ("graphs", "breaks", "recompiles", "kernels", "compile", "saved", "peak")
_WORD_COLUMNS = ("mode", "phase", "variant")

_NOT_MEASURED = "-"

Rows = Sequence[tuple[str, ...]]


def plain_text(report: BenchReport) -> str:
    """Both tables without any control codes, whatever the terminal."""
    return render(renderables(report))


def render(parts: Iterator[RenderableType]) -> str:
    """Plain text of rich renderables, at most 100 columns wide."""
    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False, color_system=None, highlight=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join(lines).strip("\n")


def renderables(report: BenchReport) -> Iterator[RenderableType]:
    """Heading, times, counts and notes, in reading order."""
    yield Text(heading(report), style="bold")
    for columns, rows in _tables(report):
        yield grid(columns, rows)
    for note in _notes(report):
        yield Text(note, style="dim")


def markdown(report: BenchReport) -> str:
    """Heading, both tables and notes in GitHub's Markdown."""
    tables = [_pipes(columns, rows) for columns, rows in _tables(report)]
    return "\n\n".join([heading(report), *tables, *_notes(report)]) + "\n"


def heading(report: BenchReport) -> str:
    """One sentence on what was run where."""
    sizes = ", ".join("x".join(map(str, size)) or "scalar" for size in report.sizes)
    form = f"{report.dtype}{', channels last' if report.channels_last else ''}"
    return f"{report.machine}, {form}, input {sizes}, {report.rounds} rounds"


def grid(columns: Sequence[str], rows: Rows, *, words: int = len(_WORD_COLUMNS)) -> Table:
    """A rich table: the first ``words`` columns are words, the others numbers."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _pipes(columns: Sequence[str], rows: Rows) -> str:
    head = [column.replace("\n", " ") for column in columns]
    rule = ["---" if index < len(_WORD_COLUMNS) else "---:" for index in range(len(columns))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _tables(report: BenchReport) -> Iterator[tuple[tuple[str, ...], Rows]]:
    """Columns and rows of the times and, where any were taken, of the counts."""
    timed = [(case, timing) for case in report.cases for timing in case.comparison.timings]
    words = [(case.mode, case.phase, timing.name) for case, timing in timed]
    times = [_time_cells(timing, is_baseline=timing is case.comparison.baseline) for case, timing in timed]
    yield (*_WORD_COLUMNS, *_TIME_COLUMNS), [(*word, *cells) for word, cells in zip(words, times)]
    counts = [_count_cells(case.structures[timing.name]) for case, timing in timed]
    rows = [(*word, *cells) for word, cells in zip(words, counts) if set(cells) != {_NOT_MEASURED}]
    if rows:
        yield (*_WORD_COLUMNS, *_COUNT_COLUMNS), rows


def _time_cells(timing: Timing, *, is_baseline: bool) -> tuple[str, ...]:
    median, ratio = timing.median, timing.ratio
    scale, unit = _scale(median.value)
    ratios = (_digits(ratio.value), f"{_digits(ratio.low)} .. {_digits(ratio.high)}")
    return (
        f"{_digits(median.value * scale)} {unit}",
        f"{_digits(median.low * scale)} .. {_digits(median.high * scale)}",
        *(("1", "") if is_baseline else ratios),
        seconds_text(timing.first.value),
        f"{timing.first_ratio.value:.2f}",
    )


def _count_cells(structure: Structure) -> tuple[str, ...]:
    counts = (structure.graphs, structure.graph_breaks, structure.recompiles, structure.kernels)
    return (
        *(_NOT_MEASURED if count is None else str(count) for count in counts),
        _NOT_MEASURED if structure.compile_seconds is None else seconds_text(structure.compile_seconds),
        bytes_text(structure.saved_bytes),
        bytes_text(structure.peak_bytes),
    )


def _notes(report: BenchReport) -> list[str]:
    counts = {case.mode: case.comparison.baseline.pairs for case in report.cases}
    pairs = ", ".join(f"{count} {mode}" for mode, count in counts.items())
    notes = [
        "ratio: median over the rounds of (variant / original in the same round). "
        "first: the first call of a fresh copy, compile time included "
        f"(pairs of copies: {pairs}). "
        "saved: kept for backward. peak: above what was allocated before."
    ]
    coverage = min(t.median.coverage for case in report.cases for t in case.comparison.timings)
    if coverage < CONFIDENCE:
        share = f"{100 * coverage:.0f} %"
        notes.append(f"too few rounds ({report.rounds}): the intervals cover {share} only; 6 rounds give 95 %.")
    return notes


def seconds_text(seconds: float) -> str:
    """Four significant digits with a fitting unit."""
    scale, unit = _scale(seconds)
    return f"{_digits(seconds * scale)} {unit}"


def bytes_text(count: int | None) -> str:
    """Bytes in units of 10^6, or a dash where nothing was measured."""
    return _NOT_MEASURED if count is None else f"{count / 1e6:.2f} MB"


def _scale(seconds: float) -> tuple[float, str]:
    return (1.0, "s") if abs(seconds) >= 1 else (1e3, "ms") if abs(seconds) >= 1e-3 else (1e6, "us")


def _digits(value: float) -> str:
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:.{decimals}f}"
