"""What came of checking networks: outcomes as values, as JSON, and where an error was raised."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from padrewrite.fuzzing.networks import NetSpec

SCHEMA = "padrewrite.fuzz/1"
RECORDING = "recording"
"""The check whose failure means that nothing else could be looked at."""


@dataclass(frozen=True)
class Outcome:
    """One check of one network."""

    check: str
    status: Literal["held", "failed", "skipped"]
    note: str = ""
    """What was compared; why it was skipped; or what is wrong."""
    where: str = ""
    """Of an error: the innermost line of padrewrite that it came through."""
    trace: str = ""
    """Of an error: the traceback. Not part of the JSON, which holds no paths."""

    @classmethod
    def of_error(cls, check: str, error: BaseException) -> Outcome:
        text = str(error).strip()
        note = f"{type(error).__name__}: {text}" if text else type(error).__name__
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return cls(check, "failed", note, _origin(error), trace)


@dataclass(frozen=True)
class Result:
    """Everything that was checked on one network."""

    spec: NetSpec
    outcomes: tuple[Outcome, ...]
    seed: int | None = None
    refused: str | None = None
    """Why torch itself does not run the network; then nothing was checked."""
    convolutions: int = 0
    """As the dispatcher counted them."""
    how: str = ""
    """How it was recorded."""

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.status == "failed")

    @property
    def ok(self) -> bool:
        """Nothing failed. A network that torch refuses shows nothing about padrewrite."""
        return not self.failures

    @property
    def recorded(self) -> bool:
        return all(o.check != RECORDING for o in self.failures)

    def to_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "spec": repr(self.spec),
            "refused_by_torch": self.refused,
            "convolutions": self.convolutions,
            "recorded": self.how,
            "outcomes": [
                {"check": o.check, "status": o.status, "note": o.note, "where": o.where} for o in self.outcomes
            ],
        }


def results_json(results: Iterable[Result], passes: Sequence[str]) -> dict[str, Any]:
    """The same for the same seeds, in any process and with any number of jobs."""
    found = list(results)
    return {
        "schema": SCHEMA,
        "passes": list(passes),
        "networks": [result.to_dict() for result in found],
        "failed": [result.seed for result in found if not result.ok],
        "refused_by_torch": [result.seed for result in found if result.refused is not None],
    }


_ROOT = Path(__file__).resolve().parents[1]
_HERE = Path(__file__).resolve().parent


def _origin(error: BaseException) -> str:
    """``padrewrite/recording/recorder.py:120 in follow``, for the innermost frame in padrewrite but not in here."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT) and not path.is_relative_to(_HERE):
            return f"{_ROOT.name}/{path.relative_to(_ROOT).as_posix()}:{frame.lineno} in {frame.name}"
    return ""
