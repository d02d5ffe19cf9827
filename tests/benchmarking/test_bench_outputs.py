"""Tensors found in whatever models return, and the loss over them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

from padrewrite.benchmarking.outputs import describe, mean_square, tensors_in


@dataclass
class Prediction:
    logits: torch.Tensor
    aux: dict[str, torch.Tensor]
    name: str = "p"


class Pair(NamedTuple):
    left: torch.Tensor
    right: list[torch.Tensor]


def _marked(*marks: float) -> list[torch.Tensor]:
    return [torch.tensor([mark]) for mark in marks]


@pytest.mark.parametrize(
    ("output", "marks"),
    [
        (_marked(1)[0], [1]),
        (tuple(_marked(1, 2)), [1, 2]),
        (OrderedDict(b=_marked(1)[0], a=_marked(2)[0]), [1, 2]),
        (Pair(_marked(1)[0], _marked(2, 3)), [1, 2, 3]),
        (Prediction(_marked(1)[0], {"x": _marked(2)[0]}), [1, 2]),
        ([Prediction(_marked(1)[0], {}), (_marked(2)[0], None)], [1, 2]),
        ("text", []),
        (None, []),
        (Prediction, []),
    ],
)
def test_tensors_in_order(output: object, marks: list[float]) -> None:
    assert [t.item() for t in tensors_in(output)] == marks


def test_mean_square_sums_what_requires_grad() -> None:
    first = torch.tensor([1.0, 3.0], requires_grad=True)
    second = torch.tensor([[2.0]], requires_grad=True)
    loss = mean_square({"a": first, "mask": torch.ones(5), "b": (second, torch.arange(3))})
    assert loss is not None
    assert loss.item() == (1 + 9) / 2 + 4
    loss.backward()
    assert first.grad is not None
    assert first.grad.tolist() == [1.0, 3.0]


def test_mean_square_of_half_does_not_overflow_and_of_complex_is_real() -> None:
    half = torch.tensor([300.0], dtype=torch.float16, requires_grad=True)
    loss = mean_square([half, torch.tensor([3 + 4j], requires_grad=True)])
    assert loss is not None
    assert loss.item() == pytest.approx(90_000 + 25)


def test_nothing_to_learn_from_is_no_loss() -> None:
    assert mean_square((torch.ones(2), "x")) is None
    assert mean_square(torch.ones(0, requires_grad=True)) is None


def test_describe() -> None:
    assert describe((torch.ones(2, 3), [torch.ones(1).long()])) == "tuple with (2, 3) float32, (1,) int64"
    assert describe("text") == "str with no tensors"
