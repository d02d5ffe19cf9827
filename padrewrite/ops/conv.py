"""Convolutions: the torch calls they are read from, their fields, and the torch calls they are emitted as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import torch
import torch.fx as fx
import torch.nn.functional as F

from padrewrite.ops.directions import Symmetry, reach_of
from padrewrite.ops.op import Op
from padrewrite.ops.pad import pad_axes
from padrewrite.ops.partial import partial_conv
from padrewrite.ops.symmetric import read_symmetric, symmetric_conv
from padrewrite.ops.window import Ints, Window

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Conv(Op):
    """A convolution of rank 1 to 3 with everything that pads it, explicit pads before it included."""

    kind: ClassVar[str] = "conv"
    window: Window
    in_channels: int
    out_channels: int
    groups: int
    bias: bool
    modes: tuple[str, ...]
    """Padding mode per axis: zeros, reflect, replicate or circular."""
    partial: str | None = None
    """None, or the scale of partial padding on the axes padded with zeros: "mean" or "sqrt"."""
    symmetric: Symmetry | None = None
    """None, or how blocks of channels are read from all sides; padding is then that around all of them together."""

    @property
    def kernel(self) -> Ints:
        return self.window.kernel

    @property
    def stride(self) -> Ints:
        return self.window.stride

    @property
    def dilation(self) -> Ints:
        return self.window.dilation

    @property
    def padding(self) -> Pairs:
        return self.window.padding

    def macs(self, sizes: Sequence[int]) -> int:
        """Multiply-accumulates for one sample whose input has ``sizes`` pixels per axis, padding included."""
        outputs = prod(self.reach.size(axis, n) for axis, n in enumerate(sizes))
        return outputs * self.out_channels * (self.in_channels // self.groups) * prod(self.kernel)

    @property
    def reach(self) -> Window:
        """The window over all input channels: what sizes, positions and the border follow from."""
        return self.window if self.symmetric is None else reach_of(self.window, self.symmetric.axes)

    @property
    def padded_axes(self) -> tuple[int, ...]:
        """Axes with padding on some side."""
        return tuple(a for a, pair in enumerate(self.padding) if pair != (0, 0))

    @property
    def padding_mode(self) -> str | tuple[str, ...]:
        """The mode of the padded axes when they share it ("partial" for partial padding), else one per axis."""
        shown = tuple("partial" if m == "zeros" and self.partial else m for m in self.modes)
        used = {shown[a] for a in self.padded_axes} or set(shown)
        return used.pop() if len(used) == 1 else shown

    def spec(self) -> dict[str, Any]:
        """The report's view; lengths in pixels, axes first to last."""
        w = self.window
        return {
            "kernel_size": w.kernel,
            "stride": w.stride,
            "dilation": w.dilation,
            "padding": w.padding,
            "groups": self.groups,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "padding_mode": self.padding_mode,
            "transposed": False,
            **({"scale": self.partial} if self.partial else {}),
            **({"order": self.symmetric.order, "symmetric_axes": self.symmetric.axes} if self.symmetric else {}),
        }


