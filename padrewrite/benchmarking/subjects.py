"""Models that are measured for one thing alone, to name on the command line of ``padrewrite bench``."""

from __future__ import annotations

from torch import nn


def dense(in_channels: int = 64, out_channels: int = 64, kernel: int = 15) -> nn.Module:
    """A 1 x 1 convolution and a dense k x k one behind it, of odd k, that keeps the size of the map."""
    wide = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return nn.Sequential(nn.Conv2d(in_channels, in_channels, 1), nn.ReLU(), wide)
