"""Forwards that read numbers out of tensors: rewritten where the numbers decide nothing that a convolution reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.errors import WriteError


def mean_of_nine(bias: float) -> nn.Conv2d:
    """On ones: 1 + bias in the middle; zero padding leaves 4/9 in a corner, partial padding all of it."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.constant_(conv.weight, 1 / 9)
    nn.init.constant_(conv.bias, bias)  # pyright: ignore[reportArgumentType]
    return conv


class Peak(nn.Module):
    """Cuts a window out around the strongest response, as keypoint detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = mean_of_nine(0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        place = int(y.flatten().argmax())
        return y.flatten()[place:] if place else y.flatten().relu()


class Branches(nn.Module):
    """What the second convolution reads depends on what the first one gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = mean_of_nine(-0.95), mean_of_nine(0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y.sigmoid() if float(y.sum()) > 0 else y)


def test_another_path_behind_the_last_convolution() -> None:
    net, x = Peak().eval(), torch.ones(1, 1, 4, 4)
    new = pr.transform(net, ["partial-padding"], example_inputs=x)
    assert (net(x).shape, new(x).shape) == ((11,), (16,)), "the maximum moves from position 5 to position 0"
    torch.testing.assert_close(new(x), torch.ones(16))


def test_another_path_into_a_convolution() -> None:
    net, x = Branches().eval(), torch.ones(1, 1, 4, 4)
    with pytest.raises(WriteError, match="not what was predicted"):
        pr.transform(net, ["partial-padding"], example_inputs=x)
