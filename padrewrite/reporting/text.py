"""Plans and reports as text: every block fits 100 columns, plain or as rich renderables.

What would repeat itself is grouped: what was kept by its reason, long lists of rewrites by the change.
``full`` lists every site.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import RenderableType
from rich.text import Text

from padrewrite.reporting.evidence import summary_lines, verification_parts
from padrewrite.reporting.layout import GAP, WIDTH, Cell, clean, grid, listing, natural_widths, plain_text
from padrewrite.reporting.ops import change_text

if TYPE_CHECKING:
    from padrewrite.analyses.costs import Cost
    from padrewrite.checks.verification import Verification
    from padrewrite.plans import Decision, Plan
    from padrewrite.reporting.reports import Report

LISTED = 30
"""Rewritten or refused sites of one pass that are listed one by one; more are grouped."""

NAMED = 3
"""Sites of a group that are named."""

_STYLES = {"rewritten": "green", "kept": "dim", "refused": "yellow"}
_LABEL = 9

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def plan_text(plan: Plan, full: bool = False) -> str:
    """A plan as plain text of at most 100 columns."""
    return plain_text(plan_parts(plan, full=full))


def report_text(report: Report, full: bool = False) -> str:
    """A report as plain text of at most 100 columns."""
    return plain_text(report_parts(report, full=full))


def verification_text(verification: Verification) -> str:
    """The evidence as plain text of at most 100 columns: a table by contract, failures, what is vacuous."""
    return plain_text(verification_parts(verification, WIDTH))


def report_parts(report: Report, width: int = WIDTH, full: bool = False) -> Iterator[RenderableType]:
    """Each plan in the order applied, then how the rewrite was verified."""
    for plan in report.plans:
        yield from plan_parts(plan, width, full, notes=False)
    if not report.plans:
        yield Text("padrewrite: this model was not rewritten")
    yield grid(_verified(report), width, least=(0, 20), fold=(1,))
    notes = list(dict.fromkeys(note for plan in report.plans for note in _notes(plan)))
    if notes:
        yield grid([("note".ljust(_LABEL), note) for note in notes], width, least=(0, 20), fold=(1,))


def _verified(report: Report) -> list[tuple[Cell, ...]]:
    label = "verify".ljust(_LABEL)
    if not report.plans:
        return [(label, "nothing to verify")]
    if report.verification is None:
        return [(label, "not verified; run padrewrite.verify")]
    return [(label if i == 0 else "", line) for i, line in enumerate(summary_lines(report.verification))]


def plan_parts(plan: Plan, width: int = WIDTH, full: bool = False, notes: bool = True) -> Iterator[RenderableType]:
    """Header, one row per pass, the decisions of each pass, notes."""
    yield from heading(plan, width)
    for index, summary in enumerate(plan.passes):
        decisions = _of_pass(plan, index)
        yield Text("-" * width, style="dim")
        if len(plan.passes) > 1 or summary.spec != summary.name:
            yield Text(clean(summary.spec), style="bold", overflow="fold")
        yield from (_every_site(decisions, width) if full else _grouped(decisions, width))
    if notes and (told := _notes(plan)):
        yield grid([("note".ljust(_LABEL), note) for note in told], width, least=(0, 20), fold=(1,))


def _notes(plan: Plan) -> list[str]:
    """The plan's notes, and for each pass what weights lost that no contract bounds."""
    lost: list[str] = []
    for index, summary in enumerate(plan.passes):
        decisions = _of_pass(plan, index)
        errors = [d.weight_error for d in decisions if d.weight_error is not None and d.contract == "shape"]
        if errors:
            of = f"relative error of {len(errors)} weight{'s' * (len(errors) > 1)}"
            worst = f"worst {max(errors):.2g}, median {median(errors):.2g}"
            lost.append(f"{clean(summary.name)}: {of}, {worst}: fine-tune")
    return [*lost, *plan.notes]


def heading(plan: Plan, width: int = WIDTH) -> Iterator[RenderableType]:
    """What was read, and one row per pass."""
    yield Text(_header(plan), style="bold", overflow="fold")
    yield _summaries(plan, width)


def _header(plan: Plan) -> str:
    words = (f"padrewrite {plan.version}", plan.model, f"recorded: {recorded(plan)}", f"input {plan.input}")
    return "  ".join(map(clean, words))


class Recorded(Protocol):
    """What is made from a recording and remembers how that went."""

    @property
    def how(self) -> str: ...
    @property
    def calls(self) -> int | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


def recorded(plan: Recorded) -> str:
    """How the model was recorded, and whether the recording was checked."""
    if plan.how == "module tree":
        return "module tree only"
    if plan.how == "dynamo":
        return f"dynamo, {plan.calls} calls"
    checked = not any(note.startswith("not executed") for note in plan.notes)
    return f"{plan.how}, {plan.calls} calls, {'equal to eager' if checked else 'not executed'}"


def _of_pass(plan: Plan, index: int) -> list[Decision]:
    """The decisions of one pass; a pass that is given twice has two equal stretches."""
    counts = [s.rewritten + s.kept + s.refused for s in plan.passes]
    start = sum(counts[:index])
    return list(plan.decisions[start : start + counts[index]])


_COLUMNS = ("pass", "matches", "rewritten", "kept", "refused", "contract", "params", "MACs", "field", "checkpoints")


