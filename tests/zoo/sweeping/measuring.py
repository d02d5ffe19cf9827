"""One network through everything: counted, recorded, analysed, each pass planned, applied, verified and reverted."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

import padrewrite
from padrewrite.analyses.building import build
from padrewrite.fuzzing.checking import default_passes
from padrewrite.ops.conv import Conv
from padrewrite.pipeline import plan_recorded
from padrewrite.recording.inputs import Inputs
from padrewrite.registry import build_pass, known_passes, parse_passes

from ..counting import ConvolutionCall, count_convolutions
from ..networks import Inputs as Arguments
from ..networks import Network, tensors_in
from ..test_networks import RunGraph, distance, mapped, run, weight_shape
from .rows import ANALYZE, COUNT, EAGER, PRINT, RECORD, Analysed, Failure, Finding, PassRow, Refusal, Row

FULL_CONVOLUTIONS, FULL_MACS = 60, 1_000_000_000
"""Networks up to this size are verified end to end too."""
LARGEST_DIFFERENCE = 1e-6
"""Between the recorded graph and eager in float32, relative to the largest output."""
END_TO_END = "end to end"
"""The site that evidence about the whole model names."""
REFINED = "boundary-refinement"
AT_LAST = f"{REFINED}{{at=...}}"
"""It refines what it is told to. Here that is, by its name in each network, the last convolution not transposed."""

T = TypeVar("T")


class Steps:
    """Failures and seconds of named steps; a step that fails ends itself, not the measurement."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.seconds: dict[str, float] = {}

    def attempt(self, name: str, do: Callable[[], T]) -> T | None:
        """``do()``, or None and a failure."""
        start = time.perf_counter()
        try:
            return do()
        except Exception as error:
            self.fail(name, type(error).__name__, str(error))
            return None
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 2)

    def fail(self, name: str, error: str, message: str) -> None:
        self.failures.append(Failure(name, error, scrubbed(message)))


@dataclass(frozen=True)
class Built:
    """A network ready for its steps, and what it gave before any of them."""

    model: nn.Module
    inputs: Arguments
    calls: list[ConvolutionCall]
    outputs: list[Tensor]


def scrubbed(message: str) -> str:
    """The first lines of a message, without what differs between machines and runs: folders and addresses."""
    text = " ".join(line.strip() for line in message.strip().splitlines()[:4])
    return re.sub(r"(/[\w.-]+)+/(?=[\w.-]+)", "", re.sub(r"0x[0-9a-f]{6,}", "0x...", text))[:400]


def measure(network: Network) -> Row:
    """The row of one network. Raises nothing: what fails is in the row."""
    steps, row = Steps(), Row(network.name, network.package or "")
    model = steps.attempt("build", network.build)
    if model is not None:
        inputs = network.inputs()
        shapes = ("x".join(map(str, t.shape)) or "scalar" for t in tensors_in(inputs))
        row = replace(row, input=", ".join(shapes))
        built = steps.attempt(COUNT, lambda: _counted(model, inputs))
        if built is not None:
            row = _followed(replace(row, convolutions=len(built.calls)), built, steps)
    return replace(row, failures=tuple(steps.failures), seconds=steps.seconds)


def _counted(model: nn.Module, inputs: Arguments) -> Built:
    outputs: list[Tensor] = []
    calls = count_convolutions(lambda: outputs.extend(run(model, inputs)))
    return Built(model, inputs, calls, outputs)


def _followed(row: Row, built: Built, steps: Steps) -> Row:
    """Everything that needs a recording; without one, nothing of it is tried."""
    graph = steps.attempt(RECORD, lambda: padrewrite.record(built.model, example_inputs=built.inputs))
    if graph is None:
        return row
    names = steps.attempt("find passes", lambda: default_passes({REFINED: AT_LAST})) or []
    return replace(
        row,
        how=graph.how,
        notes=tuple(map(scrubbed, graph.notes)),
        difference=steps.attempt(EAGER, lambda: _difference(built, graph, steps)),
        analysis=steps.attempt(ANALYZE, lambda: _analysed(built, graph, steps)),
        passes=tuple(_passed(name, built, graph, steps) for name in names),
    )


def _difference(built: Built, graph: padrewrite.Graph, steps: Steps) -> float:
    """How far the graph, run without the engine, is from eager; at other values too if sizes were symbolic."""
    others = [lambda t: t] + ([lambda t: t.flip(-1) * 1.25] if graph.how == "symbolic" else [])
    worst = 0.0
    for other in others:
        inputs = mapped(built.inputs, other)
        flat = tensors_in(mapped(inputs, Tensor.clone))
        got, wanted = run(RunGraph(graph, built.model).run, tuple(flat)), run(built.model, inputs)
        if not all(bool(t.isfinite().all()) for t in (*got, *wanted)):
            steps.fail(EAGER, "not finite", "an output has values that cannot be compared")
        worst = max(worst, distance(got, wanted))
    if worst > LARGEST_DIFFERENCE:
        steps.fail(EAGER, "different", f"the recorded graph is off by {worst:.0e}")
    return worst


