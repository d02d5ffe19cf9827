"""Checking that everything promised holds on one random network."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import padrewrite as pr
from padrewrite.fuzzing.counting import Dispatched
from padrewrite.fuzzing.drawing import seeded_network
from padrewrite.fuzzing.networks import Net, NetSpec
from padrewrite.fuzzing.results import RECORDING, Outcome, Result
from padrewrite.recording.execute import execute, state_of
from padrewrite.registry import known_passes

Passes = Sequence["str | pr.Pass"]

_SMALL = {
    "boundary-refinement": "boundary-refinement{at=*}",
    "output-stride": "output-stride{stride=2}",
    "separable-kernel": "separable-kernel{mid=1,min_kernel=2}",
}
"""Options with which a pass finds something to do in a network of a few small layers."""


_ALSO = ("symmetric-even{from_odd=True}",)
"""Options with which a pass is another one."""


def default_passes(options: Mapping[str, str] = _SMALL) -> list[str]:
    """Every installed pass, as the fuzzer runs it.

    Args:
        options: the passes that are not run by their bare name, with their options.
    """
    also = [spec for spec in _ALSO if spec.partition("{")[0] in known_passes()]
    return [options.get(name, name) for name in known_passes()] + also


def check_network(seed: int, passes: Passes | None = None) -> Result:
    """Checks the network of a seed; see `check_spec`."""
    return replace(check_spec(seeded_network(seed), passes), seed=seed)


def check_spec(spec: NetSpec, passes: Passes | None = None) -> Result:
    """Checks one network.

    * Its recording computes what it computes, bit for bit, also at other sizes if sizes were recorded as symbols.
    * Each pass decides once about each convolution that the dispatcher sees, keeps its contract (end to end and with
      gradients), changes nothing the second time, is taken back bit for bit, and leaves the original alone.
    * The analysis, where there is one, says the same twice.

    Args:
        passes: names, names with options, or instances; default `default_passes`.
    """
    with warnings.catch_warnings(), _one_thread():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths", UserWarning)
        return _Checker(spec).check(default_passes() if passes is None else passes)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are added in one order, whatever else runs on the machine; the networks are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Checker:
    """One network while it is being checked."""

    def __init__(self, spec: NetSpec) -> None:
        self.spec, self.x = spec, spec.draw_input()
        self.outcomes: list[Outcome] = []
        self.expected: tuple[Tensor, ...] = ()
        self.convolutions = 0
        self.model: Net
        self.graph: pr.Graph | None = None

    def check(self, passes: Passes) -> Result:
        try:
            self.model = self.spec.build()
            with Dispatched() as counter:
                self.expected = _eager(self.model, self.x)
        except Exception as error:
            return Result(self.spec, (), refused=f"{type(error).__name__}: {error}")
        self.convolutions = counter.convolutions
        self._run(RECORDING, self._record)
        if self.graph is not None:
            self._run("other sizes", self._other_sizes)
            self._run("analysis", self._analyse)
            for one in passes:
                self._check_pass(one)
            self._run("the original is untouched", lambda: self._same(self.model, "the original changed"))
        how = self.graph.how if self.graph is not None else ""
        return Result(self.spec, tuple(self.outcomes), convolutions=self.convolutions, how=how)

    def _run(self, check: str, function: Callable[[], Outcome | str | None]) -> bool:
        """Notes what a check found: a sentence on what is wrong, an outcome of its own, or nothing. True if it held."""
        try:
            found = function()
        except Exception as error:
            found = Outcome.of_error(check, error)
        if not isinstance(found, Outcome):
            found = Outcome(check, "held") if found is None else Outcome(check, "failed", found)
        self.outcomes.append(replace(found, check=check))
        return found.status == "held"

    def _record(self) -> Outcome | str | None:
        graph = pr.record(self.model, example_inputs=self.x)
        if len(graph.sites) != self.convolutions:
            return f"{self.convolutions} convolutions were dispatched, {len(graph.sites)} recorded"
        problem = _difference(self._recorded(graph, self.x), self.expected)
        self.graph = graph
        return problem or Outcome(RECORDING, "held", f"{graph.how}, {len(graph.rows)} calls, equal to eager")

    def _recorded(self, graph: pr.Graph, x: Tensor) -> tuple[Tensor, ...]:
        assert graph.nodes is not None
        with torch.no_grad():
            return execute(graph.nodes, state_of(self.model, graph.constants), [x.clone()])

    def _other_sizes(self) -> Outcome | str | None:
        assert self.graph is not None
        if self.graph.how != "symbolic":
            return _skipped(f"recorded on {self.graph.how}")
        taken: list[str] = []
        for sizes in _other_sizes(self.spec, self.graph):
            x = self.spec.draw_input(sizes)
            problem = _difference(self._recorded(self.graph, x), _eager(self.model, x))
            taken.append("x".join(map(str, sizes)))
            if problem is not None:
                return f"at {taken[-1]}: {problem}"
        return Outcome("", "held", ", ".join(taken)) if taken else _skipped("no other size takes the same path")

    def _analyse(self) -> Outcome | str | None:
        analyze: Any = getattr(pr, "analyze", None)
        if analyze is None:
            return _skipped("there is none")
        first, second = (analyze(self.model, example_inputs=self.x).to_json() for _ in range(2))
        return None if first == second else "two analyses of one network have different JSON"

    def _check_pass(self, one: str | pr.Pass) -> None:
        name = one if isinstance(one, str) else one.spec
        options: dict[str, Any] = {"example_inputs": self.x, "allow_no_effect": True}
        made: list[Net] = []

        def rewrite() -> Outcome | str | None:
            made.append(pr.transform(self.model, [one], verify="full", **options))  # pyright: ignore
            return self._contract(made[0])

        self._run(f"{name}: contract", rewrite)
        if not made:
            return
        new = made[0]
        self._run(f"{name}: one decision each", lambda: self._decisions(new))
        self._run(f"{name}: second run", lambda: self._second_run(new, one, options))
        self._run(f"{name}: revert", lambda: self._same(pr.revert(new), "reverted, it is not the original"))

    def _contract(self, new: Net) -> Outcome | str | None:
        found = pr.report(new).verification
        if found is None:
            return "nothing was verified"
        if not found.ok:
            return f"not verified:\n{found}"
        skipped = [note for note in found.notes if "not checked" in note]
        if skipped:
            return "; ".join(skipped)
        decisions = pr.report(new).decisions
        for decision in decisions:
            if decision.contract is not None and not _evidence_for(decision, found):
                return f"{decision.site} promises {decision.contract}, of which nothing was checked"
        changed = sum(d.status == "rewritten" for d in decisions)
        worst = max((e.max_abs_error for e in found.evidence if not e.vacuous), default=0.0)
        return Outcome("", "held", f"{changed} rewritten, worst error {worst:.1e}")

    def _decisions(self, new: Net) -> str | None:
        assert self.graph is not None
        decided = Counter(d.site for d in pr.report(new).decisions)
        wrong = [f"{decided[site]} about {site}" for site in self.graph.sites if decided[site] != 1]
        return f"decisions: {', '.join(wrong)}" if wrong else None

    def _second_run(self, new: Net, one: str | pr.Pass, options: dict[str, Any]) -> str | None:
        before = _eager(new, self.x)
        again: Any = pr.transform(new, [one], **options)
        changed = [d.site for d in pr.report(again).plans[-1].decisions if d.status == "rewritten"]
        if changed:
            return f"rewritten again: {', '.join(changed)}"
        problem = _difference(_eager(again, self.x), before)
        return f"a second run changed the outputs: {problem}" if problem else None

    def _same(self, model: Any, complaint: str) -> str | None:
        problem = _difference(_eager(model, self.x), self.expected)
        return f"{complaint}: {problem}" if problem else None


def _evidence_for(decision: pr.Decision, found: pr.Verification) -> bool:
    """Whether what a rewrite promised is among what was verified: of its site, or of the whole network.

    A map may be all border, and nothing in it to compare; but no grid is without a position.
    """
    kind = str(decision.contract).partition("(")[0]
    if kind == "shape":  # no promise about numbers: the site's own reference is all there is
        kind = "reference"
    kinds = {(e.site, e.contract.partition("(")[0]) for e in found.evidence if not (e.vacuous and kind == "grid")}
    return (decision.site, kind) in kinds or ("end to end", kind) in kinds


def _skipped(note: str) -> Outcome:
    return Outcome("", "skipped", note)


def _eager(model: Net, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return model(x.clone())


def _difference(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> str | None:
    """The first difference between two lists of tensors, to the last bit; None if there is none."""
    if len(got) != len(wanted):
        return f"{len(got)} outputs instead of {len(wanted)}"
    for index, (a, b) in enumerate(zip(got, wanted)):
        if a.shape != b.shape:
            return f"output {index} is {tuple(a.shape)} instead of {tuple(b.shape)}"
        if not torch.equal(a, b):
            return f"output {index} is off by up to {(a - b).abs().max().item():.3g}"
    return None


def _other_sizes(spec: NetSpec, graph: pr.Graph) -> list[tuple[int, ...]]:
    """Sizes that the network takes too, by the specification's own arithmetic: one larger, one smaller."""
    sizes = spec.shape[1:]
    larger = [tuple(n + more + axis for axis, n in enumerate(sizes)) for more in (1, 2, 3, 6, 12)]
    larger += [tuple(n + more for n in sizes) for more in (4, 6, 12, 24)]
    smaller = [tuple(max(1, n - less - axis) for axis, n in enumerate(sizes)) for less in (1, 2, 3)]
    smaller += [tuple(n - less for n in sizes) for less in (2, 3, 4, 6) if less < min(sizes)]
    found: list[tuple[int, ...]] = []
    for options in (larger, smaller):
        found += [taken for taken in options if _takes(spec, taken) and graph.holds_at([(1, 1, *taken)])][:1]
    return found


def _takes(spec: NetSpec, sizes: tuple[int, ...]) -> bool:
    try:
        return bool(replace(spec, shape=(spec.shape[0], *sizes)).shapes)
    except ValueError:
        return False