def _summaries(plan: Plan, width: int) -> RenderableType:
    """A row per pass with what it changes of the cost, and one for all together."""
    rows: list[tuple[Cell, ...]] = [tuple(Text(c, style="bold") for c in _COLUMNS)]
    for s in plan.passes:
        tail = (*_change(s.before, s.after), _checkpoints(plan) if len(plan.passes) == 1 else "")
        rows.append((s.name, str(s.matches), str(s.rewritten), str(s.kept), str(s.refused), s.contract, *tail))
    if len(plan.passes) != 1:
        ends = (plan.passes[0].before, plan.passes[-1].after) if plan.passes else (None, None)
        rows.append(("together", "", "", "", "", "", *_change(*ends), _checkpoints(plan)))
    gap = GAP if sum(natural_widths(rows)) + GAP * (len(_COLUMNS) - 1) <= width else 1
    return grid(rows, width, least=(8, 0, 0, 0, 0, 0, 0, 0, 0, 0), fold=(0,), right=(1, 2, 3, 4, 6, 7, 8), gap=gap)


def _change(before: Cost | None, after: Cost | None) -> tuple[str, str, str]:
    """Parameters and multiply-accumulates gained, and the receptive field that results."""
    if before is None or after is None:
        return "-", "-", "-"
    macs = f"{100 * (after.macs / before.macs - 1):+.1f} %" if before.macs and after.macs else "-"
    return f"{after.parameters - before.parameters:+,}", macs, str(after.field or "-")


def _checkpoints(plan: Plan) -> str:
    if any(edit.fresh for edit in plan.edits):
        return "in part"  # what begins anew has no value in them
    return "as they are" if all(edit.assembly is None for edit in plan.edits) else "converted"


def _grouped(decisions: Sequence[Decision], width: int) -> Iterator[RenderableType]:
    yield from _rewritten([d for d in decisions if d.status == "rewritten"], width)
    yield from _reasons([d for d in decisions if d.status == "kept"], "kept", width)
    refused = [d for d in decisions if d.status == "refused"]
    yield from (_refused_rows(refused, width) if len(refused) <= LISTED else _reasons(refused, "refused", width))


def _rewritten(decisions: Sequence[Decision], width: int) -> Iterator[RenderableType]:
    """A row per site where no name must be cut for it, the change in full or in brief; otherwise groups."""
    if not decisions:
        return
    for brief in (False, True) if len(decisions) <= LISTED else ():
        rows: list[tuple[Cell, ...]] = [
            (_site(d), change_text(d.before, d.after, brief), d.contract or "-", d.source or "-") for d in decisions
        ]
        if sum(natural_widths(rows)) + 3 * GAP <= width:
            yield grid(rows, width, least=(0, 0, 0, 0))
            return
    yield _rewritten_groups(decisions, width, len(decisions) if len(decisions) <= LISTED else NAMED)


def _rewritten_groups(decisions: Sequence[Decision], width: int, named: int) -> RenderableType:
    groups = _group(decisions, lambda d: (change_text(d.before, d.after), d.contract or "-"))
    rows: list[tuple[Cell, ...]] = []
    for (change, contract), members in list(groups.items())[:LISTED]:
        label = Text(f"rewritten {len(members)}", style=_STYLES["rewritten"])
        names = listing([f"{d.site} ({d.source})" if d.source else d.site for d in members], named)
        rows.append((label, f"{change}  {contract}: {names}"))
    if len(groups) > LISTED:
        rows.append(("", f"and {len(groups) - LISTED} more kinds of change: ask for the full table"))
    return grid(rows, width, least=(0, 30), fold=(1,))


def _reasons(decisions: Sequence[Decision], status: str, width: int) -> Iterator[RenderableType]:
    groups = _group(decisions, lambda d: (d.code, d.reason))
    rows: list[tuple[Cell, ...]] = []
    for (code, reason), members in groups.items():
        label = Text(f"{status} {len(members)}", style=_STYLES[status])
        rows.append((label, code, f"{clean(reason)}: {listing([d.site for d in members], NAMED)}"))
    if rows:
        yield grid(rows, width, least=(0, 12, 30), fold=(1, 2))


def _refused_rows(decisions: Sequence[Decision], width: int) -> Iterator[RenderableType]:
    rows: list[tuple[Cell, ...]] = [(_site(d), f"refused: {d.code}", d.reason, d.source or "-") for d in decisions]
    if rows:
        yield grid(rows, width, least=(28, 16, 20, 12), fold=range(4))


def _every_site(decisions: Sequence[Decision], width: int) -> Iterator[RenderableType]:
    """One row per site in execution order; names and reasons wrap, nothing is cut."""
    rows: list[tuple[Cell, ...]] = []
    for d in decisions:
        rewritten = f"{change_text(d.before, d.after)}  {d.contract or '-'}"
        what = rewritten if d.status == "rewritten" else f"{d.code}: {clean(d.reason)}"
        rows.append((_site(d), d.status, what, d.source or "-"))
    if rows:
        longest = natural_widths(rows)[0]
        yield grid(rows, width, least=(min(longest, 44), 0, 20, 11), fold=(0, 2, 3))


def _site(decision: Decision) -> Text:
    return Text(decision.site, style=_STYLES[decision.status])


def _group(items: Sequence[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
