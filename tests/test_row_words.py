"""Where two graphs differ, in words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import padrewrite as pr

X = torch.ones(1, 3, 20, 22)


class Paths(nn.Module):
    """What stands between two convolutions depends on the size there."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y.relu() if y.shape[-1] < 12 else y.sigmoid())


def difference(old: nn.Module, new: nn.Module) -> str | None:
    return pr.record(old, example_inputs=X).difference(pr.record(new, example_inputs=X))


def test_another_path_is_told_by_its_layer() -> None:
    plan = pr.plan(Paths(), ["output-stride{stride=1}"], example_inputs=X, allow_no_effect=True)
    told = "predicted relu(convolution first) in the model, found sigmoid(convolution first) in the model"
    assert {(d.code, d.reason) for d in plan.decisions} == {
        ("breaks-forward", f"the rewritten Paths is not what was predicted: {told}")
    }


def test_another_convolution_is_told_by_what_changed() -> None:
    old, new = (nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3, padding=p, dilation=d)) for p, d in ((1, 1), (1, 2)))
    assert difference(old, new) == "1: predicted dilation (1, 1) but found dilation (2, 2)"


def test_a_call_too_many_is_told() -> None:
    one, two = nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2))
    told = difference(one, two)
    assert told is not None
    assert told.startswith("predicted output(convolution 0) in the model, found flatten(convolution 0, 2")
    assert difference(one, one) is None


def test_an_operand_is_told_by_its_name() -> None:
    before, after = (nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU(s)) for s in (0.5, 0.25))
    told = difference(before, after)
    assert told is not None
    assert "negative_slope=0.5)" in told
    assert "negative_slope=0.25)" in told
