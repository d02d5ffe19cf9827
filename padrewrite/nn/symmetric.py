"""Even convolutions without the half-pixel shift: subclasses of ``nn.Conv1d/2d/3d`` that read from all sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_1_t, _size_2_t, _size_3_t

from padrewrite.nn.deriving import derived_class
from padrewrite.ops.directions import even_axes
from padrewrite.ops.symmetric import read_symmetric, symmetric_conv

if TYPE_CHECKING:
    _Base = nn.modules.conv._ConvNd
else:
    _Base = object


class SymmetricConvMixin(_Base):
    """Symmetric padding for any convolution that keeps torch's own ``forward``, by inheritance or class swap.

    A swapped module keeps its parameters, keys, hooks and parametrizations; only the attributes below are new, and
    none depends on an input. ``padding`` is that around all blocks of channels, see ``padrewrite.ops.symmetric_conv``.
    """

    order: str = "balanced"
    """Of the directions over the input channels."""
    symmetric_axes: tuple[int, ...] | None = None
    """The spatial axes on which the layer is symmetric; None for all of even kernel."""
    axis_modes: tuple[str, ...] | None = None
    """How the border is filled, per axis; None for ``padding_mode`` on all."""
    partial_scale: str | None = None
    """``"mean"`` or ``"sqrt"`` for partial padding, see ``padrewrite.ops.partial_conv``."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        return symmetric_conv(
            input,
            weight,
            bias,
            self.stride,
            self.dilation,
            self.groups,
            order=self.order,
            padding=self.padding,
            axes=self.symmetric_axes,
            modes=self.axis_modes or (self.padding_mode,) * len(self.kernel_size),
            scale=self.partial_scale,
        )

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, order={self.order!r}"
        for name in ("symmetric_axes", "axis_modes", "partial_scale"):
            if getattr(self, name) is not None:
                text += f", {name}={getattr(self, name)}"
        return text


def _set_up(layer: Any, padding: Any, order: str) -> None:
    """What torch's constructor does not know: any padding at any stride, and the order. Checks them, too."""
    layer.padding, layer.order = padding, order
    numbers = (layer.stride, layer.dilation, order, padding, None, (layer.padding_mode,) * len(layer.kernel_size))
    window = read_symmetric(layer.kernel_size, *numbers)[0]
    if layer.in_channels == layer.groups and even_axes(layer.kernel_size):
        raise ValueError(
            f"in_channels={layer.in_channels}, groups={layer.groups}: each output reads one channel, so no other "
            "channel cancels the shift of an even kernel; give an odd kernel_size, or more channels per group"
        )
    if not isinstance(padding, str):
        layer.padding = window.lo if window.lo == window.hi else window.padding


class SymmetricConv1d(SymmetricConvMixin, nn.Conv1d):
    """``nn.Conv1d`` with even kernels centred on average, on ``(N, C, L)`` or ``(C, L)``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: Any = "same",
        dilation: _size_1_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        order: str = "balanced",
    ) -> None:
        window = (kernel_size, stride, 0, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, padding_mode, device, dtype)  # pyright: ignore
        _set_up(self, padding, order)


class SymmetricConv2d(SymmetricConvMixin, nn.Conv2d):
    """``nn.Conv2d`` with even kernels centred on average, on ``(N, C, H, W)`` or ``(C, H, W)``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: Any = "same",
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        order: str = "balanced",
    ) -> None:
        window = (kernel_size, stride, 0, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, padding_mode, device, dtype)  # pyright: ignore
        _set_up(self, padding, order)


class SymmetricConv3d(SymmetricConvMixin, nn.Conv3d):
    """``nn.Conv3d`` with even kernels centred on average, on ``(N, C, D, H, W)`` or without N."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: Any = "same",
        dilation: _size_3_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        order: str = "balanced",
    ) -> None:
        window = (kernel_size, stride, 0, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, padding_mode, device, dtype)  # pyright: ignore
        _set_up(self, padding, order)


_STOCK: dict[type, type] = {nn.Conv1d: SymmetricConv1d, nn.Conv2d: SymmetricConv2d, nn.Conv3d: SymmetricConv3d}


def symmetric_class(base: type) -> type:
    """The class that makes a convolution of class ``base`` symmetric; the same one at every call.

    Raises:
        ValueError: ``base`` is no subclass of ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``.
    """
    if not issubclass(base, tuple(_STOCK)):
        raise ValueError(f"{base.__qualname__} is no nn.Conv1d/2d/3d; symmetric padding needs one of them")
    return derived_class(SymmetricConvMixin, base, "Symmetric", _STOCK)
