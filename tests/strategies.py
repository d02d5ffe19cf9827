"""Hypothesis strategies of the whole suite. New features join this file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ConvSpec:
    """One convolution call: its window, channels and input, small enough to brute-force."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int
    in_channels: int
    out_channels: int
    bias: bool
    dtype: torch.dtype
    batch: int
    size: tuple[int, ...]
    seed: int

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def terms(self) -> int:
        """Products that are added up for one output."""
        return self.in_channels // self.groups * torch.Size(self.kernel).numel()

    @property
    def numbers(self) -> dict[str, object]:
        """The arguments that both ``partial_conv`` and ``naive_conv`` take."""
        names = ("stride", "dilation", "padding", "groups")
        return {name: getattr(self, name) for name in names}

    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias: normal random numbers, rounded to the dtype."""
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype)

        x = draw(self.batch, self.in_channels, *self.size)
        weight = draw(self.out_channels, self.in_channels // self.groups, *self.kernel)
        return x, weight, draw(self.out_channels) if self.bias else None


@st.composite
def windows_1d(draw: st.DrawFn, max_kernel: int = 5) -> tuple[int, int, int, tuple[int, int], int]:
    """(kernel, stride, dilation, (lo, hi), size) of one axis with some output; padding may be huge."""
    kernel = draw(st.integers(1, max_kernel))
    stride = draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 3))
    span = dilation * (kernel - 1) + 1
    modest = st.integers(0, max(1, span // 2))
    lo, hi = draw(st.tuples(modest, modest) | st.tuples(st.integers(0, span + 2), st.integers(0, span + 2)))
    least = max(1, span - lo - hi)
    return kernel, stride, dilation, (lo, hi), draw(st.integers(least, least + 5))


@st.composite
def conv_specs(
    draw: st.DrawFn,
    ranks: Sequence[int] = (1, 2, 3),
    dtypes: Sequence[torch.dtype] = DTYPES,
) -> ConvSpec:
    """Convolutions of rank 1 to 3: odd and even kernels, strides, dilations, asymmetric padding, groups."""
    rank = draw(st.sampled_from(ranks))
    axes = [draw(windows_1d(max_kernel={1: 7, 2: 5, 3: 3}[rank])) for _ in range(rank)]
    kernel, stride, dilation, padding, size = zip(*axes)
    groups = draw(st.integers(1, 3))
    return ConvSpec(
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        in_channels=groups * draw(st.integers(1, 3)),
        out_channels=groups * draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from(dtypes)),
        batch=draw(st.integers(1, 3)),
        size=size,
        seed=draw(st.integers(0, 2**31)),
    )


@dataclass(frozen=True)
class LayerSpec:
    """One convolution of a `NetSpec`; with ``functional`` the net calls ``F.convNd`` with its parameters."""

    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int
    bias: bool
    mode: str
    functional: bool

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel

    def output(self, shape: tuple[int, ...], explicit: Pairs = ()) -> tuple[int, ...] | None:
        """(channels, sizes) of the result for an input of (channels, sizes); None if it cannot be called."""
        channels, *sizes = shape
        if channels != self.in_channels:
            return None
        found = [self.out_channels]
        for axis, n in enumerate(sizes):
            n += sum(explicit[axis]) if explicit else 0
            pad, span = self.padding[axis], self.dilation[axis] * (self.kernel[axis] - 1) + 1
            if (self.mode == "reflect" and pad >= n) or (self.mode == "circular" and pad > n):
                return None
            found.append((n + 2 * pad - span) // self.stride[axis] + 1)
        return tuple(found) if min(found) > 0 else None


@dataclass(frozen=True)
class Step:
    """One value of a `NetSpec`, made from earlier values; value 0 is the input."""

    kind: str
    """relu, max_pool, avg_pool, add, cat or conv."""
    reads: tuple[int, ...]
    layer: int = -1
    """Of a convolution: which one."""
    explicit: Pairs = ()
    """Zero padding by ``F.pad`` before a convolution, (lo, hi) per axis."""


@dataclass(frozen=True)
class NetSpec:
    """A small network of convolutions, pools, skips and branches; some layers are called more than once."""

    shape: tuple[int, ...]
    """Channels and sizes of the input."""
    batch: int
    layers: tuple[LayerSpec, ...]
    steps: tuple[Step, ...]
    seed: int

    @property
    def rank(self) -> int:
        return len(self.shape) - 1

    @property
    def calls(self) -> list[Step]:
        """The convolution calls in execution order."""
        return [step for step in self.steps if step.kind == "conv"]

    def build(self) -> Net:
        torch.manual_seed(self.seed)
        return Net(self).double()

    def draw_input(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.batch, *self.shape, generator=generator, dtype=torch.float64)

    def run(self, x: Tensor, conv: Callable[[Step, Tensor], Tensor]) -> tuple[Tensor, ...]:
        """Every value that nothing reads; ``conv`` makes the convolutions, their explicit pads included."""
        values = [x]
        for step in self.steps:
            read = [values[i] for i in step.reads]
            is_conv = step.kind == "conv"
            values.append(conv(step, read[0]) if is_conv else _compute(step.kind, read, self.rank))
        unread = set(range(len(values))) - {i for step in self.steps for i in step.reads}
        return tuple(values[i] for i in sorted(unread))


class Net(nn.Module):
    """The module of a `NetSpec`."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(_module(layer, spec.rank) for layer in spec.layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.spec.run(x, self.convolve)

    def convolve(self, step: Step, x: Tensor) -> Tensor:
        if step.explicit:
            x = F.pad(x, [side for pair in reversed(step.explicit) for side in pair])
        layer, module = self.spec.layers[step.layer], self.layers[step.layer]
        if not layer.functional:
            return module(x)
        numbers = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return getattr(F, f"conv{self.spec.rank}d")(x, module.weight, module.bias, *numbers)


