"""On every awkward network: each dispatched convolution is decided about, named as recorded, and rewritten right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from zoo.awkward import AWKWARD
from zoo.counting import count_convolutions
from zoo.networks import Network, call, each, tensors_in
from zoo.reference import NaivePartial

import padrewrite
from padrewrite.emitting.backend import Backend

from .nets import PASSES, closeness

pytestmark = [
    pytest.mark.compile,
    # What Dynamo does while it looks at tensors and classes.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


def doubled(network: Network) -> tuple[nn.Module, tuple[list[object], dict[str, object]]]:
    """A fresh network and fresh inputs, in float64."""
    inputs = network.inputs()
    args, kwargs = ([], inputs) if isinstance(inputs, dict) else (list(inputs), {})

    def double(value: object) -> object:
        if isinstance(value, Tensor):
            return value.double() if value.is_floating_point() else value
        if isinstance(value, (list, tuple)):
            return type(value)(double(v) for v in value)
        return {k: double(v) for k, v in value.items()} if isinstance(value, dict) else value

    return network.make().double(), ([double(a) for a in args], {k: double(v) for k, v in kwargs.items()})


@torch.no_grad()
def run(model: object, inputs: tuple[list[object], dict[str, object]]) -> list[Tensor]:
    torch.manual_seed(3)
    return tensors_in(model(*inputs[0], **inputs[1]))  # type: ignore[operator]


NOT_FOLLOWED = {"Scripted", "VmapInside"}
"""Dynamo makes no graph of them."""
MISREAD = {"ThroughNumpy"}
"""Dynamo's own graph computes something else: it loses the copy of a reversed array."""


@pytest.mark.parametrize("network", each({n: w for n, w in AWKWARD.items() if n not in NOT_FOLLOWED | MISREAD}))
def test_every_convolution_is_decided_and_rewritten_right(network: Network) -> None:
    model, inputs = doubled(network)
    seen = Backend(PASSES, inner="eager", model=model)
    got = run(torch.compile(model, backend=seen), inputs)
    decisions = [d for d in seen.decisions if d.code != "not-compiled"]
    model, inputs = doubled(network)
    assert len(decisions) == len(count_convolutions(lambda: run(model, inputs)))
    assert len({d.site for d in decisions}) == len(decisions)
    model, inputs = doubled(network)
    with NaivePartial([d.before["padding"] if d.status == "rewritten" else None for d in decisions]):
        wanted = run(model, inputs)
    for a, b in zip(got, wanted, strict=True):
        assert closeness(a, b) < 1e-10


NAMED = (
    "BorrowedWeight",
    "HooksBypassed",
    "ModuleLoops",
    "PadInTheParent",
    "PadModules",
    "Parametrised",
    "RawParameter",
)
NAMED += ("RecurrentRows", "SharedAtTwoResolutions", "Subclasses", "TransposedEveryRank", "TwoNamesOneConv")


@pytest.mark.parametrize("network", [AWKWARD[name] for name in NAMED], ids=NAMED)
def test_names_and_reasons_are_those_of_a_plan(network: Network) -> None:
    model, inputs = network.make(), network.inputs()
    plan = padrewrite.plan(model, PASSES, example_inputs=inputs, allow_no_effect=True)
    seen = Backend(PASSES, inner="eager", model=network.make())
    call(torch.compile(seen._model, backend=seen), network.inputs())
    got = {d.site: (d.status, d.code, d.before, d.after) for d in seen.decisions if d.code != "not-compiled"}
    assert got == {d.site: (d.status, d.code, d.before, d.after) for d in plan.decisions}
    assert not {d.site for d in seen.decisions if d.code == "not-compiled"} & set(got)


@pytest.mark.parametrize("name", sorted(NOT_FOLLOWED))
def test_what_dynamo_does_not_follow_is_reported(name: str) -> None:
    model = AWKWARD[name].make()
    seen = Backend(PASSES, inner="eager", model=model)
    call(torch.compile(model, backend=seen), AWKWARD[name].inputs())
    assert {d.code for d in seen.decisions} <= {"not-compiled"}
