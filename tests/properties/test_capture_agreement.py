"""Four recordings of one network find the same convolutions: two of ours, torch.fx's and torch.export's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx as fx
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import FOLLOWED, NetSpec, nets
from torch import nn

from padrewrite.graph import Graph
from padrewrite.ops.conv import Conv
from padrewrite.recording import trace
from padrewrite.recording.inputs import Inputs

# Symbolic sizes and torch.export take most of a second for each network.
FEW = settings(max_examples=max(10, settings.default.max_examples // 3))
CONV_FUNCTIONS = (F.conv1d, F.conv2d, F.conv3d)
FOLLOW: tuple[Callable[..., tuple[Graph, str | None]], ...] = (trace._follow_symbolic, trace._follow_real)


@dataclass(frozen=True)
class Found:
    """One convolution call, as every recording can name it."""

    weight: str
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def by_recorder(model: nn.Module, x: torch.Tensor, follow: Callable[..., Any]) -> Iterator[Found]:
    graph, problem = follow(model, Inputs.of(x))
    assert problem is None
    for site in graph.convs():
        op = site.op
        assert isinstance(op, Conv)
        assert all(lo == hi for lo, hi in op.padding)
        padding = tuple(lo for lo, _ in op.padding)
        yield Found(str(site.handle.weight), op.stride, padding, op.dilation, op.groups)


def by_symbolic_trace(model: nn.Module) -> Iterator[Found]:
    for node in fx.symbolic_trace(model).graph.nodes:
        layer: Any = model.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.modules.conv._ConvNd):
            yield Found(f"{node.target}.weight", layer.stride, layer.padding, layer.dilation, layer.groups)
        if node.op == "call_function" and node.target in CONV_FUNCTIONS:
            _, weight, _, stride, padding, dilation, groups = node.args
            yield Found(weight.target, stride, padding, dilation, groups)


def by_export(model: nn.Module, x: torch.Tensor, rank: int) -> Iterator[Found]:
    program = torch.export.export(model, (x,))
    weights = program.graph_signature.inputs_to_parameters
    target = getattr(torch.ops.aten, f"conv{rank}d").default
    default = (None, (1,) * rank, (0,) * rank, (1,) * rank, 1)
    for node in program.graph.nodes:
        if node.op == "call_function" and "conv" in str(node.target):
            assert node.target is target
            _, weight, *rest = node.args
            stride, padding, dilation, groups = (*rest, *default[len(rest) :])[1:]
            yield Found(weights[weight.name], tuple(stride), tuple(padding), tuple(dilation), groups)


def by_construction(spec: NetSpec) -> Iterator[Found]:
    for step in spec.calls:
        layer = spec.layers[step.layer]
        numbers = (layer.stride, layer.padding, layer.dilation, layer.groups)
        yield Found(f"layers.{step.layer}.weight", *numbers)


@FEW
@given(nets(padded=False))
def test_every_recording_finds_the_same_convolutions(spec: NetSpec) -> None:
    model, x = spec.build(), spec.draw_input()
    built = list(by_construction(spec))
    for follow in FOLLOW:
        assert list(by_recorder(model, x, follow)) == built, follow.__name__
    assert list(by_symbolic_trace(model)) == built
    assert list(by_export(model, x, spec.rank)) == built


@FEW
@given(nets(kinds=[kind for kind in FOLLOWED if kind != "skip"]))
def test_both_ways_of_recording_give_one_graph(spec: NetSpec) -> None:
    """With explicit pads and padding modes too, and with the same names for the same calls.

    Sizes that a forward computes, as skips do that resize to another map's, are numbers on real inputs only.
    """
    model, inputs = spec.build(), Inputs.of(spec.draw_input())
    (symbolic, _), (real, _) = (follow(model, inputs) for follow in FOLLOW)
    assert symbolic.difference(real) is None
    assert symbolic.fingerprint == real.fingerprint
    assert [(s.id, s.input_shape) for s in symbolic.convs()] == [(s.id, s.input_shape) for s in real.convs()]
    assert [s.id for s in symbolic.convs()] == list(names(spec))


def names(spec: NetSpec) -> Iterator[str]:
    """The site names that a network's calls should get, counted here a second time."""
    calls: dict[int, int] = {}
    functional = 0
    for step in spec.calls:
        if spec.layers[step.layer].functional:
            yield f"#conv{spec.rank}d.{functional}"
            functional += 1
            continue
        call = calls.get(step.layer, 0)
        calls[step.layer] = call + 1
        yield f"layers.{step.layer}" + (f"@{call}" if call else "")