def _module(layer: LayerSpec, rank: int) -> nn.Module:
    kind = getattr(nn, f"Conv{rank}d")
    window = (layer.kernel, layer.stride, layer.padding, layer.dilation)
    return kind(layer.in_channels, layer.out_channels, *window, layer.groups, layer.bias, layer.mode)


def _compute(kind: str, read: list[Tensor], rank: int) -> Tensor:
    if kind == "relu":
        return read[0].relu()
    if kind in ("max_pool", "avg_pool"):
        return getattr(F, f"{kind}{rank}d")(read[0], 2)
    return read[0] + read[1] if kind == "add" else torch.cat(read, 1)


@st.composite
def nets(draw: st.DrawFn, ranks: Sequence[int] = (1, 2, 3), padded: bool = True) -> NetSpec:
    """Small acyclic networks. Without ``padded``: no explicit pads, and no padding mode but zeros."""
    rank = draw(st.sampled_from(ranks))
    shape = (draw(st.integers(1, 4)), *(draw(st.integers(4, 9)) for _ in range(rank)))
    shapes, layers, steps = [shape], [], []
    for _ in range(draw(st.integers(2, 7))):
        step, output = draw(_steps(shapes, layers, padded))
        steps.append(step)
        shapes.append(output)
    if not layers:
        step, output = draw(_convolutions(shapes, layers, padded))
        steps.append(step)
    return NetSpec(shape, draw(st.integers(1, 2)), tuple(layers), tuple(steps), draw(st.integers(0, 2**31)))


def _values(shapes: list[tuple[int, ...]]) -> st.SearchStrategy[int]:
    """The last value half of the time: chains are as likely as branches."""
    return st.just(len(shapes) - 1) | st.integers(0, len(shapes) - 1)


@st.composite
def _steps(
    draw: st.DrawFn, shapes: list[tuple[int, ...]], layers: list[LayerSpec], padded: bool
) -> tuple[Step, tuple[int, ...]]:
    kind = draw(st.sampled_from((*["conv"] * 5, "relu", "max_pool", "avg_pool", "add", "cat")))
    read = draw(_values(shapes))
    channels, *sizes = shapes[read]
    if kind == "relu":
        return Step(kind, (read,)), shapes[read]
    if kind in ("max_pool", "avg_pool") and min(sizes) > 1:
        return Step(kind, (read,)), (channels, *(n // 2 for n in sizes))
    if kind in ("add", "cat"):
        fits = [i for i, s in enumerate(shapes) if s[1:] == tuple(sizes)]
        fits = [i for i in fits if kind == "cat" or shapes[i][0] == channels]
        other = draw(st.sampled_from(fits))
        joined = channels if kind == "add" else channels + shapes[other][0]
        return Step(kind, (read, other)), (joined, *sizes)
    return draw(_convolutions(shapes, layers, padded))


@st.composite
def _convolutions(
    draw: st.DrawFn, shapes: list[tuple[int, ...]], layers: list[LayerSpec], padded: bool
) -> tuple[Step, tuple[int, ...]]:
    """A call of a layer that is there, or of a new one, which joins ``layers``."""
    read = draw(_values(shapes))
    rank = len(shapes[read]) - 1
    explicit: Pairs = ()
    if padded and draw(st.integers(0, 3)) == 0:
        explicit = draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * rank))
    explicit = explicit if any(map(any, explicit)) else ()
    fits = [i for i, old in enumerate(layers) if old.mode == "zeros" or not explicit]
    fits = [i for i in fits if layers[i].output(shapes[read], explicit) is not None]
    if fits and draw(st.booleans()):
        layer = draw(st.sampled_from(fits))
    else:
        layer = len(layers)
        layers.append(draw(_layers(shapes[read], padded and not explicit)))
    output = layers[layer].output(shapes[read], explicit)
    assert output is not None
    return Step("conv", (read,), layer, explicit), output


@st.composite
def _layers(draw: st.DrawFn, shape: tuple[int, ...], any_mode: bool) -> LayerSpec:
    """A convolution that accepts an input of (channels, sizes)."""
    channels, *sizes = shape
    functional = draw(st.integers(0, 3)) == 0
    mode = "zeros"
    if any_mode and not functional:
        mode = draw(st.sampled_from(("zeros", "zeros", "reflect", "replicate", "circular")))
    axes: list[tuple[int, int, int, int]] = []
    for n in sizes:
        padding = draw(st.integers(0, 2 if mode == "zeros" else min(2, n - 1)))
        dilation = draw(st.integers(1, 2))
        kernel = draw(st.integers(1, min(4, (n + 2 * padding - 1) // dilation + 1)))
        axes.append((kernel, draw(st.integers(1, 2)), dilation, padding))
    kernel, stride, dilation, padding = zip(*axes)
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    out = groups * draw(st.integers(1, 2))
    return LayerSpec(
        channels, out, kernel, stride, dilation, padding, groups, draw(st.booleans()), mode, functional
    )
