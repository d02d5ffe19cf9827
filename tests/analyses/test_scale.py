"""What the analysis of a deep network costs, counted in calls and bytes: it grows with the network, and no faster.

``PYTHONPATH=tests python tests/analyses/test_scale.py 1001`` measures ``analyze`` of so many convolutions.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import padrewrite as pr
from padrewrite.analyses.building import build
from padrewrite.graph import Graph


class Block(nn.Module):
    """Two 3x3 convolutions and the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def network(convolutions: int) -> nn.Module:
    """A 7x7 of stride 2, then residual blocks."""
    stem = nn.Conv2d(3, 4, 7, stride=2, padding=3)
    return nn.Sequential(stem, *(Block() for _ in range(convolutions // 2))).eval()


def calls_of(function: Callable[[], Any]) -> int:
    """Python calls that it makes the second time."""
    calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    function()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


def calls_and_bytes(graph: Graph) -> tuple[int, int]:
    """Python calls of an analysis, and the most memory that it holds at a time."""
    calls = calls_of(lambda: build(graph, "Net", None))
    tracemalloc.start()
    build(graph, "Net", None)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return calls, most


def test_twice_the_layers_cost_twice_as_much() -> None:
    x = torch.zeros(1, 3, 32, 32)
    few, many = (calls_and_bytes(pr.record(network(n), example_inputs=x)) for n in (41, 81))
    assert many[0] < 2.2 * few[0]
    assert many[1] < 2.2 * few[1]


def test_reading_twice_the_calls_costs_twice_as_much() -> None:
    x = torch.zeros(1, 3, 32, 32)
    graphs = [pr.record(network(n), example_inputs=x).nodes for n in (41, 81)]
    few, many = (calls_of(lambda g=g: Graph.from_nodes(g, "symbolic", {})) for g in graphs if g is not None)
    assert many < 2.2 * few


def test_calls_alike_are_computed_once() -> None:
    before = FakeTensorMode.cache_info()
    pr.record(network(81), example_inputs=torch.zeros(1, 3, 32, 32))
    after = FakeTensorMode.cache_info()
    assert after.misses - before.misses + sum(after.bypasses.values()) - sum(before.bypasses.values()) < 20
    assert after.hits - before.hits > 180


def main() -> None:
    model, x = network(int(sys.argv[1])), torch.zeros(1, 3, 64, 64)
    pr.analyze(network(3), example_inputs=x)
    started = time.process_time()
    analysis = pr.analyze(model, example_inputs=x)
    seconds = time.process_time() - started
    tracemalloc.start()
    pr.analyze(model, example_inputs=x)
    most = tracemalloc.get_traced_memory()[1] / 2**20
    print(f"{len(analysis.sites)} convolutions: {seconds:.1f} s of processor time, {most:.0f} MB of Python memory")


if __name__ == "__main__":
    main()