def _analysed(built: Built, graph: padrewrite.Graph, steps: Steps) -> Analysed:
    seen = build(graph, type(built.model).__name__, str(Inputs.of(built.inputs)))
    if len(seen.sites) != len(built.calls):
        steps.fail(ANALYZE, "count", f"{len(built.calls)} convolutions ran, {len(seen.sites)} were analysed")
    steps.attempt(PRINT, lambda: (str(seen), seen.to_json()))
    findings = sorted((_finding(f) for f in seen.findings), key=lambda f: (f.code, f.site, f.message))
    ended = Counter(scrubbed(site.ended) for site in seen.sites.values() if site.ended)
    notes = tuple(map(scrubbed, seen.notes))
    return Analysed(len(seen.sites), len(seen.chains), tuple(findings), dict(sorted(ended.items())), notes)


def _finding(found: padrewrite.Finding) -> Finding:
    return Finding(found.code, found.site, scrubbed(found.message), found.severity, tuple(found.sites))


def _passed(name: str, built: Built, graph: padrewrite.Graph, steps: Steps) -> PassRow:
    """One pass, from its plan to its revert; the model itself is never changed. All passes share one recording."""
    before, row = len(steps.failures), PassRow(name)
    plan = steps.attempt(
        f"plan {name}",
        lambda: plan_recorded(
            built.model, graph, [_parsed(name, graph)], Inputs.of(built.inputs), allow_no_effect=True
        ),
    )
    if plan is not None:
        row = _decided(name, plan)
        steps.attempt(f"print {name}", lambda: (str(plan), plan.to_json()))
        steps.attempt(f"decide {name}", lambda: _check_decisions(name, plan, built.calls, steps))
    if plan is not None and row.rewritten + row.others:
        new = steps.attempt(f"apply {name}", lambda: padrewrite.apply(built.model, plan))
        if new is not None:
            verified = steps.attempt(f"verify {name}", lambda: _verified(new, plan, steps, row))
            row = verified or row
            steps.attempt(f"revert {name}", lambda: _check_revert(name, new, built, steps))
    return replace(row, done=len(steps.failures) == before)


def _parsed(name: str, graph: padrewrite.Graph) -> padrewrite.Pass:
    if name != AT_LAST:
        return parse_passes([name])[0]
    plain_last = sorted(graph.convs(), key=lambda site: isinstance(site.op, Conv))
    return build_pass(known_passes()[REFINED], {"at": tuple(site.id for site in plain_last[-1:])})


def _decided(name: str, plan: padrewrite.Plan) -> PassRow:
    decisions = convolutions(plan)
    status = Counter(d.status for d in decisions)
    kept = Counter(d.code for d in decisions if d.status == "kept")
    refused = tuple(Refusal(d.site, d.code, scrubbed(d.reason)) for d in decisions if d.status == "refused")
    others = sum(d.status == "rewritten" for d in plan.decisions) - status["rewritten"]
    counts = (status["rewritten"], status["kept"], status["refused"], others)
    return PassRow(name, *counts, dict(sorted(kept.items())), refused)


def convolutions(plan: padrewrite.Plan) -> list[padrewrite.Decision]:
    """The decisions about convolution calls; a plan may also decide about pools."""
    return [d for d in plan.decisions if "in_channels" in d.before]


def _check_decisions(name: str, plan: padrewrite.Plan, calls: list[ConvolutionCall], steps: Steps) -> None:
    """One decision for each dispatched convolution, in the order of execution."""
    decisions, step = convolutions(plan), f"decide {name}"
    shapes = [weight_shape(d.before) for d in decisions]
    if len(shapes) != len(calls):
        steps.fail(step, "count", f"{len(calls)} convolutions ran, {len(shapes)} were decided")
    elif shapes != [c.weight_shape for c in calls]:
        steps.fail(step, "order", "the decisions are about other convolutions than those that ran")
    if len({d.site for d in plan.decisions}) != len(plan.decisions):
        steps.fail(step, "twice", "a call was decided twice")


def _verified(new: nn.Module, plan: padrewrite.Plan, steps: Steps, row: PassRow) -> PassRow:
    small = (
        len(convolutions(plan)) <= FULL_CONVOLUTIONS and plan.macs is not None and max(plan.macs) <= FULL_MACS
    )
    found = padrewrite.verify(new, level="full" if small else "quick")
    level = "full" if any(e.site == END_TO_END and not e.vacuous for e in found.evidence) else "quick"
    if not found.ok:
        bad = found.failures[0] if found.failures else None
        what = f"{bad.site}: {bad.contract}: {bad.note}" if bad else "nothing was compared"
        steps.fail(f"verify {row.name}", "contract", f"{what} ({level}, {len(found.failures)} in all)")
    errors = [e.max_abs_error for e in found.evidence if not e.vacuous]
    return replace(
        row,
        level=level,
        worst=max(errors, default=None),
        vacuous=sum(e.vacuous for e in found.evidence),
        notes=tuple(map(scrubbed, found.notes)),
    )


def _check_revert(name: str, new: nn.Module, built: Built, steps: Steps) -> None:
    """The reverted model has the classes of the original and gives its very numbers."""
    back, step = padrewrite.revert(new), f"revert {name}"
    classes = [[(n, type(m)) for n, m in one.named_modules()] for one in (back, built.model)]
    if classes[0] != classes[1]:
        steps.fail(step, "classes", "the reverted model has other module classes")
    got, wanted = run(back, built.inputs), built.outputs
    if len(got) != len(wanted) or not all(torch.equal(a, b) for a, b in zip(got, wanted)):
        steps.fail(step, "different", "the reverted model gives other numbers than the original")
