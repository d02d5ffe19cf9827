"""Checking contracts in float64: every rewritten site on its own, then the whole model against its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from padrewrite.checks.assembled import check_assembled
from padrewrite.checks.end_to_end import check_end_to_end
from padrewrite.checks.grid import check_grid
from padrewrite.checks.sites import check_site
from padrewrite.contracts import Evidence
from padrewrite.edits import Edit
from padrewrite.plans import GridStage
from padrewrite.recording.inputs import Inputs

TOLERANCE = 1e-10
"""Largest error in float64, relative to the largest reference value (or to 1)."""


@dataclass(frozen=True)
class Verification:
    """The evidence for every contract of a rewritten model."""

    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if nothing failed and something was really compared."""
        failed = any(not e.ok for e in self.evidence if not e.vacuous)
        return not failed and (not self.evidence or any(not e.vacuous for e in self.evidence))

    @property
    def failures(self) -> tuple[Evidence, ...]:
        return tuple(e for e in self.evidence if not e.ok and not e.vacuous)

    def __str__(self) -> str:
        from padrewrite.reporting.text import verification_text

        return verification_text(self)


def check_model(
    new: nn.Module,
    original: nn.Module | None,
    edits: Sequence[Edit],
    inputs: Inputs | None,
    level: str,
    trials: int,
    seed: int,
    grids: Sequence[GridStage] = (),
) -> Verification:
    """Evidence for ``edits``. ``quick``: every site once; ``full``: ``trials`` times, and end to end with gradients."""
    generator = torch.Generator().manual_seed(seed)
    evidence: list[Evidence] = []
    rounds = 1 if level == "quick" else trials
    with torch.no_grad():
        by_site = {edit.site.id: edit for edit in edits}
        for edit in edits:
            if edit.assembly is not None:
                evidence += check_assembled(new, edit, by_site, original, rounds, generator, TOLERANCE)
            else:
                evidence += check_site(new, edit, rounds, generator, TOLERANCE)
    notes: tuple[str, ...] = ()
    if level == "full" and edits:
        if inputs is None or original is None:
            lacking = "example_inputs" if inputs is None else "original"
            notes = (f"end to end was not checked: give {lacking}",)
        else:
            more, notes = check_end_to_end(new, original, edits, inputs, TOLERANCE)
            evidence += more
            for stage in grids:
                evidence += check_grid(original, stage, inputs, TOLERANCE)
                notes += tuple(f"the grid ends at {where}" for where in stage.ended)
    return Verification(tuple(evidence), notes)
