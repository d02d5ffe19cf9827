"""Symbolic sizes: calls that others stand in for, and sizes that one answer settles."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.recording.symbolic import stand_in

MODES = [
    *((1, mode) for mode in ("linear", "nearest", "nearest-exact")),
    *((2, mode) for mode in ("bilinear", "bicubic", "nearest", "nearest-exact")),
    *((3, mode) for mode in ("trilinear", "nearest")),
]


def layouts(x: Tensor) -> list[Tensor]:
    """The values in torch's formats, and with the batch last."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    found = [x, x.movedim(0, -1).contiguous().movedim(-1, 0)]
    return found if last is None else [*found, x.contiguous(memory_format=last)]


@pytest.mark.parametrize(("rank", "mode"), MODES)
def test_what_stands_in_for_interpolation_has_its_shape_type_and_layout(rank: int, mode: str) -> None:
    options: list[dict[str, Any]] = [{"size": (3,) * rank}, {"size": 7}]
    options += [{"scale_factor": f} for f in (2, 2.0, 1.3, (1.7, 0.6, 3.0)[:rank])]
    options += [{"scale_factor": 1.3, "recompute_scale_factor": True}]
    for sizes, given in itertools.product(itertools.product((2, 5), repeat=rank), options):
        for x in layouts(torch.randn(2, 3, *sizes, dtype=torch.float64)):
            full = {"size": None, "scale_factor": None, "recompute_scale_factor": None, "mode": mode, **given}
            wanted, found = F.interpolate(x, **full), stand_in(F.interpolate, (x,), full)(x, **full)
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
            strides = [(a, b) for a, b, n in zip(found.stride(), wanted.stride(), wanted.shape) if n > 1]
            assert all(a == b for a, b in strides), (sizes, given)


class Called(nn.Module):
    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def to_its_size(x: Tensor) -> Tensor:
    """The crop may keep all of its input, which unshuffling then asks about: torch holds the size for a number."""
    return F.pixel_unshuffle(x[..., :6, :9], 3).mean() + F.interpolate(x[..., :1, :1], x.shape[2:])


@pytest.mark.parametrize("sizes", [(6, 9), (7, 10)])
def test_a_size_that_an_answer_settled_is_no_symbol(sizes: tuple[int, int]) -> None:
    graph = pr.record(Called(to_its_size), example_inputs=torch.randn(1, 2, *sizes))
    if sizes == (7, 10):
        assert (graph.how, graph.notes) == ("symbolic", ())
    else:
        assert graph.how == "real inputs"
        assert "only for size 6 of input 0 along dimension 2" in graph.notes[0]


def test_a_size_that_the_model_needs_is_no_fault_of_the_recording() -> None:
    run: Callable[[Tensor], Tensor] = lambda x: F.pixel_unshuffle(x + torch.ones(9, 1), 3)  # noqa: E731
    assert pr.record(Called(run), example_inputs=torch.randn(1, 2, 9, 12)).how == "symbolic"
