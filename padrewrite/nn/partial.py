"""Convolution layers whose padding counts as missing, not as zero: subclasses of ``nn.Conv1d/2d/3d``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_1_t, _size_2_t, _size_3_t

from padrewrite.nn.deriving import derived_class
from padrewrite.ops.arguments import Pairs, check_scale
from padrewrite.ops.conv import convolve, own_padding
from padrewrite.ops.partial import partial_conv

if TYPE_CHECKING:
    _Base = nn.modules.conv._ConvNd
else:
    _Base = object


class PartialConvMixin(_Base):
    """Partial padding for any convolution that keeps torch's own ``forward``, by inheritance or class swap.

    A swapped module keeps its parameters, keys, hooks and parametrizations; only the attributes below are
    new, and none depends on an input.
    """

    partial_scale: str = "mean"
    """``"mean"`` or ``"sqrt"``, see `padrewrite.ops.partial_conv`."""
    outer: Pairs | None = None
    """Per axis, how many pixels at each end of the input an earlier explicit pad has added."""
    axis_modes: tuple[str, ...] | None = None
    """Padding mode per axis where some axes are not padded with zeros; those are filled, not corrected."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Any:
        """``(N, C, *spatial)`` to ``(N, out, *out_spatial)``.

        With ``mask`` (``(N, 1, *spatial)``, non-zero where valid) returns ``(out, new_mask)``.
        """
        if mask is None:
            return super().forward(input)
        if self.axis_modes is not None:
            raise ValueError(f"mask was given to a convolution with axes padded by {self.axis_modes}; all need zeros")
        return self._partial(input, self.weight, self.bias, mask)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        if self.axis_modes is None:
            return self._partial(input, weight, bias, None)
        pairs = own_padding(self.padding, self.kernel_size, self.dilation)
        numbers = (self.stride, pairs, self.dilation, self.groups, self.axis_modes)
        return convolve(input, weight, bias, *numbers, self.partial_scale, self.outer)

    def _partial(self, input: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Any:
        _check_padding_mode(self.padding_mode)
        return partial_conv(
            input,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            mask=mask,
            scale=self.partial_scale,
            outer=self.outer,
        )

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, scale={self.partial_scale!r}"
        return text if self.outer is None else f"{text}, outer={self.outer}"


def _check_padding_mode(mode: str) -> None:
    if mode != "zeros":
        raise ValueError(
            f"padding_mode={mode!r} fills the border with real pixels, so no padding is missing; "
            "use padding_mode='zeros', or the plain convolution"
        )


class PartialConv1d(PartialConvMixin, nn.Conv1d):
    """``nn.Conv1d`` with partial padding, on ``(N, C, L)`` or ``(C, L)``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: str | _size_1_t = 0,
        dilation: _size_1_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        scale: str = "mean",
    ) -> None:
        _check_padding_mode(padding_mode)
        check_scale(scale)
        window = (kernel_size, stride, padding, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, "zeros", device, dtype)
        self.partial_scale = scale


class PartialConv2d(PartialConvMixin, nn.Conv2d):
    """``nn.Conv2d`` with partial padding, on ``(N, C, H, W)`` or ``(C, H, W)``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: str | _size_2_t = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        scale: str = "mean",
    ) -> None:
        _check_padding_mode(padding_mode)
        check_scale(scale)
        window = (kernel_size, stride, padding, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, "zeros", device, dtype)
        self.partial_scale = scale


class PartialConv3d(PartialConvMixin, nn.Conv3d):
    """``nn.Conv3d`` with partial padding, on ``(N, C, D, H, W)`` or without N."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: str | _size_3_t = 0,
        dilation: _size_3_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        scale: str = "mean",
    ) -> None:
        _check_padding_mode(padding_mode)
        check_scale(scale)
        window = (kernel_size, stride, padding, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, "zeros", device, dtype)
        self.partial_scale = scale


_STOCK: dict[type, type] = {nn.Conv1d: PartialConv1d, nn.Conv2d: PartialConv2d, nn.Conv3d: PartialConv3d}


def partial_class(base: type) -> type:
    """The class that makes a convolution of class ``base`` pad partially; the same one at every call.

    Raises:
        ValueError: ``base`` is no subclass of ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``.
    """
    if not issubclass(base, tuple(_STOCK)):
        raise ValueError(f"{base.__qualname__} is no nn.Conv1d/2d/3d; partial padding needs one of them")
    return derived_class(PartialConvMixin, base, "Partial", _STOCK)
