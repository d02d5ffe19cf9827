"""Layers of a random network: what they are made with, which inputs they take, and the modules they become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from padrewrite.fuzzing.text import Described
from padrewrite.nn.symmetric import SymmetricConv1d, SymmetricConv2d, SymmetricConv3d
from padrewrite.ops.directions import even_axes

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
Shape = tuple[int, ...]
"""Channels and sizes of a value; the batch is everywhere the same."""

MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True, repr=False)
class LayerSpec(Described):
    """One convolution; with ``functional`` the net calls ``F.convNd`` with its parameters."""

    in_channels: int
    out_channels: int
    kernel: Ints
    stride: Ints = ()
    dilation: Ints = ()
    padding: Ints | str = ()
    """Per axis, the same on both sides; or "same" or "valid"."""
    groups: int = 1
    bias: bool = True
    mode: str = "zeros"
    functional: bool = False

    def __post_init__(self) -> None:
        _fill(self, stride=1, dilation=1, padding=0)

    @property
    def weight_shape(self) -> Ints:
        return self.out_channels, self.in_channels // self.groups, *self.kernel

    @property
    def pads(self) -> Pairs:
        """Padding per axis, (lo, hi); "same" pads the odd pixel after."""
        if self.padding == "same":
            totals = [d * (k - 1) for k, d in zip(self.kernel, self.dilation)]
            return tuple((total // 2, total - total // 2) for total in totals)
        if isinstance(self.padding, str):
            return ((0, 0),) * len(self.kernel)
        return tuple((p, p) for p in self.padding)

    def output(self, shape: Shape, explicit: Pairs = ()) -> Shape | None:
        """The result's shape for an input behind zero padding ``explicit``; None if it cannot be called."""
        channels, *sizes = shape
        if channels != self.in_channels:
            return None
        found = [self.out_channels]
        for axis, n in enumerate(sizes):
            n += sum(explicit[axis]) if explicit else 0
            lo, hi = self.pads[axis]
            if max(lo, hi) > reach(self.mode, n):
                return None
            found.append((n + lo + hi - self.dilation[axis] * (self.kernel[axis] - 1) - 1) // self.stride[axis] + 1)
        return tuple(found) if min(found) > 0 else None

    def module(self) -> nn.Module:
        kind: Any = getattr(nn, f"Conv{len(self.kernel)}d")
        window = (self.kernel, self.stride, self.padding, self.dilation)
        return kind(self.in_channels, self.out_channels, *window, self.groups, self.bias, self.mode)


@dataclass(frozen=True, repr=False)
class TransposedSpec(Described):
    """One transposed convolution; with ``functional`` the net calls ``F.conv_transposeNd``."""

    in_channels: int
    out_channels: int
    kernel: Ints
    stride: Ints = ()
    dilation: Ints = ()
    padding: Ints = ()
    output_padding: Ints = ()
    groups: int = 1
    bias: bool = True
    functional: bool = False

    def __post_init__(self) -> None:
        _fill(self, stride=1, dilation=1, padding=0, output_padding=0)

    def output(self, shape: Shape) -> Shape | None:
        channels, *sizes = shape
        if channels != self.in_channels:
            return None
        found = [self.out_channels]
        for n, k, s, d, p, more in zip(
            sizes, self.kernel, self.stride, self.dilation, self.padding, self.output_padding
        ):
            if more >= max(s, d):
                return None
            found.append((n - 1) * s - 2 * p + d * (k - 1) + more + 1)
        return tuple(found) if min(found) > 0 else None

    def module(self) -> nn.Module:
        kind: Any = getattr(nn, f"ConvTranspose{len(self.kernel)}d")
        window = (self.kernel, self.stride, self.padding, self.output_padding)
        return kind(self.in_channels, self.out_channels, *window, self.groups, self.bias, self.dilation)


@dataclass(frozen=True, repr=False)
class SymmetricSpec(Described):
    """One symmetric convolution whose size stays at stride 1; with ``functional`` the net calls ``symmetric_conv``."""

    in_channels: int
    out_channels: int
    kernel: Ints
    stride: Ints = ()
    dilation: Ints = ()
    groups: int = 1
    bias: bool = True
    order: str = "balanced"
    scale: str | None = None
    """Of partial padding."""
    functional: bool = False

    def __post_init__(self) -> None:
        _fill(self, stride=1, dilation=1)

    def output(self, shape: Shape) -> Shape | None:
        channels, *sizes = shape
        refused = channels == self.groups and even_axes(self.kernel) and not self.functional
        if channels != self.in_channels or refused:
            return None
        return (self.out_channels, *((n - 1) // s + 1 for n, s in zip(sizes, self.stride)))

    def module(self) -> nn.Module:
        if self.functional:
            stock: Any = getattr(nn, f"Conv{len(self.kernel)}d")
            return stock(self.in_channels, self.out_channels, self.kernel, groups=self.groups, bias=self.bias)
        kind: Any = (SymmetricConv1d, SymmetricConv2d, SymmetricConv3d)[len(self.kernel) - 1]
        window = (self.kernel, self.stride, "same", self.dilation)
        layer = kind(self.in_channels, self.out_channels, *window, self.groups, self.bias, order=self.order)
        layer.partial_scale = self.scale
        return layer


@dataclass(frozen=True, repr=False)
class NormSpec(Described):
    """One batch norm, with statistics and scales that are not those of a fresh one."""

    channels: int
    rank: int

    def module(self) -> nn.Module:
        norm: Any = getattr(nn, f"BatchNorm{self.rank}d")(self.channels)
        with torch.no_grad():
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
        return norm


@dataclass(frozen=True, repr=False)
class PadSpec(Described):
    """One padding layer, as ``nn.ReflectionPad2d``; negative amounts crop."""

    amounts: Pairs
    mode: str = "constant"
    value: float = 0.0

    def module(self) -> nn.Module:
        name = {"reflect": "Reflection", "replicate": "Replication", "circular": "Circular"}.get(self.mode)
        made = name or ("Constant" if self.value else "Zero")
        kind: Any = getattr(nn, f"{made}Pad{len(self.amounts)}d")
        return kind(flat(self.amounts), self.value) if made == "Constant" else kind(flat(self.amounts))


Layer = LayerSpec | TransposedSpec | SymmetricSpec | NormSpec | PadSpec


def flat(pairs: Pairs) -> tuple[int, ...]:
    """(lo, hi) per axis as ``F.pad`` takes them: the last axis first."""
    return tuple(side for pair in reversed(pairs) for side in pair)


def padded(shape: Shape, amounts: Pairs, mode: str) -> Shape | None:
    """The shape after padding the last axes; None if torch could not pad so."""
    channels, *sizes = shape
    pairs = ((0, 0),) * (len(sizes) - len(amounts)) + amounts
    found = [n + lo + hi for n, (lo, hi) in zip(sizes, pairs)]
    left = [n + min(lo, 0) + min(hi, 0) for n, (lo, hi) in zip(sizes, pairs)]
    far = any(max(pair) > reach(mode, n) for n, pair in zip(sizes, pairs))
    return None if far or min(found) < 1 or min(left) < 1 else (channels, *found)


def reach(mode: str, size: int) -> int:
    """The widest padding that a mode can fill around ``size`` pixels."""
    return {"reflect": size - 1, "circular": size}.get(mode, 10**9)


def _fill(spec: Any, **defaults: int) -> None:
    """Numbers that were left out, once per axis."""
    for name, value in defaults.items():
        if getattr(spec, name) == ():
            object.__setattr__(spec, name, (value,) * len(spec.kernel))
