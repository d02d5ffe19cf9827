"""What was decided in all graphs of a model together: one decision for each convolution call and pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from padrewrite.emitting.legality import CODES
from padrewrite.errors import PassError
from padrewrite.graph import Site
from padrewrite.planning import Outcome, require_effect
from padrewrite.plans import Decision, PassSummary, Plan
from padrewrite.recording.tree import read_tree, tree_fingerprint
from padrewrite.rewriting import Pass
from padrewrite.selecting import Names, Where, select

_STATUSES = ("refused", "rewritten", "kept")
"""What a report shows first of the decisions in several compilations of one graph."""


class Ledger:
    """Collects outcomes graph by graph. Graphs compiled again, for another size say, replace nothing worse."""

    def __init__(self, passes: Sequence[Pass], model: nn.Module | None) -> None:
        self._passes = passes
        self._model = model
        self.sites: dict[str, Site] = {}
        self._decisions: list[dict[str, Decision]] = [{} for _ in passes]
        self._matches: list[dict[Hashable, int]] = [{} for _ in passes]
        self._calls: dict[Hashable, int] = {}
        self._served: dict[str, tuple[Site, Site]] = {}
        self._given: set[int] = set()

    def add_graph(self, graph: Hashable, sites: Iterable[Site], calls: int) -> None:
        for site in sites:
            self.sites.setdefault(site.id, site)
        self._calls[graph] = calls

    def serve(self, site: Site, peer: Site) -> None:
        """``peer`` may run in the graph of ``site``; whether it does is seen from the parameters the graph is given."""
        self._served[peer.id] = (peer, site)

    def witnessed(self, compiled: Callable[..., Any], inputs: Sequence[Any]) -> Callable[..., Any]:
        """``compiled``, the code of a submodule's forward, noting whose parameters it is called with."""
        positions = [n for n, value in enumerate(inputs) if isinstance(value, nn.Parameter)]
        given = self._given

        def noting(*args: Any) -> Any:
            given.update(id(args[n]) for n in positions)
            return compiled(*args)

        return noting

    def add(self, graph: Hashable, index: int, outcome: Outcome) -> None:
        """One pass over one graph.

        Raises:
            PassError: a site is rewritten at one input size and cannot be at another.
        """
        known = self._decisions[index]
        for new in outcome.decisions:
            old = known.get(new.site, new)
            if {old.status, new.status} == {"rewritten", "refused"}:
                raise PassError(_at_some_sizes(old if old.status == "refused" else new))
            known[new.site] = min(old, new, key=lambda d: _STATUSES.index(d.status))
        self._matches[index][graph] = outcome.matches

    def decisions_of(self, index: int) -> tuple[Decision, ...]:
        """The decisions of one pass, those about convolutions that no graph contains last."""
        return (*self._decisions[index].values(), *self._unseen(index))

    def judge(self, include: Names, exclude: Names, where: Where, allow_no_effect: bool) -> None:
        """Raises what ``plan`` raises if a selector matches nothing, or a pass has no effect, in any graph."""
        sites = {peer.id: peer for peer, _ in self._served.values()} | self.sites
        for index, one in enumerate(self._passes):
            select(list(sites.values()), include, exclude, where, one.name)
            if not allow_no_effect:
                require_effect(one, self.decisions_of(index))

    def plan(self) -> Plan:
        """The decisions as a plan, for a report. It holds no edits: nothing is written into modules."""
        decisions = [self.decisions_of(index) for index in range(len(self._passes))]
        return Plan(
            model="graphs" if self._model is None else type(self._model).__name__,
            how="dynamo",
            calls=sum(self._calls.values()),
            input="as compiled",
            inputs=None,
            mode="mixed",
            tree="" if self._model is None else tree_fingerprint(self._model),
            fingerprint="",
            predicted="",
            passes=tuple(self._summary(index, found) for index, found in enumerate(decisions)),
            decisions=tuple(d for found in decisions for d in found),
            edits=(),
        )

    def _summary(self, index: int, decisions: Sequence[Decision]) -> PassSummary:
        one = self._passes[index]
        count = {status: sum(d.status == status for d in decisions) for status in _STATUSES}
        contract = one.contract if count["rewritten"] else "-"
        numbers = (sum(self._matches[index].values()), count["rewritten"], count["kept"], count["refused"])
        return PassSummary(one.spec, one.name, *numbers, contract)

    def _unseen(self, index: int) -> list[Decision]:
        """Decisions about convolution modules that no graph contains."""
        if self._model is None or not self._calls:
            return []
        seen = {site.fqn for site in self.sites.values()}
        given = [name for name, p in self._model.named_parameters() if id(p) in self._given]
        unseen = [site for site in read_tree(self._model).convs() if site.fqn not in seen]
        return [self._about_unseen(index, site, any(n.startswith(site.fqn + ".") for n in given)) for site in unseen]

    def _about_unseen(self, index: int, site: Site, ran: bool) -> Decision:
        if ran and site.id in self._served:
            served = self._decisions[index][self._served[site.id][1].id]
            return replace(served, site=site.id, reason=f"{served.reason}, in the graph of {served.site}")
        spec, name = site.op.spec(), self._passes[index].name
        return Decision(site.id, name, "refused", "not-compiled", CODES["not-compiled"], None, spec, spec)


def _at_some_sizes(refused: Decision) -> str:
    return (
        f"{refused.pass_name} rewrites {refused.site} at some input sizes and cannot at others: {refused.reason} "
        f"({refused.code}). The model would not be one function. Compile with dynamic=False, exclude "
        f"{refused.site}, or compile transform(model, ...)."
    )
