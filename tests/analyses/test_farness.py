"""Convolutions that read fields larger than the input: against every path run by itself, and networks without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.analyses.fields import AxisField, SharedFields
from padrewrite.analyses.layout import read_layout

LONG = 4096


@dataclass(frozen=True)
class Window:
    kernel: int
    dilation: int
    before: int
    """Of the padding that keeps the size, how much is before the signal."""
    stride: int = 1

    @property
    def pads(self) -> tuple[int, int]:
        return self.before, self.dilation * (self.kernel - 1) - self.before

    def __call__(self, x: Tensor) -> Tensor:
        ones = torch.ones(1, 1, self.kernel, dtype=x.dtype)
        return F.conv1d(F.pad(x, self.pads), ones, None, self.stride, 0, self.dilation)


Branch = tuple[Window, ...]
Stage = tuple[Branch, ...]
"""Branches that are added."""


class Staged(nn.Module):
    """Stages in a row."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = stages
        self.layers = nn.ModuleList(
            nn.Conv1d(1, 1, w.kernel, w.stride, 0, w.dilation, bias=False) for *_, w in places(stages)
        )

    def forward(self, x: Tensor) -> Tensor:
        layers = iter(self.layers)
        for stage in self.stages:
            branches: list[Tensor] = []
            for branch in stage:
                found = x
                for window in branch:
                    found = next(layers)(F.pad(found, window.pads))
                branches.append(found)
            x = sum(branches[1:], branches[0])
        return x


def places(stages: Sequence[Stage]) -> list[tuple[int, int, int, Window]]:
    """In execution order."""
    return [
        (s, b, w, window)
        for s, stage in enumerate(stages)
        for b, branch in enumerate(stage)
        for w, window in enumerate(branch)
    ]


def span(chain: Branch) -> tuple[int, int]:
    """First and last pixel that the gradient of an output in the middle of a long signal reaches, from its own on."""
    x = torch.zeros(1, 1, LONG, dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        for window in chain:
            x = window(x)
        return x

    out, pull = torch.func.vjp(run, x)
    middle = out.shape[-1] // 2
    one = torch.zeros_like(out)
    one[0, 0, middle] = 1
    reached = pull(one)[0][0, 0].nonzero().flatten().tolist()
    assert 0 < reached[0] <= reached[-1] < LONG - 1
    scale = prod(w.stride for w in chain)
    return reached[0] - scale * middle, reached[-1] - scale * middle


def read_by(stages: Sequence[Stage], s: int, b: int, w: int) -> tuple[int, int]:
    """From the last path to begin to the first to end, of what a window reads."""
    spans = [span((*(w for branch in before for w in branch), *stages[s][b][:w])) for before in product(*stages[:s])]
    return max(lo for lo, _ in spans), min(hi for _, hi in spans)


@st.composite
def stagings(draw: st.DrawFn) -> tuple[Stage, ...]:
    def window(stride: int) -> Window:
        kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        return Window(kernel, dilation, draw(st.integers(0, dilation * (kernel - 1))), stride)

    stages: list[Stage] = []
    for _ in range(draw(st.integers(1, 4))):
        stride, many = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 2]))
        lengths = [draw(st.integers(0 if stride == 1 and many == 2 else 1, 2)) for _ in range(many)]
        stages.append(tuple(tuple(window(stride if w == 0 else 1) for w in range(n)) for n in lengths))
    return tuple(stages)


@settings(max_examples=max(30, settings.default.max_examples))
@given(stagings(), st.integers(4, 40))
def test_every_path_by_itself(stages: tuple[Stage, ...], size: int) -> None:
    model, x = Staged(stages), torch.zeros(1, 1, size)
    graph = pr.record(model, example_inputs=x)
    layout = read_layout(graph)
    fields = SharedFields(layout)
    beyond: dict[str, int] = {}
    for (s, b, w, window), (site, node) in zip(places(stages), layout.sites.items(), strict=True):
        lo, hi = read_by(stages, s, b, w)
        (read,) = layout.steps[node].reads
        field = fields.of(read.node, 2)
        assert field is not None
        assert [*field.spans] == [(Fraction(lo), Fraction(hi))]
        if window.kernel > 1 and hi - lo + 1 > size:
            beyond[site] = hi - lo + 1
    analysis = pr.analyze(model, example_inputs=x)
    found = analysis.of("field-beyond-input")
    assert [f.sites for f in found] == ([tuple(beyond)] if beyond else [])
    for one in found:
        dims = {"dim": 2, "size": size, "least": min(beyond.values()), "most": max(beyond.values())}
        assert (one.site, one.numbers["dims"]) == (next(iter(beyond)), [dims])
        assert all(analysis.sites[site].saw_padding == 1 for site in one.sites)


