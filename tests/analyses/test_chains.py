"""Dilated chains: which convolutions belong to one, found by dataflow, and how each covers what it spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from chain_nets import Backwards, Pyramid, conv, plain, resnet101_at_8
from formulas.supports import is_contiguous, support
from hypothesis import given, settings
from strategies import Convolve, NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.analyses.chains import Chain, Gridding, find_chains
from padrewrite.analyses.layout import read_layout
from padrewrite.fuzzing.drawing import KINDS
from padrewrite.fuzzing.networks import Symmetric

X = torch.zeros(1, 3, 12, 14)


def chains_of(model: nn.Module, x: Tensor = X) -> list[Chain]:
    return list(find_chains(read_layout(pr.record(model, example_inputs=x))))


def found(model: nn.Module, x: Tensor = X) -> list[tuple[str, ...]]:
    return [chain.sites for chain in chains_of(model, x)]


# Where a chain begins and ends


@pytest.mark.parametrize(
    ("rates", "lead_in", "chain"),
    [
        ((2, 2, 2), (), (2, 2, 2)),
        ((1, 1, 2, 2, 2), (1, 1), (2, 2, 2)),
        ((1, 1, 1, 2, 3), (1, 1), (1, 2, 3)),
        ((1, 2, 3, 1, 2, 3), (), (1, 2, 3, 1, 2, 3)),
        ((1, 1, 2, 2, 4, 4, 2, 2, 1, 1), (1, 1), (2, 2, 4, 4, 2, 2, 1, 1)),
        ((1, 2, 2, 4, 1, 1), (1,), (2, 2, 4)),
        ((1, 4, 1), (), (1, 4)),
        ((2,), None, None),
        ((2, 1), None, None),
        ((1, 1), None, None),
    ],
)
def test_extent(rates: tuple[int, ...], lead_in: tuple[int, ...] | None, chain: tuple[int, ...] | None) -> None:
    chains = chains_of(plain(*rates))
    if chain is None or lead_in is None:
        assert not chains
        return
    (one,) = chains
    assert (one.rates, one.axes) == (chain, (0, 1))
    assert one.sites == tuple(str(len(lead_in) + i) for i in range(len(chain)))
    assert one.lead_in == tuple(map(str, range(len(lead_in))))
    assert one.with_lead_in.rates == (*lead_in, *chain)


@pytest.mark.parametrize(
    "between",
    [
        nn.ReLU(),
        nn.BatchNorm2d(3),
        nn.Dropout(),
        nn.Conv2d(3, 3, 1),
        nn.Identity(),
        nn.GroupNorm(1, 3),
    ],
    ids=lambda m: type(m).__name__,
)
def test_what_does_not_move_is_no_break(between: nn.Module) -> None:
    model = nn.Sequential(conv(2), between, conv(2)).eval()
    assert found(model) == [("0", "2")]


@pytest.mark.parametrize(
    "between",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.Conv2d(3, 3, 1, stride=2),
        nn.Conv2d(3, 3, 3, stride=2, padding=1),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(3, 3, 2, stride=2),
    ],
    ids=lambda m: type(m).__name__,
)
def test_another_window_or_resolution_is_a_break(between: nn.Module) -> None:
    assert found(nn.Sequential(conv(2), between, conv(2))) == []
    assert found(nn.Sequential(plain(2, 2), between, plain(2, 4))) == [("0.0", "0.1"), ("2.0", "2.1")]


# Branches and merges


class Residual(nn.Module):
    """Two convolutions, and the identity or a layer beside them."""

    def __init__(self, beside: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second, self.beside = conv(2), conv(2), beside or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.beside(x) + self.second(self.first(x)))


class Dense(nn.Module):
    """Each convolution reads all results before it."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 * i, 3, 3, padding=2, dilation=2) for i in (1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convs:
            x = torch.cat([x, layer(x)], 1)
        return x


