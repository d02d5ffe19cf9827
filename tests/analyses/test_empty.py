"""Maps without positions: a crop of no rows, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr

EMPTY: dict[str, Any] = {
    "no rows": lambda y: y[:, :, :0],
    "no rows, no columns": lambda y: y[:, :, :0, :0],
    "padded": lambda y: F.pad(y[:, :, :0], (0, 0, 2, 2)),
    "beside others": lambda y: torch.cat([y[:, :, :0], y], 2),
    "a sum": lambda y: y[:, :, :0] + y[:, :, :0],
    "a mean": lambda y: y[:, :, :0].mean((2, 3)),
    "turned": lambda y: y[:, :, :0].flip(2),
    "rolled": lambda y: y[:, :, :0].roll(1, 2),
    "flat": lambda y: y[:, :, :0].flatten(2),
}


@pytest.mark.parametrize("name", EMPTY)
def test_maps_without_positions_are_no_obstacle(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.first(x)
            return self.last(y), EMPTY[name](y)

    found = pr.analyze(Net(), example_inputs=torch.zeros(1, 2, 9, 9))
    first, last = (found.sites[layer].border for layer in ("first", "last"))
    assert first is not None
    assert first.edge == (2 / 3) ** 0.5
    assert last is not None


def test_what_is_padded_around_nothing_has_no_signal() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.pad(x[:, :, :0], (1, 1, 2, 2)))

    assert pr.analyze(Net(), example_inputs=torch.zeros(1, 2, 9, 9)).sites["conv"].border is None
