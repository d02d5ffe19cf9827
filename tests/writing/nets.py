"""Small networks and layers in which every way of writing a rewrite back has its place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from plain import partial
from torch import Tensor, nn
from torch.nn.utils import parametrizations

PARTIAL = ["partial-padding"]
CIRCULAR = ["padding-mode{mode=circular,axes=[-1]}"]
REFLECT = ["padding-mode{mode=reflect}"]


def picture(batch: int = 2, height: int = 11, width: int = 13, channels: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


class OwnForward(nn.Conv2d):
    """Pads by itself and calls F.conv2d: no class of ours can reach the call but from outside."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(F.pad(input, (1, 1, 1, 1)), self.weight, self.bias, self.stride)


class OwnConvForward(nn.Conv2d):
    """The stock forward, but a ``_conv_forward`` of its own."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight * 0.5, bias)


class StockSubclass(nn.Conv2d):
    """A user's class that keeps torch's forward, with an attribute and a method."""

    tag = "mine"

    def describe(self) -> str:
        return f"{self.tag}:{self.out_channels}"


class Branchy(nn.Module):
    """Rebind, redirect at a layer, redirect at the root, retune, a parametrization, batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = StockSubclass(3, 4, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.own = OwnForward(4, 4, 3)
        self.normed = parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1))
        self.kernel = nn.Parameter(torch.randn(4, 4, 3, 3) * 0.2)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        x = self.drop(self.norm(self.stem(image)).relu())
        x = self.normed(self.own(x))
        return self.head(F.conv2d(x, self.kernel, padding=1)) * scale


def branchy_partial(net: Branchy, x: Tensor) -> Tensor:
    """What `Branchy` computes in eval mode once everything padded in it is partial."""
    x = net.norm(partial(x, net.stem.weight, net.stem.bias, 2, 1)).relu()
    x = partial(x, net.own.weight, net.own.bias, 1, 1)
    x = partial(x, net.normed.weight, net.normed.bias, 1, 1)
    return net.head(partial(x, net.kernel, None, 1, 1))


class Functional(nn.Module):
    """One convolution, made by the root's forward."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3) * 0.2)

    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        return F.conv2d(image, self.kernel, padding=1) * scale