@dataclass(frozen=True)
class TransposedConv(Op):
    """A transposed convolution; ``window`` is that of the convolution it is the adjoint of."""

    kind: ClassVar[str] = "transposed-conv"
    window: Window
    in_channels: int
    out_channels: int
    groups: int
    bias: bool
    output_padding: Ints

    def macs(self, sizes: Sequence[int]) -> int:
        """Multiply-accumulates for one sample: every input pixel meets every kernel tap."""
        return prod(sizes) * self.in_channels * (self.out_channels // self.groups) * prod(self.kernel)

    @property
    def kernel(self) -> Ints:
        return self.window.kernel

    @property
    def reach(self) -> Window:
        """As for a ``Conv``."""
        return self.window

    @property
    def padding(self) -> Pairs:
        return self.window.padding

    def spec(self) -> dict[str, Any]:
        w = self.window
        return {
            "kernel_size": w.kernel,
            "stride": w.stride,
            "dilation": w.dilation,
            "padding": w.padding,
            "groups": self.groups,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "padding_mode": "zeros",
            "transposed": True,
            "output_padding": self.output_padding,
        }


@dataclass(frozen=True)
class ConvCall:
    """The arguments of one convolution call, whatever function it was: tensors as given, numbers resolved."""

    x: Any
    weight: Any
    bias: Any
    op: Conv | TransposedConv
    """The call alone: explicit pads before it are not in its window."""
    outer: tuple[tuple[Any, Any], ...] | None = None
    """Only for ``partial_conv``: pixels at each end of ``x`` that are padding already."""


_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_ATEN = ("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
_CONV_BY_RANK: dict[int, Callable[..., Any]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_SLOTS: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d), _CONV),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _TRANSPOSED),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _TRANSPOSED),
    partial_conv: ("x", *_CONV[1:]),
    symmetric_conv: ("x", *(name for name in _CONV[1:] if name != "padding")),
    torch.convolution: _ATEN,
    torch.ops.aten.convolution.default: _ATEN,
    torch.ops.aten.convolution: _ATEN,
    **{getattr(torch.ops.aten, f"conv{r}d"): _CONV for r in (1, 2, 3)},
    **{getattr(torch.ops.aten, f"conv{r}d").default: _CONV for r in (1, 2, 3)},
    **{getattr(torch.ops.aten, f"conv{r}d").padding: _CONV for r in (1, 2, 3)},
    **{getattr(torch.ops.aten, f"conv_transpose{r}d"): _TRANSPOSED for r in (1, 2, 3)},
    torch.ops.aten.conv_transpose1d.default: _TRANSPOSED,
    torch.ops.aten.conv_transpose2d.input: _TRANSPOSED,
    torch.ops.aten.conv_transpose3d.input: _TRANSPOSED,
}
_OURS = (partial_conv, symmetric_conv)
_PLAIN = (F.conv1d, F.conv2d, F.conv3d, *_OURS)
_RANKED = {1: "conv1d", 2: "conv2d", 3: "conv3d"}


def is_conv(target: Any) -> bool:
    """True for every torch function that is read as a convolution."""
    try:
        return target in _SLOTS
    except TypeError:
        return False


def is_plain_conv(target: Any) -> bool:
    """True for the calls that an emitted convolution can stand in for: ``F.convNd`` and ours."""
    return any(target is plain for plain in _PLAIN)


def is_our_conv(target: Any) -> bool:
    """True for ``partial_conv`` and ``symmetric_conv``."""
    return any(target is ours for ours in _OURS)


def family(target: Any, weight_rank: int) -> str:
    """The name under which calls are counted: the same for a convolution before and after its rewrite."""
    if _SLOTS[target] is not _TRANSPOSED and not is_plain_conv(target):
        return "convolution"
    transposed = _SLOTS[target] is _TRANSPOSED
    return f"conv_transpose{weight_rank - 2}d" if transposed else _RANKED[weight_rank - 2]


def per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    """An argument given once or per axis, as one value per axis."""
    if isinstance(value, (tuple, list)):
        values: tuple[Any, ...] = tuple(value)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
        return values * rank if len(values) == 1 and rank > 1 else values
    return (value,) * rank


def hint(value: Any) -> Any:
    """The number that a size argument had while recording."""
    return value.meta["value"] if isinstance(value, fx.Node) else value


