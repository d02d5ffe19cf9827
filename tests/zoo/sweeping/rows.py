"""What the sweep keeps of one network: plain values with a JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

COUNT, RECORD, EAGER, ANALYZE, PRINT = "count", "record", "equal to eager", "analyze", "print analysis"
"""Steps that the pages speak of by name."""


@dataclass(frozen=True)
class Failure:
    """A step that did not go through. ``error`` is the class of the exception, or what happened instead of one."""

    step: str
    error: str
    message: str


@dataclass(frozen=True)
class Refusal:
    """A convolution that a pass would have rewritten and could not."""

    site: str
    code: str
    reason: str


@dataclass(frozen=True)
class PassRow:
    """One pass on one network, counted in convolution calls."""

    name: str
    rewritten: int = 0
    kept: int = 0
    refused: int = 0
    others: int = 0
    """Calls that are no convolution, pools for one, and were rewritten with them."""
    kept_codes: Mapping[str, int] | None = None
    refusals: tuple[Refusal, ...] = ()
    level: str = ""
    """full if the whole network was compared too, quick if each site was; empty if it did not come to that."""
    worst: float | None = None
    """Largest absolute error among the checks that compared something."""
    vacuous: int = 0
    """Checks that compared nothing."""
    notes: tuple[str, ...] = ()
    """Of the verification: what could not be checked."""
    done: bool = False
    """Planned, applied, verified and reverted without a failure."""


@dataclass(frozen=True)
class Finding:
    """One finding of the analysis."""

    code: str
    site: str
    message: str
    severity: str
    sites: tuple[str, ...] = ()
    """Every site that it is about; ``site`` alone if empty."""


@dataclass(frozen=True)
class Analysed:
    """What the analysis said about one network."""

    sites: int
    chains: int
    findings: tuple[Finding, ...]
    ended: Mapping[str, int] | None = None
    """Why spatial reasoning ended, with how many convolutions lie behind it."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One network: what was built, found, rewritten, verified, and what failed."""

    name: str
    package: str
    input: str = ""
    convolutions: int | None = None
    """Calls counted at the dispatcher."""
    how: str = ""
    """How it was recorded: symbolic, real inputs."""
    notes: tuple[str, ...] = ()
    """Of the recording."""
    difference: float | None = None
    """Between the recorded graph and eager, relative to the largest output; at other values too if symbolic."""
    analysis: Analysed | None = None
    passes: tuple[PassRow, ...] = ()
    failures: tuple[Failure, ...] = ()
    seconds: Mapping[str, float] | None = None
    """Of each step; never in the pages."""

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Reads ``to_json`` back.

        Raises:
            TypeError, KeyError: the data are not of a row.
        """
        values: dict[str, Any] = dict(data)
        values["notes"] = tuple(data["notes"])
        values["analysis"] = None if data["analysis"] is None else _analysed(data["analysis"])
        values["passes"] = tuple(_pass_row(p) for p in data["passes"])
        values["failures"] = tuple(Failure(**f) for f in data["failures"])
        return cls(**values)


def _analysed(data: Mapping[str, Any]) -> Analysed:
    values: dict[str, Any] = dict(data)
    values["findings"] = tuple(_finding(f) for f in data["findings"])
    values["notes"] = tuple(data["notes"])
    return Analysed(**values)


def _finding(data: Mapping[str, Any]) -> Finding:
    values: dict[str, Any] = dict(data)
    values["sites"] = tuple(data["sites"])
    return Finding(**values)


def _pass_row(data: Mapping[str, Any]) -> PassRow:
    values: dict[str, Any] = dict(data)
    values["refusals"] = tuple(Refusal(**r) for r in data["refusals"])
    values["notes"] = tuple(data["notes"])
    return PassRow(**values)
