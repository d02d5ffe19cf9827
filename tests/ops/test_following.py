"""What recorded calls do to positions, against the gradients of the calls themselves."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from analyses.oracles import NOISE
from torch import Tensor

import padrewrite as pr
from ops.calls import FOLLOWED, LOST, MIX, CallCase, Running
from padrewrite.analyses.layout import Layout, Origin, read_layout
from padrewrite.analyses.support import Support, Supports, positions

SHAPE = (1, 4, 6, 7)
Positions = frozenset[tuple[int, ...]]


def layout_of(case: CallCase, x: Tensor) -> Layout:
    return read_layout(pr.record(Running(case), example_inputs=x))


def draw() -> Tensor:
    return torch.rand(SHAPE, dtype=torch.float64) + 0.5


def read_by_torch(case: CallCase, x: Tensor) -> dict[tuple[int, ...], Positions]:
    """Per position along ``h`` and ``w`` (per output dimension of those letters) the input pixels it moves with."""
    moved = _moved(case, x)
    if case.maxima:
        # Only the largest moves a maximum: make each pixel the largest once.
        for pixel in product(*map(range, x.shape[2:])):
            spiked = x.clone()
            spiked[(..., *pixel)] += 100
            moved = moved | _moved(case, spiked)
    out = moved.dim() - 2
    assert out == len(case.dims)
    kept = [d for d, letter in enumerate(case.dims) if letter in "hw"]
    rest = [d for d in range(out) if d not in kept]
    moved = moved.any(dim=rest) if rest else moved
    found: dict[tuple[int, ...], Positions] = {}
    for index in product(*map(range, moved.shape[: len(kept)])):
        found[index] = frozenset(tuple(p) for p in moved[index].nonzero().tolist())
    return found


def _moved(case: CallCase, x: Tensor) -> Tensor:
    """``(*outputs, H, W)``: which pixels, in any channel, move which output."""
    jacobian: Any = torch.autograd.functional.jacobian(Running(case), x)
    out = jacobian.dim() - x.dim()
    return (jacobian.abs() > NOISE).flatten(out, out + 1).any(out)


def support_of(layout: Layout) -> Support:
    return Supports(layout, [Origin(0, 2), Origin(0, 3)], layout.outputs).of(layout.outputs[0])


def read_by_analysis(case: CallCase, layout: Layout) -> dict[tuple[int, ...], Positions]:
    (node,) = layout.outputs
    support = support_of(layout)
    kept = [d for d, letter in enumerate(case.dims) if letter in "hw"]
    used = {f.dim for term in support.terms for f in term.factors if f.dim is not None}
    assert used <= set(kept)
    shape = node.meta["shape"]
    found: dict[tuple[int, ...], Positions] = {}
    for index in product(*(range(shape[d]) for d in kept)):
        whole = [0] * len(shape)
        for d, i in zip(kept, index):
            whole[d] = i
        found[index] = frozenset(positions(support.terms, whole))
    return found


@pytest.mark.parametrize("case", FOLLOWED, ids=str)
def test_reads_what_torch_reads(case: CallCase) -> None:
    x = draw()
    layout = layout_of(case, x)
    assert support_of(layout).unknown is None
    assert layout.outputs[0].meta["shape"] == Running(case)(x).shape
    assert read_by_analysis(case, layout) == read_by_torch(case, x)


@pytest.mark.parametrize(("case", "reason"), LOST, ids=str)
def test_says_where_positions_are_lost(case: CallCase, reason: str) -> None:
    """Then what it says of the rest is an upper bound."""
    x = draw()
    layout = layout_of(case, x)
    assert reason in str(support_of(layout).unknown)
    by_torch = read_by_torch(case, x)
    for index, mine in read_by_analysis(case, layout).items():
        assert mine >= by_torch[index]


def test_only_what_moves_carries_positions() -> None:
    """The batch never does; the channels of an input not behind a convolution."""
    layout = layout_of(CallCase("relu", lambda x: x.relu()), draw())
    (node,) = layout.outputs
    assert layout.axes[node] == (None, None, Origin(0, 2), Origin(0, 3))
    assert layout.spatial(node) == (2, 3)


def test_a_computed_weight_is_read_as_a_whole() -> None:
    """A dynamic convolution depends on all that its weight was computed from; so does a conditional norm."""

    def dynamic(x: Tensor) -> Tensor:
        return F.conv2d(x, MIX[..., :1] * x.mean((0, 2, 3)).reshape(1, 4, 1, 1), None, 1, 1)

    def conditional(x: Tensor) -> Tensor:
        return F.batch_norm(x, MIX[0, :, 0, 0], MIX[1, :, 0, 0], weight=x.amax((0, 2, 3)))

    for run in (dynamic, conditional):
        layout = layout_of(CallCase("computed", run), draw())
        support = support_of(layout)
        assert [term.context for term in support.terms] == [False, True]
        assert len(positions(support.terms, (0, 0, 2, 2))) == SHAPE[2] * SHAPE[3]
        assert positions(support.local, (0, 0, 2, 2)) == {(2, 2) if run is conditional else (1, 1)}


def test_reads_no_more_of_a_constant() -> None:
    layout = layout_of(CallCase("zeros", lambda x: torch.zeros_like(x)), draw())
    assert support_of(layout).terms == ()
