"""Networks with dilated chains in them, made by hand: plain, residual, dense; in any order; with parallel branches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn


def conv(rate: int, kernel: int = 3, rank: int = 2, channels: int = 3, **options: object) -> nn.Module:
    """One that keeps the size of the map; an odd padding in all is "same", which puts one more at the end."""
    both = rate * (kernel - 1)
    padding = "same" if both % 2 else both // 2
    return getattr(nn, f"Conv{rank}d")(channels, channels, kernel, padding=padding, dilation=rate, **options)


def plain(*rates: int, kernel: int = 3, rank: int = 2, **options: object) -> nn.Sequential:
    """3 channels, no ReLUs."""
    return nn.Sequential(*(conv(rate, kernel, rank, **options) for rate in rates))


def rates_of(model: nn.Module) -> list[int]:
    """Rate along the last axis of every convolution with a window, in the order of the modules."""
    convs = [m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    return [m.dilation[-1] for m in convs if max(m.kernel_size) > 1]


class Bottleneck(nn.Module):
    """1x1, 3x3 at a rate, 1x1, and the identity."""

    def __init__(self, rate: int, channels: int = 2) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)
        self.norm, self.conv = nn.BatchNorm2d(2), conv(rate, channels=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.expand(F.relu(self.norm(self.conv(F.relu(self.reduce(x)))))))


def resnet101_at_8() -> nn.Sequential:
    """Stride 8, then the 3x3 convolutions of the last two stages of ResNet-101: 23 of rate 2, 3 of rate 4."""
    stem = nn.Conv2d(3, 2, 8, stride=8)
    return nn.Sequential(stem, *(Bottleneck(rate) for rate in [2] * 23 + [4] * 3))


class Backwards(nn.Module):
    """Registers its convolutions last first, and calls the middle one as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = conv(2), conv(2)
        self.weight = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.relu(self.first(x)), self.weight, padding=2, dilation=2)
        return self.last(x.relu())


class Pyramid(nn.Module):
    """ASPP: parallel branches at rates of their own behind a convolution."""

    def __init__(self, *rates: int) -> None:
        super().__init__()
        self.before = conv(1)
        self.branches = nn.ModuleList(conv(rate) for rate in rates)
        self.after = nn.Conv2d(3 * len(rates), 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(torch.cat([branch(x) for branch in self.branches], 1))


@dataclass(frozen=True)
class ChainSpec:
    """A network whose convolutions all follow each other, drawn at random."""

    rank: int
    kernel: int
    rates: tuple[int, ...]
    before: int
    """Taps before the middle of the output: 0 .. kernel - 1; kernel - 1 is causal."""
    wiring: str
    """plain, residual or dense."""
    group: int

    def build(self) -> Wired:
        return Wired(self)

    def pads(self, rate: int) -> tuple[int, int]:
        return rate * self.before, rate * (self.kernel - 1 - self.before)


class Wired(nn.Module):
    """The network of a ``ChainSpec``: 2 channels in and out, explicit pads where both sides differ."""

    def __init__(self, spec: ChainSpec) -> None:
        super().__init__()
        self.spec = spec
        layer = getattr(nn, f"Conv{spec.rank}d")
        widths = [2 + 2 * i if spec.wiring == "dense" else 2 for i in range(len(spec.rates))]
        self.even = spec.kernel - 1 == 2 * spec.before
        self.convs = nn.ModuleList(
            layer(width, 2, spec.kernel, padding=rate * spec.before if self.even else 0, dilation=rate)
            for width, rate in zip(widths, spec.rates)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer, rate in zip(self.convs, self.spec.rates):
            new = layer(x if self.even else F.pad(x, self.spec.pads(rate) * self.spec.rank))
            if self.spec.wiring == "residual":
                new = x + new
            x = torch.cat([x, new], 1) if self.spec.wiring == "dense" else new
        return x


@st.composite
def chain_specs(draw: st.DrawFn) -> ChainSpec:
    kernel = draw(st.integers(2, 5))
    stages = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=3))
    return ChainSpec(
        rank=draw(st.integers(1, 3)),
        kernel=kernel,
        rates=tuple(rate for rate, length in stages for _ in range(length)),
        before=draw(st.integers(0, kernel - 1)),
        wiring=draw(st.sampled_from(["plain", "residual", "dense"])),
        group=draw(st.sampled_from([3, 3, 2, 4, 1])),
    )


def reach(model: nn.Module, spec: ChainSpec) -> list[bool]:
    """Which positions along the last axis one output reads, from the first to the last of them, by gradient.

    ``model`` has weights of 1 and no biases, in float64, so that nothing cancels. The map is one pixel thin on the
    other axes. No rewrite has a larger field than the original.
    """
    span = 2 * (spec.kernel - 1) * sum(spec.rates) + 1
    x = torch.zeros(1, 2, *(1,) * (spec.rank - 1), span, dtype=torch.float64, requires_grad=True)
    middle = model(x)[..., span // 2]
    (gradient,) = torch.autograd.grad(middle.sum(), x)
    read = gradient.sum(1).flatten() > 0
    first, last = int(read.nonzero()[0]), int(read.nonzero()[-1])
    return read[first : last + 1].tolist()
