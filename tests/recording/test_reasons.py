"""Why a model was recorded on the real inputs: the line, the input's dimension, what follows; never torch's symbols."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.source import definition


def as_number(x: Tensor, y: Tensor) -> Tensor:
    return y * torch.ones(int(x.shape[3]))


def counted(x: Tensor, y: Tensor) -> Tensor:
    return y + sum(range(x.shape[2] // 2))


def branching(x: Tensor, y: Tensor) -> Tensor:
    return y + 1 if y.mean() > 0 else y


def masked(x: Tensor, y: Tensor) -> Tensor:
    return y[y > 0]


def cut(x: Tensor, y: Tensor) -> Tensor:
    return y[:, :, : int(y.abs().max()) + 2]


class Running(nn.Module):
    def __init__(self, rest: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.rest = nn.Conv2d(3, 4, 3, padding=1), rest

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(x, self.conv(x))


REASONS = [
    (as_number, "the size of input 0 along dimension 3 was used as the number 24; keep it a size"),
    (counted, "what follows from the size of input 0 along dimension 2 was used as the number 16; keep it a size"),
    (branching, "the forward goes by values in a tensor"),
    (masked, "a size follows from values in a tensor"),
    (cut, "the forward goes by values in a tensor"),
]


@pytest.mark.parametrize(("rest", "reason"), REASONS)
def test_the_note_names_line_and_dimension(rest: Callable[[Tensor, Tensor], Tensor], reason: str) -> None:
    graph = pr.record(Running(rest), example_inputs=torch.randn(1, 3, 32, 24))
    place = definition(rest)
    assert graph.how == "real inputs"
    assert place is not None
    (note,) = graph.notes
    assert note.startswith(f"on symbolic sizes: test_reasons.py:{place.line + 1}: {reason}")
    assert "the path that these take" in note
    assert "\n" not in note
    assert not re.search(r"\bs\d+\b|\bz?uf?\d+\b|NoneType|SymNode", note)
