"""Convolutions whose padding mode differs per axis: circular along longitude and zeros along latitude, say."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd  # pyright: ignore[reportPrivateUsage]

from padrewrite.nn.deriving import derived_class
from padrewrite.nn.partial import PartialConvMixin
from padrewrite.nn.symmetric import SymmetricConvMixin
from padrewrite.ops.conv import Conv, Pairs, TransposedConv, convolve, own_padding
from padrewrite.ops.symmetric import read_symmetric
from padrewrite.ops.window import Window


class AxisPaddedMixin:
    """Pads each axis in its own mode, then convolves. Same parameters and state dict as its base class."""

    axis_modes: tuple[str, ...] = ()
    """Mode per spatial axis, first axis first."""

    def _conv_forward(self: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pairs = own_padding(self.padding, self.kernel_size, self.dilation)
        return convolve(input, weight, bias, self.stride, pairs, self.dilation, self.groups, self.axis_modes)

    def extra_repr(self: Any) -> str:
        shown: Any = super()
        return f"{shown.extra_repr()}, axis_modes={self.axis_modes}"


class AxisPaddedConv1d(AxisPaddedMixin, nn.Conv1d):
    pass


class AxisPaddedConv2d(AxisPaddedMixin, nn.Conv2d):
    pass


class AxisPaddedConv3d(AxisPaddedMixin, nn.Conv3d):
    pass


_STOCK: dict[type, type] = {
    nn.Conv1d: AxisPaddedConv1d,
    nn.Conv2d: AxisPaddedConv2d,
    nn.Conv3d: AxisPaddedConv3d,
}


def axis_padded_class(base: type) -> type:
    """The axis-padded form of a convolution class; the same class each time."""
    return derived_class(AxisPaddedMixin, base, "AxisPadded", _STOCK)


def real_padding(module: _ConvNd) -> Pairs:
    """(lo, hi) per axis that a layer really pads: in a mode other than zeros, what torch derived when it was built."""
    if module.padding_mode == "zeros":
        return own_padding(module.padding, module.kernel_size, module.dilation)
    flat = module._reversed_padding_repeated_twice
    return tuple((flat[i], flat[i + 1]) for i in range(len(flat) - 2, -2, -2))


def conv_op(module: _ConvNd) -> Conv | TransposedConv:
    """What a convolution module computes if its forward is the stock one."""
    rank = len(module.kernel_size)
    if isinstance(module, SymmetricConvMixin):
        return _symmetric_op(module)
    pairs = real_padding(module)
    lo, hi = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    window = Window(module.kernel_size, module.stride, module.dilation, lo, hi)
    channels = (module.in_channels, module.out_channels, module.groups, module.bias is not None)
    if isinstance(module, _ConvTransposeNd):
        return TransposedConv(window, *channels, output_padding=module.output_padding)
    ours = isinstance(module, (AxisPaddedMixin, PartialConvMixin))
    modes = (module.axis_modes if ours else None) or (module.padding_mode,) * rank
    partial = module.partial_scale if isinstance(module, PartialConvMixin) else None
    return Conv(window, *channels, modes=modes, partial=partial)


def _symmetric_op(module: SymmetricConvMixin) -> Conv:
    modes = module.axis_modes or (module.padding_mode,) * len(module.kernel_size)
    numbers = (module.stride, module.dilation, module.order, module.padding, module.symmetric_axes, modes)
    window, symmetry, modes = read_symmetric(tuple(module.kernel_size), *numbers)
    channels = (module.in_channels, module.out_channels, module.groups, module.bias is not None)
    return Conv(window, *channels, modes, module.partial_scale, symmetry if symmetry.axes else None)
