"""Deciding: every pass over every site, each rewrite applied to the graph, nothing to the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from padrewrite import __about__
from padrewrite.codec import decode, encode
from padrewrite.contracts import Contract
from padrewrite.errors import NoEffectError, PassError, PlanError
from padrewrite.feasibility import Edit, conflicts, feasible
from padrewrite.graph import Graph, Site
from padrewrite.ops.conv import Conv
from padrewrite.recording.inputs import Inputs
from padrewrite.rewriting import Check, Match, Pass, Status
from padrewrite.selecting import Names, Where, closest, select

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
    tree: str
    """Hash of the module tree it applies to."""
    fingerprint: str
    """Hash of the recorded graph, and of the graph that the rewritten model must have."""
    predicted: str
    passes: tuple[PassSummary, ...]
    decisions: tuple[Decision, ...]
    edits: tuple[Edit, ...]
    macs: tuple[int, int] | None = None
    """Multiply-accumulates of all convolutions for one sample, before and after; None without inputs."""
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
            raise PlanError(
                f"the file's schema is {schema!r}, not {SCHEMA!r}; make the plan again with this version."
            )
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


@dataclass(frozen=True)
class Outcome:
    """One pass over one graph."""

    decisions: tuple[Decision, ...]
    edits: tuple[Edit, ...]
    graph: Graph
    matches: int
    contract: Contract


def make_plan(
    model: nn.Module,
    graph: Graph,
    passes: Sequence[Pass],
    inputs: Inputs | None,
    tree: str,
    include: Names = None,
    exclude: Names = None,
    where: Where = None,
    allow_no_effect: bool = False,
    earlier: Mapping[str, Edit] | None = None,
) -> Plan:
    """Runs the passes in order, each on the graph that the one before predicts.

    ``earlier`` are the edits that the model carries already, by site.
    """
    earlier = earlier or {}
    if graph.nodes is None:
        blind = [p.name for p in passes if p.needs == "dataflow"]
        if blind:
            raise PassError(
                f"{', '.join(blind)} must see how convolutions are connected: give example_inputs."
            )
    current, summaries, decisions = graph, [], []
    edits: dict[str, Edit] = {}
    for one in passes:
        chosen = select(list(current.convs()), include, exclude, where, one.name)
        outcome = run_pass(one, current, chosen, model)
        if not allow_no_effect:
            require_effect(one, outcome.decisions)
        summaries.append(_summary(one, outcome))
        decisions += outcome.decisions
        for edit in outcome.edits:
            edits[edit.site.id] = _merged(model, edits.get(edit.site.id) or earlier.get(edit.site.id), edit, one)
        current = outcome.graph
    return Plan(
        model=type(model).__name__,
        how=graph.how,
        calls=len(graph.rows),
        input=str(inputs) if inputs is not None else "none",
        inputs=inputs.spec() if inputs is not None else None,
        tree=tree,
        fingerprint=graph.fingerprint,
        predicted=current.fingerprint,
        passes=tuple(summaries),
        decisions=tuple(decisions),
        edits=tuple(edits.values()),
        macs=_macs(graph, current),
        notes=graph.notes + _batch_norm_note(model, edits),
        _graph=graph,
        _predicted=current,
        _inputs=inputs,
    )


def _merged(model: nn.Module, first: Edit | None, edit: Edit, one: Pass) -> Edit:
    """The edit that goes from what the site was before its first rewrite to what it is to be now."""
    if first is None:
        return edit
    merged = feasible(model, first.site, edit.after)
    if isinstance(merged, Check):
        raise PassError(f"{one.name}: {edit.site.id} was rewritten before and cannot be again: {merged.reason}.")
    return merged


def run_pass(one: Pass, graph: Graph, chosen: frozenset[str], model: nn.Module | None) -> Outcome:
    """Decides every site of ``graph`` once. With a model, a rewrite must also be writable into it."""
    decisions: dict[str, Decision] = {}
    wanted: dict[str, tuple[Match, Conv, Contract, Edit | None]] = {}
    matches = list(one.match(graph))
    for match in matches:
        failed = _first_failure(one, match, chosen)
        new: dict[str, tuple[Match, Conv, Contract, Edit | None]] = {}
        if failed is None:
            promise = one.promise(match)
            for site, after in zip(match.sites, one.rewrite(match), strict=True):
                edit = feasible(model, site, after) if model is not None else None
                if isinstance(edit, Check):
                    failed = (edit, 0)
                    break
                new[site.id] = (match, after, promise, edit)
        if failed is None:
            wanted |= new
        else:
            for site in match.sites:
                _decide(decisions, _not_rewritten(one, site, *failed))
    _refuse_conflicts(one, graph, wanted, decisions)
    for site_id, (_, after, promise, _) in wanted.items():
        _decide(decisions, _rewritten(one, graph.sites[site_id], after, promise))
    for site in graph.convs():
        if site.id not in decisions:
            check = Check.keep("no-match", False, f"{one.name} has nothing to say about it")
            _decide(decisions, _not_rewritten(one, site, check, 0))
    edits = tuple(edit for *_, edit in wanted.values() if edit is not None)
    new_graph = (
        graph.replace((graph.sites[i], after) for i, (_, after, _, _) in wanted.items()) if wanted else graph
    )
    ordered = tuple(decisions[i] for i in graph.sites)
    contract = Contract.weakest([promise for _, _, promise, _ in wanted.values()])
    return Outcome(ordered, edits, new_graph, len(matches), contract)


def require_effect(one: Pass, decisions: Sequence[Decision]) -> None:
    """Raises NoEffectError if nothing was rewritten and nothing was already in the wanted form."""
    if any(d.status == "rewritten" or d.code.startswith("already") for d in decisions):
        return
    codes: dict[str, int] = {}
    for decision in decisions:
        codes[decision.code] = codes.get(decision.code, 0) + 1
    found = ", ".join(f"{n} {code}" for code, n in sorted(codes.items())) or "the model has no convolution"
    raise NoEffectError(
        f"{one.name} would change nothing: {found}. Nothing was changed. "
        "Pass allow_no_effect=True if that is fine, or see plan(..., allow_no_effect=True) for the reasons."
    )


def _first_failure(one: Pass, match: Match, chosen: frozenset[str]) -> tuple[Check, int] | None:
    selected = [site.id in chosen for site in match.sites]
    if not any(selected):
        return Check.keep("not-selected", False, "include, exclude or where left it out"), 0
    if not all(selected):
        cut = ", ".join(s.id for s, yes in zip(match.sites, selected) if not yes)
        return Check(
            "selector-cuts-match", False, f"it belongs together with {cut}, which was not selected"
        ), 0
    for passed, check in enumerate(one.legality(match)):
        if not check.ok:
            return check, passed
    return None


def _refuse_conflicts(
    one: Pass, graph: Graph, wanted: dict[str, Any], decisions: dict[str, Decision]
) -> None:
    while True:
        edits = [edit for *_, edit in wanted.values() if edit is not None]
        refused = conflicts(graph, edits)
        if not refused:
            return
        for site_id, check in refused.items():
            match = wanted[site_id][0] if site_id in wanted else None
            for site in match.sites if match is not None else ():
                if wanted.pop(site.id, None) is not None:
                    _decide(decisions, _not_rewritten(one, site, check, 0))


def _decide(decisions: dict[str, Decision], decision: Decision) -> None:
    if decision.site in decisions:
        raise PassError(f"{decision.pass_name} decided twice about {decision.site}: its matches overlap.")
    decisions[decision.site] = decision


def _rewritten(one: Pass, site: Site, after: Conv, promise: Contract) -> Decision:
    reason = f"rewritten by {one.spec}"
    return Decision(
        site.id,
        one.name,
        "rewritten",
        "rewritten",
        reason,
        str(promise),
        site.op.spec(),
        after.spec(),
        site.source,
    )


def _not_rewritten(one: Pass, site: Site, check: Check, passed: int) -> Decision:
    spec = site.op.spec()
    return Decision(
        site.id, one.name, check.status, check.code, check.reason, None, spec, spec, site.source, passed
    )


def _summary(one: Pass, outcome: Outcome) -> PassSummary:
    count: dict[Literal["rewritten", "kept", "refused"], int] = {"rewritten": 0, "kept": 0, "refused": 0}
    for decision in outcome.decisions:
        count[decision.status] += 1
    contract = one.contract if count["rewritten"] else "-"
    return PassSummary(one.spec, one.name, outcome.matches, **count, contract=contract)


def _macs(before: Graph, after: Graph) -> tuple[int, int] | None:
    if before.nodes is None:
        return None
    totals: list[int] = []
    for graph in (before, after):
        sites = [s for s in graph.convs() if s.input_shape is not None]
        totals.append(sum(s.op.macs(s.input_shape[-s.op.window.rank :]) for s in sites if s.input_shape))
    return totals[0], totals[1]


def _batch_norm_note(model: nn.Module, edits: Mapping[str, Edit]) -> tuple[str, ...]:
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())  # pyright: ignore[reportPrivateUsage]
    if not (norms and edits):
        return ()
    return (
        f"{norms} batch norms keep statistics computed under the old padding: re-estimate them or fine-tune "
        "(docs/batch-norm.md)",
    )


def _explained(decision: Decision) -> str:
    where = f" ({decision.source})" if decision.source else ""
    line = f"{decision.site}{where}: {decision.status} by {decision.pass_name} [{decision.code}] {decision.reason}"
    if decision.status == "rewritten" or decision.code in ("no-match", "not-selected"):
        return line
    held = "no earlier condition" if not decision.passed else f"{decision.passed} earlier condition(s)"
    return f"{line}\n  nearest miss: {held} held, then {decision.code}"
