"""What happened to a rewritten model: every plan that was applied to it, and how the result was verified."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult

from padrewrite import __about__
from padrewrite.checks.verification import Verification
from padrewrite.codec import encode
from padrewrite.plans import Decision, Plan
from padrewrite.reporting.layout import WIDTH
from padrewrite.reporting.text import report_parts, report_text
from padrewrite.selecting import closest

SCHEMA = "padrewrite.report/1"


@dataclass(frozen=True)
class Report:
    """The decisions about every convolution of a model, pass by pass, and the evidence for the contracts."""

    plans: tuple[Plan, ...]
    """In the order in which they were applied; empty for a model that was not rewritten."""
    verification: Verification | None = None
    """None if verification was off."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One per pass and convolution call, passes in the order in which they ran."""
        return tuple(d for plan in self.plans for d in plan.decisions)

    def why_not(self, site: str) -> str:
        """What each pass decided about a site and, where it was not rewritten, the condition that failed."""
        told = [plan.why_not(site) for plan in self.plans if any(d.site == site for d in plan.decisions)]
        if told:
            return "\n".join(told)
        near = ", ".join(closest(site, (d.site for d in self.decisions))) if self.decisions else ""
        return f"{site}: no such convolution. Nearest: {near or 'none'}."

    def to_json(self) -> str:
        """JSON of schema ``padrewrite.report/1``: the same bytes for the same report in any process.

        Lengths are in pixels, axes first to last; an error that is not a finite number is a string.
        """
        content = {
            "schema": SCHEMA,
            "version": __about__.VERSION,
            "plans": [_plan_json(plan) for plan in self.plans],
            "decisions": [{"plan": i, **encode(d)} for i, plan in enumerate(self.plans) for d in plan.decisions],
            "verification": None if self.verification is None else _verification_json(self.verification),
        }
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False)

    def table(self, full: bool = False) -> str:
        """The report as plain text of at most 100 columns; with ``full`` one row per site."""
        return report_text(self, full)

    def __str__(self) -> str:
        return self.table()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from report_parts(self, min(options.max_width, WIDTH))


_OWN = ("decisions", "edits", "tree")
"""Parts of a plan that the report tells elsewhere, or that matter only to replaying it."""


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in encode(plan).items() if name not in _OWN}


def _verification_json(verification: Verification) -> dict[str, Any]:
    evidence = [{**encode(e), "max_abs_error": _number(e.max_abs_error)} for e in verification.evidence]
    return {"ok": verification.ok, "evidence": evidence, "notes": list(verification.notes)}


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
