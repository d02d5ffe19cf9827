"""Compile counts over 32 sizes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from padrewrite.benchmarking import bench_size_sweep
from padrewrite.errors import InputsError, ModelError

pytestmark = pytest.mark.compile

SIZES = [(1, 3, 16 + n, 20 + 2 * n) for n in range(32)]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Cached(Plain):
    """Keeps something per size in a dict, which bakes every size into its own graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gains = {size: 1.0 + size for size in range(100)}
        return self.conv(x) * gains[int(x.shape[-2])]


class Broken(Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        torch._dynamo.graph_break()
        return x * 2


def test_a_healthy_model_compiles_twice_and_a_size_keyed_one_every_time() -> None:
    sweep = bench_size_sweep(Plain(), Cached(), SIZES, backend="eager")
    plain, cached = sweep.counts["original"], sweep.counts["rewritten"]
    assert plain.per_size == (1, 1, *([0] * 30))
    # Past Dynamo's default limit of 8 per frame: the count does not stop there.
    assert cached.per_size == (1,) * 32
    assert (plain.repeats, cached.repeats) == (0, 0)
    assert sweep.compiles == {"original": 2, "rewritten": 32}


def test_graph_breaks_are_counted_and_make_more_graphs() -> None:
    sweep = bench_size_sweep(Plain(), Broken(), SIZES[:4], backend="eager")
    assert sweep.counts["original"].graph_breaks == 0
    assert sweep.counts["rewritten"].graph_breaks > 0
    assert sweep.counts["rewritten"].per_size[0] == 2


def test_dynamic_from_the_start_compiles_once() -> None:
    sweep = bench_size_sweep(Plain(), Plain(), SIZES[:6], backend="eager", dynamic=True)
    assert sweep.compiles == {"original": 1, "rewritten": 1}


def test_static_shapes_compile_at_each_size_but_not_again() -> None:
    sweep = bench_size_sweep(Plain(), Plain(), [*SIZES[:6], SIZES[0]], backend="eager", dynamic=False)
    assert sweep.counts["rewritten"].per_size == (1, 1, 1, 1, 1, 1, 0)
    assert sweep.counts["rewritten"].repeats == 0


def test_a_model_that_compiles_again_for_a_repeated_size_is_caught() -> None:
    class Counting(Plain):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.conv(x) * self.calls

    sweep = bench_size_sweep(Plain(), Counting(), SIZES[:4], backend="eager")
    assert sweep.counts["original"].repeats == 0
    assert sweep.counts["rewritten"].repeats > 0


def test_text_and_json() -> None:
    sweep = bench_size_sweep(Plain(), Plain(), SIZES[:3], backend="eager", dtype=torch.float64)
    assert max(map(len, str(sweep).splitlines())) <= 100
    content = json.loads(sweep.to_json())
    assert content["schema"] == "padrewrite.bench-sizes/1"
    assert content["sizes"] == [list(size) for size in SIZES[:3]]
    assert content["variants"][1] == {
        "name": "rewritten", "compiles": 2, "per_size": [1, 1, 0], "repeats": 0, "graph_breaks": 0,
    }  # fmt: skip


def test_failures_are_named_with_the_size() -> None:
    with pytest.raises(InputsError, match="at least two sizes, got 1"):
        bench_size_sweep(Plain(), Plain(), SIZES[:1])
    bad = [*SIZES[:2], (1, 2, 16, 16)]
    with pytest.raises(InputsError, match=r"'original' failed at \(1, 2, 16, 16\): RuntimeError: Given groups=1"):
        bench_size_sweep(Plain(), Plain(), bad, backend="eager")

    class Picky(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).reshape(1, 4, 16, 20)

    with pytest.raises(ModelError, match=r"'rewritten' failed at \(1, 3, 17, 22\)"):
        bench_size_sweep(Plain(), Picky(), SIZES[:2], backend="eager")
