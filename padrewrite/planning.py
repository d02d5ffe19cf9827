"""Deciding: every pass over every site, each rewrite applied to the graph, nothing to the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from padrewrite.analyses.costs import Cost, cost_of
from padrewrite.contracts import Contract
from padrewrite.edits import REDIRECT, Edit
from padrewrite.errors import NoEffectError, PassError, WriteError
from padrewrite.feasibility import conflicts, feasible
from padrewrite.graph import Graph, Handle, PoolSite, Rewritten, Site
from padrewrite.ops.assembly import Assembly
from padrewrite.plans import Decision, GridStage, PassSummary, Plan, priced
from padrewrite.recording.inputs import Inputs
from padrewrite.recording.trace import mode_of
from padrewrite.replacing import Modules, Planned, told
from padrewrite.rewriting import Check, Match, Pass
from padrewrite.selecting import Names, Where, select


@dataclass(frozen=True)
class Outcome:
    """One pass over one graph."""

    decisions: tuple[Decision, ...]
    edits: tuple[Edit, ...]
    graph: Graph
    matches: int
    contract: Contract
    grid: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ended: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
    record_again: Callable[[Sequence[Edit], Graph], Graph] | None = None,
) -> Plan:
    """Runs the passes in order, each on the graph that the one before predicts.

    ``earlier`` are the edits that the model carries already, by site. ``record_again`` records the model with some
    edits, for passes that change sizes: what the forward computes from sizes is not predicted, it is run again.
    """
    earlier = earlier or {}
    if graph.nodes is None:
        blind = [p.name for p in passes if p.needs == "dataflow"]
        if blind:
            raise PassError(f"{', '.join(blind)} must see how convolutions are connected: give example_inputs.")
    current, summaries, decisions = graph, [], []
    edits: dict[str, Edit] = {}
    grids: list[GridStage] = []
    notes: list[str] = []
    modules = Planned(model)
    for one in passes:
        chosen = select(list(current.convs()), include, exclude, where, one.name)
        outcome = run_pass(one, current, chosen, modules, {**earlier, **edits})
        cost, before = cost_of(current), dict(edits)
        edits |= {edit.site.id: edit for edit in outcome.edits}
        if any(edit.assembly is not None for edit in outcome.edits):
            edits |= _recounted({**earlier, **edits}, outcome.graph)
            modules.add(outcome.edits)
        unseen = any(edit.resizes or edit.assembly is not None for edit in outcome.edits)
        if record_again is not None and graph.nodes is not None and unseen:
            try:
                outcome = replace(outcome, graph=record_again(tuple(edits.values()), outcome.graph))
            except WriteError as error:
                outcome, edits = _taken_back(outcome, current, str(error)), before
        decided, current = priced(outcome.decisions, current, outcome.graph), outcome.graph
        if not allow_no_effect:
            require_effect(one, outcome.decisions)
        decisions += decided
        if outcome.grid:
            grids.append(GridStage(tuple(before.values()), tuple(edits.values()), dict(outcome.grid), outcome.ended))
        summaries.append(_summary(one, outcome, cost, cost_of(current) if outcome.edits else cost))
        notes += outcome.notes
    return Plan(
        model=type(model).__name__,
        how=graph.how,
        calls=len(graph.rows),
        input=str(inputs) if inputs is not None else "none",
        inputs=inputs.spec() if inputs is not None else None,
        mode=mode_of(model),
        tree=tree,
        fingerprint=graph.fingerprint,
        predicted=current.fingerprint,
        passes=tuple(summaries),
        decisions=tuple(decisions),
        edits=tuple(edits.values()),
        grids=tuple(grids),
        notes=graph.notes + tuple(notes) + _fresh_note(edits) + _batch_norm_note(model, edits, summaries),
        _graph=graph,
        _predicted=current,
        _inputs=inputs,
    )


def _taken_back(outcome: Outcome, graph: Graph, why: str) -> Outcome:
    """What a pass decided, with every rewrite refused: together they do not run."""
    reason = why.removesuffix(" Nothing was changed.").removesuffix(".")
    decisions = tuple(
        replace(d, status="refused", code=_BREAKS.code, reason=reason, contract=None, after=d.before)
        if d.status == "rewritten"
        else d
        for d in outcome.decisions
    )
    return Outcome(decisions, (), graph, outcome.matches, Contract("exact"))


_BREAKS = Check("breaks-forward", False, "with other sizes the model's forward fails, or takes another path")


def _recounted(edits: Mapping[str, Edit], graph: Graph) -> dict[str, Edit]:
    """Edits that tell calls by their number, where layers that make more calls changed the numbers."""
    places: dict[str, Site | PoolSite] = {**graph.pools, **graph.sites}
    moved: dict[str, Edit] = {}
    for site_id, edit in edits.items():
        if edit.way == REDIRECT and site_id in places and places[site_id].handle != edit.site.handle:
            site = replace(edit.site, handle=_renumbered(edit.site.handle, places[site_id].handle))
            moved[site_id] = replace(edit, site=site)
    return moved


def _renumbered(handle: Handle, new: Handle) -> Handle:
    return replace(handle, call=new.call, totals=new.totals)


def run_pass(
    one: Pass,
    graph: Graph,
    chosen: frozenset[str],
    modules: Modules | None,
    firsts: Mapping[str, Edit] | None = None,
) -> Outcome:
    """Decides every site of ``graph`` once. With modules, a rewrite must also be writable into them.

    ``firsts`` are the edits of sites that were rewritten before; the new ones start from what those started from.
    """
    firsts = firsts or {}
    decisions: dict[str, Decision] = {}
    wanted: dict[str, _Wanted] = {}
    matches = list(one.match(graph))
    for match in matches:
        failed = _first_failure(one, match, chosen)
        new: dict[str, _Wanted] = {}
        same: list[Site | PoolSite] = []
        if failed is None:
            for site, after in zip((*match.sites, *match.pools), one.rewrite(match), strict=True):
                if after == site.op:
                    same.append(site)
                    continue
                edit = feasible(modules, site, after, firsts.get(site.id)) if modules is not None else None
                if isinstance(edit, Check):
                    failed = (edit, _conditions(one, match))
                    break
                promise = one.promise_at(match, site)
                if edit is not None and isinstance(after, Assembly):
                    after = edit.after
                    promise = promise if edit.bound is None else Contract.bounded(edit.bound)
                new[site.id] = (match, after, promise, edit)
        if failed is None:
            wanted |= new
            for site in same:
                _decide(decisions, _not_rewritten(one, site, _UNCHANGED, 0))
        else:
            for site in (*match.sites, *match.pools):
                _decide(decisions, _not_rewritten(one, site, *failed))
    _refuse_conflicts(one, graph, wanted, decisions)
    places: dict[str, Site | PoolSite] = {**graph.pools, **graph.sites}
    for site_id, (match, after, promise, edit) in wanted.items():
        site = places[site_id]
        carried = edit.carried if edit is not None else None
        reason = told(carried, edit.bound is not None) if edit and carried else one.reason_at(match, site)
        decision = _rewritten(one, site, after, promise, reason)
        _decide(decisions, replace(decision, weight_error=carried.error) if carried else decision)
    for site in graph.convs():
        if site.id not in decisions:
            check = Check.keep("no-match", False, f"{one.name} has nothing to say about it")
            _decide(decisions, _not_rewritten(one, site, check, 0))
    edits = tuple(edit for *_, edit in wanted.values() if edit is not None)
    new_graph = graph.replace((places[i], after) for i, (_, after, _, _) in wanted.items()) if wanted else graph
    ordered = tuple(decisions[i] for i in (*graph.sites, *graph.pools) if i in decisions)
    contract = Contract.weakest([promise for _, _, promise, _ in wanted.values()])
    done = {id(match): match for match, *_ in wanted.values()}.values()
    grid = {site: factors for match in done for site, factors in match.grid.items()}
    ended = tuple(dict.fromkeys(where for match in done for where in match.ended))
    told_of = Counter(text for match in done for text in (one.note(match),) if text)
    notes = tuple(f"{one.name}: {text}{f' ({n} times)' if n > 1 else ''}" for text, n in told_of.items())
    return Outcome(ordered, edits, new_graph, len(matches), contract, grid, ended, notes)


_UNCHANGED = Check.keep("unchanged", False, "what it is rewritten together with changes; it stays as it is")
_Wanted = tuple[Match, Rewritten, Contract, Edit | None]


def require_effect(one: Pass, decisions: Sequence[Decision]) -> None:
    """Raises NoEffectError if nothing was rewritten and nothing was already in the wanted form."""
    if any(d.status == "rewritten" or d.code.startswith("already") for d in decisions):
        return
    codes: dict[str, list[Decision]] = {}
    for decision in decisions:
        codes.setdefault(decision.code, []).append(decision)
    told = [
        f"{len(group)} {code}" + (f" ({group[0].reason})" if group[0].status == "refused" else "")
        for code, group in sorted(codes.items())
    ]
    found = ", ".join(told) or "the model has no convolution"
    raise NoEffectError(
        f"{one.name} would change nothing: {found}. Nothing was changed. "
        "Pass allow_no_effect=True if that is fine, or see plan(..., allow_no_effect=True) for the reasons."
    )


def _first_failure(one: Pass, match: Match, chosen: frozenset[str]) -> tuple[Check, int] | None:
    selected = [site.id in chosen for site in match.sites]
    if selected and not any(selected):
        return Check.keep("not-selected", False, "include, exclude or where left it out"), 0
    if not all(selected):
        cut = ", ".join(s.id for s, yes in zip(match.sites, selected) if not yes)
        return Check("selector-cuts-match", False, f"it belongs together with {cut}, which was not selected"), 0
    for passed, check in enumerate(one.legality(match)):
        if not check.ok:
            return check, passed
    return None


def _conditions(one: Pass, match: Match) -> int:
    """How many conditions of its own a pass has for a match, all of which held before the engine's were asked."""
    return sum(1 for _ in one.legality(match))


