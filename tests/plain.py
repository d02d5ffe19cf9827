"""Rewritten convolutions said with torch's own calls, for tests of everything that is not arithmetic."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def partial(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """2-D partial padding: the zero-padded sum times (taps / real taps), then the bias; ``(N, C, H, W)``."""
    out = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    kernel = torch.ones(1, 1, *weight.shape[2:], dtype=x.dtype)
    count = F.conv2d(torch.ones_like(x[:1, :1]), kernel, None, stride, padding, dilation)
    scaled = out * (kernel.numel() / count)
    return scaled if bias is None else scaled + bias.reshape(1, -1, 1, 1)


def circular_width(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any = 1, padding: Any = (0, 0), dilation: Any = 1
) -> Tensor:
    """2-D convolution whose width wraps around and whose height is padded with zeros."""
    wrapped = torch.cat([x[..., x.shape[-1] - padding[1] :], x, x[..., : padding[1]]], -1)
    return F.conv2d(wrapped, weight, bias, stride, (padding[0], 0), dilation)


def layer(form: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:
    """``form`` (one of the above) with the numbers and weights of ``conv``."""
    return form(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation)


def far(a: Tensor, b: Tensor) -> float:
    """The largest difference relative to the largest value."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return float((a.detach() - b.detach()).abs().max() / b.detach().abs().max())