def own_padding(padding: Any, kernel: Ints, dilation: Ints) -> Pairs:
    """(lo, hi) per axis of a ``padding`` argument: number, tuple, (lo, hi) pairs, "same" or "valid"."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return tuple((t // 2, t - t // 2) for t in totals)
    pairs = per_axis(padding, len(kernel))
    return tuple((p[0], p[1]) if isinstance(p, (tuple, list)) else (p, p) for p in pairs)


def read_conv(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shape_of: Callable[[Any], Sequence[int]]
) -> ConvCall | None:
    """The convolution in ``target(*args, **kwargs)``, or None if it is not one.

    ``shape_of`` gives the shape of a tensor argument (a tensor or a graph node).
    """
    if not is_conv(target):
        return None
    slots: dict[str, Any] = {**dict(zip(_SLOTS[target], args)), **kwargs}
    shape = shape_of(slots["weight"])
    rank = len(shape) - 2
    kernel = tuple(int(k) for k in shape[2:])
    if target is symmetric_conv:
        return _read_symmetric(slots, shape, kernel)
    stride, dilation = (tuple(int(v) for v in per_axis(slots.get(name, 1), rank)) for name in ("stride", "dilation"))
    pairs = [(hint(lo), hint(hi)) for lo, hi in own_padding(slots.get("padding", 0), kernel, dilation)]
    window = Window(kernel, stride, dilation, tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))
    groups, bias = int(slots.get("groups", 1)), slots.get("bias")
    x = slots["x"] if "x" in slots else slots["input"]
    op: Conv | TransposedConv
    if _SLOTS[target] is _TRANSPOSED or slots.get("transposed") is True:
        extra = tuple(int(hint(v)) for v in per_axis(slots.get("output_padding", 0), rank))
        op = TransposedConv(window, int(shape[0]), int(shape[1]) * groups, groups, bias is not None, extra)
        return ConvCall(x, slots["weight"], bias, op)
    scale = slots.get("scale", "mean") if target is partial_conv else None
    op = Conv(window, int(shape[1]) * groups, int(shape[0]), groups, bias is not None, ("zeros",) * rank, scale)
    return ConvCall(x, slots["weight"], bias, op, slots.get("outer"))


def _read_symmetric(slots: dict[str, Any], shape: Sequence[int], kernel: Ints) -> ConvCall:
    rank, groups, bias = len(kernel), int(slots.get("groups", 1)), slots.get("bias")
    stride, dilation = (per_axis(slots.get(name, 1), rank) for name in ("stride", "dilation"))
    padding: Any = slots.get("padding", "same")
    if not isinstance(padding, str):
        padding = tuple((hint(lo), hint(hi)) for lo, hi in own_padding(padding, kernel, dilation))
    order, axes, modes = slots.get("order", "balanced"), slots.get("axes"), slots.get("modes")
    window, symmetry, filled = read_symmetric(kernel, stride, dilation, order, padding, axes, modes)
    numbers = (window, int(shape[1]) * groups, int(shape[0]), groups, bias is not None)
    op = Conv(*numbers, filled, slots.get("scale"), symmetry if symmetry.axes else None)
    return ConvCall(slots["x"], slots["weight"], bias, op)


def emit_conv(x: Any, weight: Any, bias: Any, op: Conv, outer: Sequence[tuple[Any, Any]] | None = None) -> Any:
    """The torch calls of ``op`` on tensors or fx proxies.

    ``op.window`` is the padding that this call still has to apply; ``outer`` is what explicit zero pads before
    it have applied already (it matters to partial padding only).
    """
    w = op.window
    numbers = (w.stride, w.padding, w.dilation, op.groups, op.modes)
    return convolve(x, weight, bias, *numbers, op.partial, outer, op.symmetric)


def convolve(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
    modes: Sequence[str],
    partial: str | None = None,
    outer: Sequence[tuple[Any, Any]] | None = None,
    symmetric: Symmetry | None = None,
) -> Any:
    """A convolution with (lo, hi) padding and a mode per axis; ``partial`` scales the axes padded with zeros."""
    if symmetric is not None:
        options: dict[str, Any] = {"order": symmetric.order, "axes": symmetric.axes, "modes": tuple(modes)}
        numbers = (stride, dilation, groups)
        return symmetric_conv(x, weight, bias, *numbers, padding=tuple(padding), scale=partial, **options)
    other = tuple(pair if m != "zeros" else (0, 0) for pair, m in zip(padding, modes))
    zeros = tuple(pair if m == "zeros" else (0, 0) for pair, m in zip(padding, modes))
    x = pad_axes(x, other, modes)
    if partial is not None:
        given = None if outer is None else tuple(outer)
        return partial_conv(x, weight, bias, stride, zeros, dilation, groups, scale=partial, outer=given)
    if not all(_same(lo, hi) for lo, hi in zeros):
        x, zeros = pad_axes(x, zeros, ("zeros",) * len(zeros)), ((0, 0),) * len(zeros)
    return _CONV_BY_RANK[len(zeros)](x, weight, bias, stride, tuple(lo for lo, _ in zeros), dilation, groups)


def _same(lo: Any, hi: Any) -> bool:
    """Whether both sides are the same number; a size expression is never asked, it is padded explicitly."""
    return lo is hi or (type(lo) is int and type(hi) is int and lo == hi)


def with_padding(op: Conv, pairs: Sequence[tuple[int, int]]) -> Conv:
    """``op`` with the given (lo, hi) per axis."""
    window = replace(op.window, lo=tuple(p[0] for p in pairs), hi=tuple(p[1] for p in pairs))
    return replace(op, window=window)
