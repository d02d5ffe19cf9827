"""Small networks for the compiler backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PASSES = ["partial-padding"]
OPTIONS: dict[str, Any] = {"passes": PASSES, "inner": "aot_eager"}
"""For ``torch.compile(backend="padrewrite")``: everything but Inductor's code generation."""


class Branches(nn.Module):
    """A stride, a dilation, a shared layer, groups, a parametrization, a functional call, a circular convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=2)
        self.around = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.point = nn.Conv2d(8, 8, 1)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, (3, 5), padding=(1, 2)))
        self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3) * 0.1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.shared(self.shared(x))
        x = self.around(x) + self.point(x)
        return self.up(F.conv2d(self.normed(x), self.kernel, padding=1))

    def up_to_norm(self) -> nn.Module:
        return nn.Sequential(self.stem, self.norm, nn.ReLU(), self.shared)


BRANCHES = {
    "stem": "rewritten",
    "shared": "rewritten",
    "shared@1": "rewritten",
    "around": "non-zero-padding",
    "point": "unpadded",
    "normed": "rewritten",
    "#conv2d.0": "rewritten",
    "up": "transposed",
}
"""What partial padding decides about `Branches`, in the order of execution."""


class TensorflowSame(nn.Conv2d):
    """Pads by what TensorFlow calls SAME: amounts that depend on the input's size, in a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(x.shape[-2:], self.kernel_size, self.stride)]
        (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in total)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride)


class Block(nn.Module):
    """Two convolutions with something between them that Dynamo may not follow."""

    def __init__(self, channels: int, between: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.between()
        return self.second(x).relu()


def closeness(got: Tensor, wanted: Tensor) -> float:
    """The largest difference relative to the largest value."""
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    return float((got - wanted).detach().abs().max()) / (float(wanted.detach().abs().max()) or 1.0)
