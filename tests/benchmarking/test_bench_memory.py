"""Saved bytes against counts by hand."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from padrewrite.benchmarking.memory import peak_bytes, saved_bytes


def _saved(model: nn.Module, x: torch.Tensor) -> int:
    return saved_bytes(lambda: torch.autograd.backward(model(x).sum()), model, x)


def test_parameters_and_inputs_are_not_counted() -> None:
    # A linear layer saves its input and its weight, both there anyway.
    assert _saved(nn.Linear(4, 3), torch.ones(2, 4)) == 0


def test_buffers_are_not_counted() -> None:
    # In eval mode a batch norm keeps its input, its weight and its running statistics.
    assert _saved(nn.BatchNorm1d(1000).eval(), torch.ones(2, 1000)) == 0


def test_a_kept_output_is_counted_once() -> None:
    # The sigmoid keeps its output; the next linear layer keeps the same storage as its input.
    net = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 5))
    assert _saved(net, torch.ones(2, 4)) == 2 * 3 * 4


def test_each_kept_tensor_is_counted_though_its_memory_is_used_again() -> None:
    size = 1 << 16

    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                # Each exp keeps its output, until nothing refers to it any more.
                branch = self.weight.exp()
                x = x + branch.detach().mean()
                del branch
            return x + self.weight

    assert _saved(Forgetful(), torch.zeros(size)) == 4 * size * 4


def test_nothing_stays_in_memory() -> None:
    refs: list[weakref.ref[torch.Tensor]] = []

    def forward(x: torch.Tensor) -> None:
        refs.append(weakref.ref(x.exp()))

    x = torch.ones(10, requires_grad=True)
    assert saved_bytes(lambda: forward(x), nn.Identity(), x) == 40
    assert refs[0]() is None


def test_peak_is_unknown_on_the_cpu() -> None:
    assert peak_bytes(lambda: torch.ones(1000), torch.device("cpu")) is None


@pytest.mark.gpu
def test_peak_is_above_what_was_there() -> None:
    device = torch.device("cuda", 0)
    kept = torch.ones(1 << 20, device=device)
    peak = peak_bytes(lambda: kept + 1, device)
    assert peak is not None
    assert 4 << 20 <= peak < 6 << 20
