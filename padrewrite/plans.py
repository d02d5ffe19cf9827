"""The plan: resolved decisions and numbers, as an object, as JSON and as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from padrewrite import __about__
from padrewrite.analyses.costs import Cost, SiteCost, cost_text, costs_in, site_cost
from padrewrite.codec import decode, encode
from padrewrite.contracts import Contract
from padrewrite.edits import Edit
from padrewrite.errors import PlanError
from padrewrite.graph import Graph, PoolSite, Site
from padrewrite.ops.carrying import Carried
from padrewrite.recording.inputs import Inputs
from padrewrite.replacing import told
from padrewrite.rewriting import Status
from padrewrite.selecting import closest

SCHEMA = "padrewrite.plan/1"


@dataclass(frozen=True)
class Decision:
    """What one pass does with one convolution call, and why."""

    site: str
    pass_name: str
    status: Status
    code: str
    reason: str
    contract: str | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    source: str | None = None
    """file:line of the call in the user's code."""
    passed: int = 0
    """How many conditions held before the one that failed."""
    cost_before: SiteCost | None = None
    cost_after: SiteCost | None = None
    """Of all that the call becomes. A call that is kept costs something else where what it reads has another size."""
    weight_error: float | None = None
    """What carrying the weight over loses, relative to it; None where nothing was carried over."""


@dataclass(frozen=True)
class PassSummary:
    """One pass of a plan, in numbers."""

    spec: str
    name: str
    matches: int
    rewritten: int
    kept: int
    refused: int
    contract: str
    before: Cost | None = None
    after: Cost | None = None


@dataclass(frozen=True)
class GridStage:
    """A rewrite of the kind ``grid``, by itself: the edits before it, those with it, and what it promises."""

    before: tuple[Edit, ...]
    after: tuple[Edit, ...]
    factors: Mapping[str, Any]
    """Per convolution site the step, one per axis, at which the old values stand in the new output."""
    ended: tuple[str, ...] = ()
    """Calls behind which the promise does not reach, and why."""