def odd(kernel: int, stride: int = 1) -> Window:
    return Window(kernel, 1, kernel // 2, stride)


def test_of_centred_paths_it_is_the_smallest() -> None:
    stages = (((odd(7, 2),),), ((odd(3), odd(3)), (odd(5),), (odd(9),)), ((odd(3, 2), odd(5)), (odd(1, 2),)))
    layout = read_layout(pr.record(Staged(stages), example_inputs=torch.zeros(1, 1, 64)))
    field = SharedFields(layout).of(layout.outputs[0], 2)
    assert field is not None
    assert field.size == field.least == 7 + 2 * 4


def plain(strides: Sequence[int], kernel: Any = 3) -> nn.Sequential:
    pad = kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
    return nn.Sequential(*(nn.Conv2d(2, 2, kernel, s, pad, bias=False) for s in strides))


def found_in(model: nn.Module, *inputs: Tensor) -> tuple[pr.Finding, ...]:
    return pr.analyze(model, example_inputs=inputs).of("field-beyond-input")


def test_the_first_window_past_the_border() -> None:
    """Fields read are 1, 3, 7, 15, 31: of 14 pixels the fourth is the first to be exceeded, of 15 the fifth is."""
    for size, sites in ((14, ("3", "4")), (15, ("4",)), (30, ("4",)), (31, ())):
        found = found_in(plain([2] * 5), torch.zeros(1, 2, size, size))
        assert [f.sites for f in found] == ([sites] if sites else [])
    (found,) = found_in(plain([2] * 5), torch.zeros(1, 2, 14, 14))
    assert (found.site, found.severity, found.cure) == ("3", "note", None)
    assert found.numbers == {
        "input": 0,
        "dims": [{"dim": d, "size": 14, "least": 15, "most": 31} for d in (2, 3)],
        "beyond": 2,
        "convolutions": 5,
        "parameters": 72,
        "share": 0.4,
    }
    assert found.message == (
        "2 of 5 convolutions with a window (40% of all convolution parameters) read values whose receptive fields "
        "exceed the input by every path (15 to 31 px of 14 along input dimensions 2 and 3): made wider, each gains "
        "only padding at one end or both"
    )


def test_axes_are_told_apart() -> None:
    (found,) = found_in(plain([1] * 4), torch.zeros(1, 2, 4, 6))
    assert found.sites == ("2", "3")
    assert "(5 to 7 px of 4 along input dimension 2, 7 px of 6 along input dimension 3)" in found.message
    (found,) = found_in(plain([1] * 4, (3, 1)), torch.zeros(1, 2, 6, 1))
    assert found.sites == ("3",)
    assert "1 of 4 convolutions with a window (25% of all convolution parameters) reads values" in found.message
    assert "(7 px of 6 along input dimension 2)" in found.message
    flat = nn.Conv2d(2, 2, (3, 1), padding=(1, 0))
    (found,) = found_in(nn.Sequential(*plain([1] * 3), flat), torch.zeros(1, 2, 16, 4))
    assert found.sites == ("2",)


class Net(nn.Module):
    """Two layers of three channels, used by a function."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.run = forward
        self.a, self.b = nn.Conv1d(3, 3, 5, padding=2), nn.Conv1d(3, 3, 5, padding=2)
        self.point = nn.Conv1d(3, 3, 1)
        self.up = nn.ConvTranspose1d(3, 3, 4, 2, 1)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def signal(size: int) -> Tensor:
    return torch.zeros(1, 3, size)


def test_a_layer_that_is_called_twice_counts_once() -> None:
    net = Net(lambda net, x: net.a(net.a(net.a(net.point(x)))))
    (found,) = found_in(net, signal(4))
    assert found.sites == ("a@1", "a@2")
    assert (found.numbers["beyond"], found.numbers["convolutions"]) == (2, 3)
    assert found.numbers["parameters"] == 48
    assert found.numbers["share"] == round(48 / (48 + 12), 6)


def test_each_input_by_itself() -> None:
    net = Net(lambda net, x, y: (net.b(net.a(x)), net.a(net.b(net.b(y)))))
    short, long = found_in(net, signal(4), signal(8))
    assert (short.numbers["input"], short.sites) == (0, ("b",))
    assert "(5 px of 4 along input dimension 2)" in short.message
    assert (long.numbers["input"], long.sites) == (1, ("a@1",))
    assert "(9 px of 8 along input dimension 2 of input 1)" in long.message


def test_inputs_that_meet() -> None:
    """A second input is a path if windows slide over it; else it stands where it is, as a mask does."""
    inputs = signal(6), signal(6)
    assert not found_in(Net(lambda net, x, y: net.b(net.a(net.a(x)) + net.a(y))), *inputs)
    (found,) = found_in(Net(lambda net, x, y: net.b(net.a(net.a(x)) * y)), *inputs)
    assert found.sites == ("b",)


def causal(net: Net, x: Tensor) -> Tensor:
    for _ in range(3):
        x = F.conv1d(F.pad(x, (4, 0)), net.a.weight)
    return x


def test_causal_signals() -> None:
    (found,) = found_in(Net(causal), signal(6))
    assert found.numbers["dims"] == [{"dim": 2, "size": 6, "least": 9, "most": 9}]


QUIET: dict[str, Callable[..., Any]] = {
    "an identity": lambda net, x: net.b(x + net.a(net.a(x))),
    "a skip to the end": lambda net, x: net.b(torch.cat([x, net.a(net.a(x))], 1)[:, :3]),
    "a gate": lambda net, x: net.b(x * net.a(net.point(x)).mean(-1, keepdim=True)),
    "behind an upsampling": lambda net, x: net.a(net.up(net.a(net.a(x)))),
    "an upsampling beside": lambda net, x: net.a(F.interpolate(net.a(net.a(x)), scale_factor=2.0).narrow(2, 0, 6)),
    "points": lambda net, x: net.point(net.point(net.a(net.a(x)))),
    "not followed": lambda net, x: net.b(net.a(net.a(x)).flip(-1)),
    "a global pool": lambda net, x: net.b(net.a(net.a(x)).mean(-1, keepdim=True)),
    "no padding": lambda net, x: F.conv1d(F.conv1d(x, net.a.weight), net.b.weight[..., :2]),
    "transposed": lambda net, x: F.conv_transpose1d(net.a(net.a(x)), net.b.weight, padding=2),
}


def test_a_row_of_windows_exceeds_the_signal() -> None:
    """With which the following cases have nothing to do, for a reason each."""
    (found,) = found_in(Net(lambda net, x: net.b(net.a(net.a(x)))), signal(6))
    assert found.sites == ("b",)


@pytest.mark.parametrize("case", QUIET)
def test_nothing_is_said_of(case: str) -> None:
    assert not found_in(Net(QUIET[case]), signal(6))


def test_nothing_is_said_without_sizes() -> None:
    assert not pr.analyze(plain([2] * 5)).of("field-beyond-input")


def test_upsamplings_end_what_all_paths_share() -> None:
    net = Net(lambda net, x: net.up(F.avg_pool1d(net.a(x), 2)))
    layout = read_layout(pr.record(net, example_inputs=signal(8)))
    pool, up = (node for node, step in layout.steps.items() if step.kind in ("pool", "transposed-conv"))
    fields = SharedFields(layout)
    assert fields.of(pool, 2) == AxisField(Fraction(2), ((Fraction(-2), Fraction(3)),))
    assert fields.of(up, 2) is None
