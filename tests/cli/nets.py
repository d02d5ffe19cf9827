"""Models for the command line to name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """A strided stem, a padded and an unpadded layer, a functional call, and a transposed one to refuse."""

    def __init__(self, width: int = 4, upsample: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1))
        self.up = nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1) if upsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.conv2d(self.body(x), self.body[0].weight, padding=1)
        return self.up(F.relu(x + y))


class Unpicklable(nn.Module):
    """Holds what pickle cannot write."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.hold = lambda: None

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pointwise(nn.Module):
    """Has no padding at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Words(nn.Module):
    """Reads integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(2, 4)
        self.conv = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, words: Tensor) -> Tensor:
        return self.conv(self.embed(words).transpose(1, 2))


class Opaque(nn.Module):
    """Leaves torch half-way: no recording can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.from_numpy(x.numpy() * 2))


READY = Net()


def fails() -> nn.Module:
    raise ValueError("no weights here")


def number() -> int:
    return int(torch.tensor(3))


def loudly() -> nn.Module:
    """Fails with a page of text."""
    raise ImportError("it needs another package\nTraceback (most recent call last):\n  File ...")