@dataclass(frozen=True)
class Plan:
    """Resolved decisions and numbers: no predicates, no weights. Replays on a model of the same fingerprint."""

    model: str
    """Class name of the model it was made for."""
    how: str
    """How the model was recorded: symbolic, real inputs, module tree, dynamo."""
    calls: int
    """Torch calls recorded."""
    input: str
    inputs: Mapping[str, Any] | None
    """Shapes and types of the example inputs, if they have a JSON form."""
    mode: str
    """Mode the model was in: train, eval or mixed."""
    tree: str
    """Hash of the module tree it applies to."""
    fingerprint: str
    """Hash of the recorded graph, and of the graph that the rewritten model must have."""
    predicted: str
    passes: tuple[PassSummary, ...]
    decisions: tuple[Decision, ...]
    edits: tuple[Edit, ...]
    grids: tuple[GridStage, ...] = ()
    notes: tuple[str, ...] = ()
    version: str = __about__.VERSION
    _graph: Graph | None = field(default=None, compare=False, repr=False)
    _predicted: Graph | None = field(default=None, compare=False, repr=False)
    _inputs: Inputs | None = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_graph": None, "_predicted": None, "_inputs": None}

    @property
    def graph(self) -> Graph | None:
        """The recorded graph; None in a plan read from a file."""
        return self._graph

    @property
    def predicted_graph(self) -> Graph | None:
        """The graph that the rewritten model must have; None in a plan read from a file."""
        return self._predicted

    @property
    def example_inputs(self) -> Inputs | None:
        """The example inputs, or zeros of their shapes in a plan read from a file."""
        if self._inputs is not None or self.inputs is None:
            return self._inputs
        return Inputs.from_spec(dict(self.inputs))

    @property
    def macs(self) -> tuple[int, int] | None:
        """Multiply-accumulates of all convolutions for one sample, before and after; None without inputs."""
        ends = (self.passes[0].before, self.passes[-1].after) if self.passes else (None, None)
        found = [cost.macs for cost in ends if cost is not None and cost.macs is not None]
        return (found[0], found[1]) if len(found) == 2 else None

    def why_not(self, site: str) -> str:
        """What each pass decided about a site and, where it was not rewritten, the condition that failed."""
        found = [d for d in self.decisions if d.site == site]
        if not found:
            near = ", ".join(closest(site, (d.site for d in self.decisions)))
            return f"{site}: no such convolution. Nearest: {near or 'none'}."
        return "\n".join(_explained(d) for d in found)

    def to_json(self) -> str:
        """The plan as JSON text, the same bytes for the same plan in any process."""
        return json.dumps({"schema": SCHEMA, **encode(self)}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads ``to_json`` back.

        Raises:
            PlanError: the text is cut short, of another schema, or not a plan.
        """
        if not isinstance(text, (str, bytes)):
            raise PlanError(f"a plan is read from JSON text, not from a {type(text).__name__}.")
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PlanError(f"the plan is not complete JSON ({error}); was the file cut short?") from error
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise PlanError(f"the file's schema is {schema!r}, not {SCHEMA!r}; make the plan again with this version.")
        try:
            plan = decode(cls, data)
            Inputs.check_spec(plan.inputs)
            return plan
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"the plan is damaged: {error}.") from error

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Reads a saved plan; a missing or damaged file is a PlanError that names it."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path} cannot be read: {error}.") from error
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error

    def __str__(self) -> str:
        from padrewrite.reporting.text import plan_text

        return plan_text(self)


def priced(decisions: Iterable[Decision], before: Graph, after: Graph) -> tuple[Decision, ...]:
    """The decisions of a pass with the cost of each call before and after it."""
    places: dict[str, Site | PoolSite] = {**before.pools, **before.sites}
    found: list[Decision] = []
    for decision in decisions:
        site = places[decision.site]
        inside = decision.status == "rewritten" and ("branches" in decision.after or "attached" in decision.after)
        costs = {"cost_before": site_cost(site), "cost_after": costs_in(after, site, inside)}
        found.append(replace(decision, **costs))
    return tuple(found)


def restated(plan: Plan, carried: Mapping[str, Carried]) -> Plan:
    """The plan with the bounds that were measured when it was written, of the weights that were found there."""
    promised = {edit.site.id: edit.bound is not None for edit in plan.edits if _carries(edit)}
    edits = tuple(
        replace(e, bound=found.bound if (found := carried.get(e.site.id)) else None) if promised.get(e.site.id) else e
        for e in plan.edits
    )
    decisions = tuple(
        _restated(d, carried.get(d.site), promised[d.site]) if d.site in promised and "branches" in d.after else d
        for d in plan.decisions
    )
    return replace(plan, edits=edits, decisions=decisions)


def _carries(edit: Edit) -> bool:
    return edit.assembly is not None and edit.assembly.carry is not None


def _restated(decision: Decision, found: Carried | None, promised: bool) -> Decision:
    if found is None:
        contract = "bounded" if promised else decision.contract
        return replace(decision, contract=contract, reason="weights on meta: nothing was measured", weight_error=None)
    contract = str(Contract.bounded(found.bound)) if promised else decision.contract
    return replace(decision, contract=contract, reason=told(found, promised), weight_error=found.error)


def _explained(decision: Decision) -> str:
    where = f" ({decision.source})" if decision.source else ""
    line = f"{decision.site}{where}: {decision.status} by {decision.pass_name} [{decision.code}] {decision.reason}"
    costs = [cost for cost in (decision.cost_before, decision.cost_after) if cost is not None]
    if len(set(costs)) > 1:
        line += f"\n  cost: {cost_text(*costs)}"
    if decision.status == "rewritten" or decision.code in ("no-match", "not-selected"):
        return line
    if not decision.passed:
        return f"{line}\n  nearest miss: {decision.code} was the first condition"
    return f"{line}\n  nearest miss: {decision.passed} earlier condition(s) held, then {decision.code} failed"