def _refuse_conflicts(one: Pass, graph: Graph, wanted: dict[str, Any], decisions: dict[str, Decision]) -> None:
    while True:
        edits = [edit for *_, edit in wanted.values() if edit is not None]
        refused = conflicts(graph, edits)
        if not refused:
            return
        for site_id, check in refused.items():
            if site_id not in wanted:
                continue
            match: Match = wanted[site_id][0]
            for site in (*match.sites, *match.pools):
                if wanted.pop(site.id, None) is not None:
                    _decide(decisions, _not_rewritten(one, site, check, _conditions(one, match)))


def _decide(decisions: dict[str, Decision], decision: Decision) -> None:
    if decision.site in decisions:
        raise PassError(f"{decision.pass_name} decided twice about {decision.site}: its matches overlap.")
    decisions[decision.site] = decision


def _rewritten(
    one: Pass, site: Site | PoolSite, after: Rewritten, promise: Contract, reason: str
) -> Decision:
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


def _not_rewritten(one: Pass, site: Site | PoolSite, check: Check, passed: int) -> Decision:
    spec = site.op.spec()
    return Decision(site.id, one.name, check.status, check.code, check.reason, None, spec, spec, site.source, passed)


def _summary(one: Pass, outcome: Outcome, before: Cost, after: Cost) -> PassSummary:
    count: dict[Literal["rewritten", "kept", "refused"], int] = {"rewritten": 0, "kept": 0, "refused": 0}
    for decision in outcome.decisions:
        count[decision.status] += 1
    contract = outcome.contract.kind if count["rewritten"] else "-"
    return PassSummary(one.spec, one.name, outcome.matches, **count, contract=contract, before=before, after=after)


def _fresh_note(edits: Mapping[str, Edit]) -> tuple[str, ...]:
    fresh = len({edit.owner for edit in edits.values() if edit.fresh})
    what = "layer begins anew, with random weights" if fresh == 1 else "layers begin anew, with random weights"
    return (f"{fresh} {what}: train the network",) if fresh else ()


def _batch_norm_note(
    model: nn.Module, edits: Mapping[str, Edit], summaries: Sequence[PassSummary]
) -> tuple[str, ...]:
    if not any(summary.contract in ("interior", "shape", "bounded") for summary in summaries):
        return ()  # on a grid the old activations are all still there
    gone = {fqn for edit in edits.values() if edit.assembly is not None for fqn in edit.assembly.drops}
    kept = (m for fqn, m in model.named_modules() if fqn not in gone)
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in kept)  # pyright: ignore[reportPrivateUsage]
    if not (norms and edits):
        return ()
    what = "1 batch norm keeps" if norms == 1 else f"{norms} batch norms keep"
    return (
        f"{what} statistics computed before the rewrite: re-estimate them or fine-tune (docs/batch-norm.md)",
    )
