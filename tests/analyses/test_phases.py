"""Phases against centres of mass of gradients, and merges that disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import (
    NOISE,
    EveryTensor,
    flat_net,
    flatten_weights,
    gradients,
    sensitivities,
    untouched,
    without_cancelling,
)
from padrewrite.analyses.layout import Layout, read_layout
from padrewrite.analyses.phases import AxisPhase, Phases
from padrewrite.fuzzing.networks import Interpolate

Run = Callable[[Tensor], Sequence[Tensor]]

CENTRED = ("conv", "pointwise", "batch_norm", "avg_pool", "add", "cat", "pad", "crop", "interpolate", "residual")
"""Kinds whose every output sits in the middle of what it reads; a resize is made linear."""


def phases_of(model: nn.Module, x: Tensor) -> tuple[Layout, Phases]:
    layout = read_layout(pr.record(model, example_inputs=x))
    return layout, Phases(layout)


def every_phase(model: nn.Module, x: Tensor) -> tuple[Phases, Run, list[list[AxisPhase | None]]]:
    """The phases of all tensors that have positions along every spatial axis, and how to get these tensors."""
    graph = pr.record(model, example_inputs=x)
    assert graph.nodes is not None
    layout, every = read_layout(graph), EveryTensor(model, graph.nodes, graph.constants)
    phases, spatial = Phases(layout), tuple(range(2, x.dim()))
    nodes = [node for node in (*layout.inputs, *layout.steps) if layout.spatial(node) == spatial]
    return phases, lambda x: every.tensors(x, nodes), [[phases.of(n, d) for d in spatial] for n in nodes]


def centred(spec: NetSpec) -> NetSpec:
    """Resizes that keep the centre of mass, and an axis long enough for windows that touch no border."""
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[spec.rank]
    steps = [
        replace(s, mode=linear) if isinstance(s, Interpolate) and "linear" not in s.mode else s for s in spec.steps
    ]
    spec = without_cancelling(replace(spec, steps=tuple(steps)))
    for grown in (60, 40) if spec.rank == 1 else (20,):
        larger = replace(spec, shape=(spec.shape[0], *(n + grown for n in spec.shape[1:])))
        try:
            assert larger.shapes
        except ValueError:
            continue
        return larger
    return spec


def check_centres(run: Run, x: Tensor, phases: list[list[AxisPhase | None]]) -> int:
    """Compares every tensor that ``run`` returns; returns how many positions were compared."""
    compared = 0
    for which, axes in enumerate(phases):
        inside = untouched(run, x, which)
        if not inside.any() or any(axis is None for axis in axes):
            continue
        weights = sensitivities(run, x, which)
        for index in inside.nonzero().tolist():
            here = weights[tuple(index)]
            for a, axis in enumerate(axes):
                assert axis is not None
                along = here.movedim(a, 0).flatten(1).sum(1) if here.dim() > 1 else here
                centre = float((along * torch.arange(len(along))).sum() / along.sum())
                assert abs(centre - float(axis.scale * index[a] + axis.offset)) < NOISE, (which, index, axis)
                compared += 1
    return compared


def check_network(spec: NetSpec) -> int:
    spec = centred(spec)
    model, x = flat_net(spec), replace(spec, batch=1).draw_input()
    phases, run, every = every_phase(model, x)
    assume(not phases.misaligned)
    return check_centres(run, x, every)


@settings(max_examples=max(25, settings.default.max_examples))
@given(nets(ranks=(1,), kinds=CENTRED, linear_only=True, parts=(2, 6)))
def test_random_networks(spec: NetSpec) -> None:
    check_network(spec)


@settings(max_examples=max(5, settings.default.max_examples // 6))
@given(nets(ranks=(2,), kinds=CENTRED, linear_only=True, parts=(2, 4)))
def test_random_images(spec: NetSpec) -> None:
    check_network(spec)


def test_something_is_compared() -> None:
    """The comparison above is not empty: on a plain strided chain it reaches many positions."""
    model = nn.Sequential(nn.Conv1d(1, 2, 4, 2, 1, dilation=2), nn.AvgPool1d(2), nn.Conv1d(2, 1, 2, padding="same"))
    for parameter in model.parameters():
        parameter.data.fill_(1)
    model, x = model.double().eval(), torch.rand(1, 1, 60, dtype=torch.float64)
    _, run, every = every_phase(model, x)
    found = [phase for (phase,) in every]
    assert len(found) == 4  # the input and three results
    assert check_centres(run, x, every) > 100
    assert found[-1] is not None
    # 2i + 2 (window of 7, pad 1), then the mean of two (4i + 3), then the mean of a pixel and the next (4i + 5)
    assert (found[-1].scale, found[-1].offset, found[-1].depth) == (4, 5, 3)


ENLARGING: dict[str, list[nn.Module]] = {
    "transposed": [nn.Conv2d(1, 2, 3, 2, 1), nn.ConvTranspose2d(2, 1, 4, 2, 1), nn.Conv2d(1, 1, 2)],
    "off by one": [nn.ConvTranspose2d(1, 2, 2, 2, 1, output_padding=1), nn.Conv2d(2, 2, 2, 2), nn.Conv2d(2, 1, 3)],
    "dilated": [nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 3, 1, 0, dilation=2), nn.ConvTranspose2d(1, 1, 2, 2)],
    "shuffled": [nn.Conv2d(1, 8, 3, 2, 1), nn.PixelShuffle(2), nn.ConvTranspose2d(2, 1, 4, 2, 1)],
    "there and back": [nn.Conv2d(1, 2, 3), nn.PixelUnshuffle(2), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2)],
    "nearest": [nn.Conv2d(1, 1, 2, 2), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(1, 1, 3)],
}


@pytest.mark.parametrize("name", ENLARGING)
def test_enlarging_calls_sit_in_the_middle_on_average(name: str) -> None:
    """Outputs of an enlarging call read more to this or that side; over a period of them that evens out."""
    model, x = flatten_weights(nn.Sequential(*ENLARGING[name])), torch.rand(1, 1, 16, 16, dtype=torch.float64)
    _, run, every = every_phase(model, x)
    assert len(every) == len(ENLARGING[name]) + 1
    for which, (along, across) in enumerate(every):
        inside = untouched(run, x, which)
        weights, rows = sensitivities(run, x, which).sum((1, 3)), inside.any(1).nonzero().flatten().tolist()
        assert along == across
        assert along is not None
        period = 4 if along.scale != 1 or which > 1 else 1
        assert len(rows) >= period
        for first in range(rows[0], rows[-1] + 2 - period):
            span = torch.arange(first, first + period)
            off = (float(along.scale) * span + float(along.offset))[:, None] - torch.arange(16)
            assert abs(float((weights[span] * off).sum() / weights[span].sum())) < NOISE, (which, first, along)


class Branches(nn.Module):
    """Convolutions of one input, each behind its own padding, added up."""

    def __init__(self, windows: list[tuple[int, int, int, int]], stride: int) -> None:
        super().__init__()
        self.windows, self.stride = windows, stride

    def branch(self, x: Tensor, index: int) -> Tensor:
        kernel, dilation, lo, hi = self.windows[index]
        weight = torch.ones(1, 1, kernel, dtype=x.dtype)
        return F.conv1d(F.pad(x, (lo, hi)), weight, None, self.stride, 0, dilation)

    def forward(self, x: Tensor) -> Tensor:
        total = self.branch(x, 0)
        for index in range(1, len(self.windows)):
            total = total + self.branch(x, index)
        return total


@st.composite
def branches(draw: st.DrawFn) -> Branches:
    windows: list[tuple[int, int, int, int]] = []
    for _ in range(draw(st.integers(2, 3))):
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        reach = dilation * (kernel - 1)
        lo = draw(st.sampled_from(sorted({reach // 2, reach - reach // 2, 0, reach})))
        windows.append((kernel, dilation, lo, reach - lo))
    return Branches(windows, draw(st.integers(1, 3)))


@given(branches())
def test_merges_of_branches(model: Branches) -> None:
    """Reported exactly where the centres of mass of the branches differ, and by as much."""
    n = 48
    layout, phases = phases_of(model, torch.rand(1, 1, n, dtype=torch.float64))
    centres: list[Fraction] = []
    for index in range(len(model.windows)):
        weights = gradients(lambda x, index=index: model.branch(x, index), n)
        i = len(weights) // 2
        centre = float((weights[i] * torch.arange(n)).sum() / weights[i].sum())
        centres.append(Fraction(round(2 * (centre - model.stride * i)), 2))
    (node,) = layout.outputs
    found = phases.of(node, 2)
    assert found is not None
    assert (found.low, found.high) == (min(centres), max(centres))
    assert found.scale == model.stride
    # Of paths of equal depth the first is the main one, here as at every merge before.
    deepest = next((i for i, (kernel, *_) in enumerate(model.windows) if kernel > 1), 0)
    assert found.offset == centres[deepest]
    apart: list[Fraction] = []
    main = 0
    for index in range(1, len(centres)):
        if centres[main] != centres[index]:
            apart.append(abs(centres[main] - centres[index]))
        main = index if model.windows[main][0] == 1 < model.windows[index][0] else main
    assert [m.apart for m in phases.misaligned] == apart


def net(forward: Any) -> nn.Module:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    return Net()


def kernel(size: int) -> Tensor:
    return torch.ones(1, 1, size, dtype=torch.float64)


def enet_block(x: Tensor) -> Tensor:
    return torch.cat([F.conv1d(x, kernel(3), None, 2, 1), F.max_pool1d(x, 2)], 1)


def wide_enet_block(x: Tensor) -> Tensor:
    return torch.cat([F.conv1d(x, kernel(3), None, 2, 1), F.max_pool1d(x, 3, 2, 1)], 1)


def resize(x: Tensor, align: bool) -> Tensor:
    low = F.conv1d(x, kernel(2), None, 2)
    return x + F.interpolate(low, x.shape[2:], mode="linear", align_corners=align)


def shortcut_by_slice(x: Tensor) -> Tensor:
    return F.conv1d(x, kernel(3), None, 2, 1) + x[..., ::2]


def shortcut_by_mean(x: Tensor) -> Tensor:
    return F.conv1d(x, kernel(3), None, 2, 1) + F.avg_pool1d(x, 2)


MERGES = [
    (enet_block, [Fraction(1, 2)]),
    (wide_enet_block, []),
    (lambda x: resize(x, False), []),
    (lambda x: resize(x, True), [None]),
    (shortcut_by_slice, []),
    (shortcut_by_mean, [Fraction(1, 2)]),
    (lambda x: F.conv1d(x, kernel(2), padding=0)[..., :-1] + x[..., 1:-1], [Fraction(1, 2)]),
    (lambda x: x * F.conv1d(x, kernel(3), padding=1).mean(-1, keepdim=True), []),
    (lambda x: F.conv1d(x, kernel(3), padding=1) - x.roll(1, -1), [Fraction(1)]),
    (lambda x: F.interpolate(x, 24) + F.conv1d(x, kernel(9)), [None]),
    (lambda x: F.conv1d(F.pad(x, (1, 0)), kernel(2)) + F.conv1d(F.pad(x, (0, 1)), kernel(2)), [Fraction(1)]),
]


@pytest.mark.parametrize(("forward", "apart"), MERGES)
def test_merges_by_hand(forward: Any, apart: list[Fraction | None]) -> None:
    _, phases = phases_of(net(forward), torch.rand(1, 1, 32, dtype=torch.float64))
    assert [m.apart for m in phases.misaligned] == apart


def test_what_has_no_place_has_no_phase() -> None:
    for forward, ends in (
        (lambda x: F.conv1d(x, kernel(3)).flip(-1), False),
        (lambda x: F.conv1d(x, kernel(3))[..., :1].expand(-1, -1, 5) * 2, True),
        (lambda x: F.interpolate(x, 1, mode="linear", align_corners=True) * 2, True),
    ):
        layout, phases = phases_of(net(forward), torch.rand(1, 1, 32, dtype=torch.float64))
        (node,) = layout.outputs
        assert phases.of(node, 2) is None
        assert ((node, 2) in phases.ends) == ends
        assert not ends or phases.ends[node, 2] is not node


def enlarge(x: Tensor, mode: str) -> Tensor:
    fine = F.conv1d(x, kernel(3), None, 2, 1)
    return fine + F.interpolate(F.conv1d(fine, kernel(3), None, 2, 1), fine.shape[2:], mode=mode)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area"])
@pytest.mark.parametrize("size", [64, 60, 58, 65])
def test_other_resizes_are_reported_where_linear_ones_are(mode: str, size: int) -> None:
    """Sizes that are no exact multiples, too; and in the same place on average, but for nearest, which rounds down."""
    found: list[Any] = []
    for name in (mode, "linear"):
        _, phases = phases_of(net(lambda x, name=name: enlarge(x, name)), torch.rand(1, 1, size, dtype=torch.float64))
        found.append(phases.misaligned)
    ((one,), (linear,)) = found
    assert one.apart == linear.apart
    assert (one.phases == linear.phases) == (mode != "nearest" or size in (64, 60))


def test_resizes_that_undo_what_they_should_are_quiet() -> None:
    """A pyramid of pools (bins that overlap) taken back to its size, and a roll that is rolled back."""
    for forward in (
        lambda x: x + F.interpolate(F.adaptive_avg_pool1d(x, 6), x.shape[2:], mode="linear"),
        lambda x: x + F.interpolate(F.adaptive_avg_pool1d(x, 6), x.shape[2:], mode="area"),
        lambda x: F.conv1d(x, kernel(3), None, 1, 1) + F.conv1d(x.roll(3, -1), kernel(3), None, 1, 1).roll(-3, -1),
        lambda x: F.conv1d(x, kernel(1), None, 1) + F.interpolate(F.max_pool1d(x, 2), scale_factor=2),
    ):
        _, phases = phases_of(net(forward), torch.rand(1, 1, 32, dtype=torch.float64))
        assert not phases.misaligned


def test_centred_is_zero_where_nothing_is_shifted() -> None:
    """Patches of 4 tile the input; a kernel of 4 with stride 4 and one pixel of padding is off by one."""
    for pad, wanted in ((0, Fraction(0)), (1, Fraction(-1))):
        layout, phases = phases_of(
            net(lambda x, pad=pad: F.conv1d(x, kernel(4), None, 4, pad)), torch.rand(1, 1, 32, dtype=torch.float64)
        )
        found = phases.of(layout.outputs[0], 2)
        assert found is not None
        assert found.centred == wanted
