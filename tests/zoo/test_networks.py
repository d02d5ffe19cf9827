"""The engine on every network, against eager, the dispatcher and a naive float64 reference."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import torch
import torch.fx as fx
from torch import Tensor, nn

import padrewrite
from padrewrite.errors import PadrewriteError

from .awkward import AWKWARD
from .counting import count_convolutions
from .networks import NETWORKS, Inputs, Network, call, each, tensors_in
from .reference import NaivePartial

HANDLED = {name: n for name, n in {**AWKWARD, **NETWORKS}.items() if n.expect is None}
REFUSED = {name: n for name, n in AWKWARD.items() if n.expect is not None}
PASSES = ["partial-padding"]
PER_SITE = {"raft_small": "its sampling grid is float32", "AutocastInside": "half of it is bfloat16 by design"}
"""Networks that cannot run in float64 as a whole, and why."""


class RunGraph(fx.Interpreter):
    """Runs a recorded graph with the state of a model, without the engine's own executor."""

    def __init__(self, graph: padrewrite.Graph, model: nn.Module) -> None:
        assert graph.nodes is not None
        super().__init__(nn.Module(), graph=graph.nodes)
        self.state = {**dict(model.named_parameters()), **dict(model.named_buffers()), **graph.constants}

    def run_node(self, n: fx.Node) -> Any:
        with ExitStack() as stack:
            for kind, enabled, dtype in n.meta.get("autocast", ()):
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
            return super().run_node(n)

    def fetch_attr(self, target: str) -> Tensor:
        return self.state[target]


@torch.no_grad()
def run(model: Any, inputs: Inputs) -> list[Tensor]:
    """The tensors of one run from a fixed random state."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        return [t.detach() for t in tensors_in(call(model, inputs))]


def mapped(value: Any, function: Any) -> Any:
    """``value`` with ``function`` applied to its floating-point tensors."""
    if isinstance(value, Tensor):
        return function(value) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(v, function) for v in value)
    return {k: mapped(v, function) for k, v in value.items()} if isinstance(value, dict) else value


def distance(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference relative to the largest value of each output."""
    assert [t.shape for t in got] == [t.shape for t in wanted]
    worst = 0.0
    for a, b in zip(got, wanted):
        if b.numel():
            scale = float(b.abs().max()) or 1.0
            worst = max(worst, float((a - b).abs().max()) / scale)
    return worst


@pytest.mark.parametrize("network", each(HANDLED))
def test_recording_equals_eager(network: Network) -> None:
    """The graph, run on its own, repeats eager; recorded symbolically, also for other values."""
    model = network.make()
    graph = padrewrite.record(model, example_inputs=network.inputs())
    others = [lambda t: t] + ([lambda t: t.flip(-1) * 1.25] if graph.how == "symbolic" else [])
    for other in others:
        inputs = mapped(network.inputs(), other)
        wanted = run(network.make(), inputs)
        flat = tensors_in(mapped(inputs, lambda t: t.clone()))
        got = run(RunGraph(graph, network.make()).run, tuple(flat))
        assert distance(got, wanted) < 1e-6


@pytest.mark.parametrize("network", each(HANDLED))
def test_every_convolution_is_decided_and_rewritten_right(network: Network) -> None:
    """One decision per dispatched convolution; the rewritten model equals the naive reference in float64."""
    model, inputs = network.make(), network.inputs()
    seen = count_convolutions(lambda: run(model, inputs))
    model = network.make()
    plan = padrewrite.plan(model, PASSES, example_inputs=network.inputs(), allow_no_effect=True)
    assert len({d.site for d in plan.decisions}) == len(plan.decisions)
    assert [weight_shape(d.before) for d in plan.decisions] == [c.weight_shape for c in seen]
    assert all(d.reason and d.code for d in plan.decisions)

    if network.name in PER_SITE:
        assert_each_site_is_right(padrewrite.apply(model, plan), plan)
        return
    new = padrewrite.apply(model, plan).double()
    inputs, original = mapped(network.inputs(), Tensor.double), network.make().double()
    with NaivePartial(
        [d.before["padding"] if d.status == "rewritten" else None for d in plan.decisions]
    ) as mode:
        wanted = run(original, inputs)
    assert mode.calls == len(seen)
    assert distance(run(new, inputs), wanted) < 1e-10
    if any(d.status == "rewritten" for d in plan.decisions):
        plain = run(network.make().double(), inputs)
        assert distance(plain, wanted) > 1e-7, "partial padding made no difference: the check tests nothing"


def assert_each_site_is_right(new: nn.Module, plan: padrewrite.Plan) -> None:
    """The checks of verify, one site at a time, for a model that cannot run in float64 as a whole."""
    found = padrewrite.verify(new, level="quick")
    rewritten = {d.site for d in plan.decisions if d.status == "rewritten"}
    assert {e.site for e in found.evidence if e.contract == "reference" and not e.vacuous} == rewritten
    assert max(e.max_abs_error for e in found.evidence) < 1e-10


@pytest.mark.parametrize("network", each(REFUSED))
def test_refused_as_a_whole(network: Network) -> None:
    with pytest.raises(PadrewriteError):
        padrewrite.plan(network.make(), PASSES, example_inputs=network.inputs())


def weight_shape(before: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the weight that a decision describes."""
    channels = (before["in_channels"], before["out_channels"])
    first, second = channels if before["transposed"] else channels[::-1]
    return (first, second // before["groups"], *before["kernel_size"])
