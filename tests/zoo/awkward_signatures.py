"""Awkward things to put in and take out, and models with too few convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import Inputs, Network, conv, noise, tabulate

SIGNATURES: dict[str, Network] = {}


def images(count: int, *shape: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(shape, generator=generator) for _ in range(count))


@tabulate(SIGNATURES, noise(1, 4, 9, 11))
class DictOutput(nn.Module):
    """A dict of tensors that also holds a number, a string and the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"out": self.conv(x), "input": x, "sizes": tuple(x.shape), "name": "dict", "scale": 0.5}


class Boxes(NamedTuple):
    scores: Tensor
    offsets: Tensor | None


@dataclass
class Detection:
    features: Tensor
    boxes: Boxes


@tabulate(SIGNATURES, noise(1, 4, 9, 11))
class DataclassOutput(nn.Module):
    """A dataclass that holds a named tuple that holds None."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = conv(), conv(4, 1, 1)

    def forward(self, x: Tensor) -> Detection:
        features = self.conv(x)
        return Detection(features, Boxes(self.head(features), None))


@tabulate(SIGNATURES, noise(1, 4, 9, 11))
class NestedOutput(nn.Module):
    """Tuples in lists with None, the same tensor twice, and a parameter handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return [(y, None), [y, (F.avg_pool2d(y, 2),)], self.conv.bias]


def _keywords() -> Inputs:
    left, right = images(2, 1, 4, 9, 11)
    return {"image": left, "extra": {"guide": right, "scale": 0.5}}


@tabulate(SIGNATURES, _keywords)
class KeywordInputs(nn.Module):
    """Keyword arguments, one of them a dict of a tensor and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.guide = conv(), conv()

    def forward(self, *, image: Tensor, extra: dict[str, Any]) -> Tensor:
        return self.conv(image) + self.guide(extra["guide"]) * extra["scale"]


@tabulate(SIGNATURES, lambda: (*images(1, 1, 4, 9, 11), 2, None, [*images(2, 1, 4, 9, 11)]))
class SeveralInputs(nn.Module):
    """A tensor, an int, None and a list of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.list_conv = conv(), conv(8)

    def forward(self, x: Tensor, times: int, mask: Tensor | None, others: list[Tensor]) -> Tensor:
        for _ in range(times):
            x = self.conv(x)
        return (x if mask is None else x * mask) + self.list_conv(torch.cat(others, 1))


@tabulate(SIGNATURES, noise(1, 4, 9, 11))
class NeverExecuted(nn.Module):
    """A convolution that forward never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@tabulate(SIGNATURES, noise(2, 5))
class NoConvolution(nn.Module):
    """No convolution at all."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)