class Gated(nn.Module):
    """Squeeze and excite: the gate sees everything, and moves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.gate = conv(2), conv(2), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid())


class Encoder(nn.Module):
    """A U-Net of one level: dilated convolutions above and below."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.below, self.up = plain(2, 2), plain(2, 4), nn.Conv2d(6, 3, 3, padding=2, dilation=2)
        self.last = conv(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        y = F.interpolate(self.below(F.max_pool2d(x, 2)), scale_factor=2)
        return self.last(self.up(torch.cat([x, y], 1)))


class Auxiliary(nn.Module):
    """A head of its own on the way; with ``meet`` its result is added at the end."""

    def __init__(self, meet: bool) -> None:
        super().__init__()
        self.first, self.second, self.head, self.meet = conv(2), conv(2), conv(2), meet

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.first(x)
        out, head = self.second(x), self.head(x)
        return out + head if self.meet else (out, head)


def test_residual_branches_belong_to_the_chain() -> None:
    assert found(nn.Sequential(Residual(), Residual())) == [("0.first", "0.second", "1.first", "1.second")]
    assert found(nn.Sequential(Residual(nn.Conv2d(3, 3, 1)), conv(2))) == [("0.first", "0.second", "1")]


def test_a_window_beside_others_is_a_parallel_branch() -> None:
    """Two paths with windows of their own: what they reach together is no sum of sets."""
    assert found(nn.Sequential(conv(2), Residual(conv(1)), plain(2, 2))) == [("1.first", "1.second"), ("2.0", "2.1")]


def test_dense_connections_are_a_chain() -> None:
    assert found(Dense()) == [("convs.0", "convs.1", "convs.2")]


def test_a_gate_is_no_branch() -> None:
    assert found(Gated()) == [("first", "second")]


def test_pyramids_are_no_chain() -> None:
    assert found(Pyramid(2, 4, 6)) == []
    assert found(nn.Sequential(plain(2, 2), Pyramid(2, 2), plain(2, 2))) == [("0.0", "0.1"), ("2.0", "2.1")]


def test_skips_of_a_u_net_end_its_chains() -> None:
    assert found(Encoder()) == [("down.0", "down.1"), ("below.0", "below.1"), ("up", "last")]


@pytest.mark.parametrize(("meet", "chains"), [(False, [("first", "second")]), (True, [])])
def test_auxiliary_heads(meet: bool, chains: list[tuple[str, ...]]) -> None:
    assert found(Auxiliary(meet)) == chains


def test_order_of_execution_counts_and_functions_take_part() -> None:
    assert found(Backwards()) == [("first", "#conv2d.0", "last")]
    one = conv(2)
    assert found(nn.Sequential(one, one, one)) == [("0", "0@1", "0@2")]


# Axes and kernels


def test_axes_with_other_rates_are_other_chains() -> None:
    layers = [nn.Conv2d(3, 3, 3, padding="same", dilation=d) for d in ((2, 1), (2, 1), (2, 3), (2, 3))]
    (height, width) = chains_of(nn.Sequential(*layers))
    assert (height.axes, height.rates, height.sites) == ((0,), (2, 2, 2, 2), ("0", "1", "2", "3"))
    assert (width.axes, width.rates, width.lead_in) == ((1,), (3, 3), ("0", "1"))


def test_kernels_of_one_tap_along_an_axis_are_left_out_there() -> None:
    layers = [nn.Conv3d(3, 3, k, padding="same", dilation=2) for k in ((3, 1, 3), (3, 3, 1), (1, 3, 3))]
    first, second, third = chains_of(nn.Sequential(*layers), torch.zeros(1, 3, 6, 7, 8))
    assert [c.axes for c in (first, second, third)] == [(0,), (1,), (2,)]
    assert [c.sites for c in (first, second, third)] == [("0", "1"), ("1", "2"), ("0", "2")]


def test_kernels_may_differ() -> None:
    (one,) = chains_of(nn.Sequential(conv(2, kernel=5), conv(4), conv(1, kernel=7), conv(4)))
    assert one.alone.kernels == (5, 3, 7, 3)
    assert one.hole_free == is_contiguous(support(one.rates, one.alone.kernels))


# Numbers


@pytest.mark.parametrize(
    ("rates", "m2", "hole_free", "score", "networks"),
    [
        ((2, 2, 2), 2, False, 1.0, 2),
        ((1, 2, 3), 2, True, 1 / 9, 1),
        ((1, 2, 4), 2, True, 1 / 3, 1),
        ((1, 2, 5), 2, True, None, 1),
        ((1, 2, 9), 5, False, 0.379, 1),
        ((1, 3, 8), 3, True, 0.15, 1),
        ((3, 6, 9), 6, False, 1.0, 3),
    ],
)
def test_gridding_of_known_chains(
    rates: tuple[int, ...], m2: int, hole_free: bool, score: float | None, networks: int
) -> None:
    (one,) = chains_of(plain(*rates))
    assert (one.m2, one.hole_free, one.alone.networks) == (m2, hole_free, networks)
    assert score is None or one.gridding_score == pytest.approx(score, abs=5e-3)  # known to two or three digits
    assert one.alone == Gridding.of(rates, [3] * len(rates))
    assert hole_free == is_contiguous(support(rates, [3] * len(rates)))


def test_two_hundred_layers() -> None:
    rates = [2] * 120 + [4] * 80
    model, x = plain(*rates, rank=1), torch.zeros(1, 3, 9)
    (one,) = chains_of(model, x)
    assert one.rates == tuple(rates)
    assert (one.hole_free, one.gridding_score, one.alone.networks) == (False, 1.0, 2)
    plan = pr.plan(model, ["hybrid-dilation"], example_inputs=x)
    new = [d.after["dilation"][0] for d in plan.decisions]
    assert sum(new) == sum(rates)
    assert is_contiguous(support(new, [3] * 200))
    assert all(is_contiguous(support(new[i : i + 3], [3] * 3)) for i in range(0, 198, 3))


# Any network

FOLLOWED = tuple(kind for kind in KINDS if kind not in ("global_pool", "adaptive_pool"))


@settings(max_examples=max(5, settings.default.max_examples // 2))
@given(nets(kinds=FOLLOWED))
def test_no_parallel_branch_is_ever_in_a_chain(spec: NetSpec) -> None:
    """Read off the specification: whatever window a convolution depends on, the one before it in the chain does too."""
    spec = replace(spec, batch=1)
    graph = pr.record(spec.build(), example_inputs=spec.draw_input())
    values = [value for value, step in enumerate(spec.steps, 1) if isinstance(step, (Convolve, Symmetric))]
    made_by = dict(zip([s.id for s in graph.convs() if s.op.spec()["transposed"] is False], values, strict=True))
    flow: nx.DiGraph[int] = nx.DiGraph((read, v) for v, step in enumerate(spec.steps, 1) for read in step.reads)
    for chain in find_chains(read_layout(graph)):
        run = [made_by[site] for site in (*chain.lead_in, *chain.sites)]
        for before, after in pairwise(run):
            windows = nx.ancestors(flow, after) & wide(spec, chain.axes[0])
            assert before in windows
            assert windows - {before} <= nx.ancestors(flow, before)


def wide(spec: NetSpec, axis: int) -> set[int]:
    """Values made by convolutions of more than one tap along an axis."""
    steps = [(value, step) for value, step in enumerate(spec.steps, 1) if isinstance(step, (Convolve, Symmetric))]
    return {value for value, step in steps if spec.layers[step.layer].kernel[axis] > 1}


# Real networks


def test_resnet_101_at_output_stride_8() -> None:
    (one,) = chains_of(resnet101_at_8().eval(), torch.zeros(1, 3, 16, 24))
    assert one.sites == tuple(f"{i}.conv" for i in range(1, 27))
    assert one.rates == (2,) * 23 + (4,) * 3
    assert (one.lead_in, one.hole_free, one.alone.networks) == ((), False, 2)


def rates(text: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(rate for rate, times in text for _ in range(times))


@pytest.mark.zoo
def test_deeplab() -> None:
    """By itself it grids; the convolutions of rate 1 that lead into it fill the holes. Its ASPP is no chain."""
    deeplab = pytest.importorskip("pytorchcv.models.deeplabv3")
    model = deeplab.deeplabv3_resnetd50b_voc(pretrained_backbone=False, in_size=(64, 96)).eval()
    (one,) = chains_of(model, torch.zeros(1, 3, 64, 96))
    assert one.rates == rates([(2, 6), (4, 2)])
    assert (one.hole_free, one.gridding_score, one.m2) == (False, 1.0, 2)
    assert one.with_lead_in.rates == rates([(1, 4), (2, 6), (4, 2)])
    assert one.with_lead_in.hole_free
    assert one.with_lead_in.score == pytest.approx(1 / 81)


@pytest.mark.zoo
def test_erfnet() -> None:
    """3x1 and 1x3 kernels in turn: a chain along each axis."""
    erfnet = pytest.importorskip("pytorchcv.models.erfnet")
    stage = erfnet.erfnet_cityscapes().encoder.stage3.eval()
    height, width = chains_of(stage, torch.zeros(1, 64, 12, 14))
    assert (height.axes, width.axes) == ((0,), (1,))
    assert height.rates == width.rates == (1, 2, 1, 4, 1, 8, 1, 16) * 2
    assert height.hole_free
    assert not set(height.sites) & set(width.sites)


@pytest.mark.zoo
def test_highresnet() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    (one,) = chains_of(nets.HighResNet().eval(), torch.zeros(1, 1, 12, 14, 16))
    assert one.axes == (0, 1, 2)
    assert one.rates == rates([(2, 6), (4, 6)])
    assert len(one.lead_in) == 7
    assert (one.hole_free, one.with_lead_in.hole_free) == (False, True)
