"""The check of one site sees what is wrong in any group of channels that it looks at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr

MANY = 70
"""Groups: more than are checked."""


@pytest.mark.parametrize("wrong", [0, MANY - 1])
def test_first_and_last_of_many_groups_are_checked(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(2 * MANY, MANY, 3, padding=1, groups=MANY))
    new: Any = pr.transform(net, ["partial-padding"], example_inputs=torch.randn(1, 2 * MANY, 7, 8))
    assert pr.verify(new, level="quick").ok
    right = type(new[0])._conv_forward

    def broken(self: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = right(self, x, weight, bias)
        return out.index_add(1, torch.tensor([wrong]), torch.ones_like(out[:, :1]), alpha=1e-6)

    monkeypatch.setattr(type(new[0]), "_conv_forward", broken)
    assert [e.contract for e in pr.verify(new, level="quick").failures] == ["reference", "interior"]
