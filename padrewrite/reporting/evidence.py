"""Evidence as text. A check that compared nothing is VACUOUS: it is shown, and never counted as held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from padrewrite.contracts import Evidence
from padrewrite.reporting.layout import Cell, clean, grid, listing

if TYPE_CHECKING:
    from padrewrite.checks.verification import Verification

END_TO_END = "end to end"
MEANINGS = {
    "reference": "the new operation against its own naive form, written apart from it",
    "exact": "new against old, everywhere",
    "grid": "new against old, on the old grid",
    "interior": "new against old, where no window touches padding",
    "bounded": "new against old, within the promised relative error",
    "shape": "shapes and names only: the numbers are meant to change",
}
"""What each kind of check compares."""

_NAMED = 3
_COLUMNS = ("contract", "where", "checks", "held", "VACUOUS", "FAILED", "values compared", "worst error")


@dataclass(frozen=True)
class Tally:
    """The checks of one kind of contract, of single sites or end to end."""

    kind: str
    where: str
    evidence: tuple[Evidence, ...]

    @property
    def held(self) -> list[Evidence]:
        return [e for e in self.evidence if e.ok and not e.vacuous]

    @property
    def vacuous(self) -> list[Evidence]:
        return [e for e in self.evidence if e.vacuous]

    @property
    def failed(self) -> list[Evidence]:
        return [e for e in self.evidence if not e.ok and not e.vacuous]

    @property
    def values(self) -> int:
        return sum(e.positions for e in self.evidence)


def tally(evidence: Sequence[Evidence]) -> list[Tally]:
    """The evidence by kind of contract and place, in the order in which they first occur."""
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for one in evidence:
        where = END_TO_END if one.site == END_TO_END else "sites"
        groups.setdefault((one.contract.partition("(")[0], where), []).append(one)
    return [Tally(kind, where, tuple(members)) for (kind, where), members in groups.items()]


def worst_error(evidence: Sequence[Evidence]) -> str:
    """The largest error that was measured; NaN counts as the largest."""
    errors = [e.max_abs_error for e in evidence if not e.vacuous]
    if not errors:
        return "-"
    return error_text(math.nan if any(map(math.isnan, errors)) else max(errors))


def error_text(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def verdict(verification: Verification) -> str:
    """One line: what was checked, and whether it held."""
    evidence = verification.evidence
    checked = [e for e in evidence if not e.vacuous]
    failed = [e for e in checked if not e.ok]
    if not checked:
        return f"nothing was tested: {_checks(len(evidence))}" + (", all VACUOUS" if evidence else "")
    if failed:
        return f"FAILED: {len(failed)} of {_checks(len(checked))}"
    bounded = [e.max_abs_error for e in checked if e.contract.startswith("bounded")]
    others = [e for e in checked if not e.contract.startswith("bounded")]
    stated = f", of bounded ones {max(bounded):.2g}" if bounded else ""
    return f"{_checks(len(checked))} held, float64, worst error {worst_error(others)}{stated}"


def summary_lines(verification: Verification) -> list[Text]:
    """The verdict, failures, what is vacuous, notes: the few lines that a report has room for."""
    lines = [Text(verdict(verification), style="green" if verification.ok else "bold red")]
    for one in tally(verification.evidence):
        lines += [Text(_failure(e), style="red") for e in one.failed]
    for one in tally(verification.evidence):
        lines += [Text(line, style="yellow") for line in _vacuous(one)]
    return lines + [Text(note) for note in verification.notes]


def verification_parts(verification: Verification, width: int) -> Iterator[RenderableType]:
    """The verdict, a table with a row per kind of contract, failures, what is vacuous, notes."""
    yield Text(verdict(verification), style="bold green" if verification.ok else "bold red", overflow="fold")
    tallies = tally(verification.evidence)
    if tallies:
        rows = [tuple(Text(c, style="bold") for c in _COLUMNS), *map(_row, tallies)]
        yield grid(rows, width, least=(8, 0, 0, 0, 0, 0, 0, 0), right=range(2, 8))
        kinds = [k for k in dict.fromkeys(t.kind for t in tallies) if k in MEANINGS]
        legend = [(Text(kind, style="dim"), Text(MEANINGS[kind], style="dim")) for kind in kinds]
        yield grid(legend, width, least=(0, 30), fold=(1,))
    rest = summary_lines(verification)[1:]
    if rest:
        yield grid([(line,) for line in rest], width, least=(20,), fold=(0,))


def _row(one: Tally) -> tuple[Cell, ...]:
    vacuous, failed = len(one.vacuous), len(one.failed)
    return (
        one.kind,
        one.where,
        str(len(one.evidence)),
        Text(str(len(one.held)), style="green" if one.held else ""),
        Text(str(vacuous), style="yellow" if vacuous else "dim"),
        Text(str(failed), style="bold red" if failed else "dim"),
        f"{one.values:,}",
        worst_error(one.evidence),
    )


def _failure(one: Evidence) -> str:
    note = f"; {clean(one.note)}" if one.note else ""
    return f"FAILED {clean(one.site)} {_claim(one)}: error {error_text(one.max_abs_error)}{note}"


def _claim(one: Evidence) -> str:
    return "differs from its reference" if one.contract == "reference" else f"promised {clean(one.contract)}"


def _vacuous(one: Tally) -> Iterator[str]:
    """One line per reason."""
    reasons: dict[str, list[str]] = {}
    for e in one.vacuous:
        reasons.setdefault(clean(e.note), []).append(e.site)
    for reason, sites in reasons.items():
        where = END_TO_END if one.where == END_TO_END else f"{len(sites)} of {_sites(len(one.evidence))}"
        names = "" if one.where == END_TO_END else f" [{listing(sites, _NAMED)}]"
        yield f"VACUOUS {one.kind}, {where}: {reason or 'nothing was compared'}{names}"


def _checks(count: int) -> str:
    return f"{count} check" + ("" if count == 1 else "s")


def _sites(count: int) -> str:
    return f"{count} site" + ("" if count == 1 else "s")
