"""Networks that the tests of the promises share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Everything(nn.Module):
    """One call of each kind: shared, functional, transposed, 1-D, unpadded, aten, reflected, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.3)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.mirror = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.kernel = nn.Parameter(torch.randn(4, 4, 3, 3) * 0.2)
        self.line = nn.Conv1d(4, 4, 5, padding=2)
        self.point = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.shared(self.shared(self.drop(self.norm(self.stem(x)))).relu())
        x = self.mirror(self.up(x))
        x = torch.convolution(x, self.kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.kernel)
        return {"map": self.point(x), "line": self.line(x.mean(-1))}


def large_and_small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 7, padding=3), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
