"""Axis maps against torch: sizes, what every output reads, how sizes grow, how windows repeat, where outputs sit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from analyses.oracles import NOISE, Op, gradients, responses, rows_of, size_of
from torch import Tensor

from padrewrite.ops.axis import AxisMap, Bins, Cut, Pick, Repeat, Roll, Same, Shift, Slide, Spread, Stretch, Whole

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
FAR = 40
"""A size at which the windows in the middle touch no border."""


def check(
    axis: AxisMap, op: Op, sizes: Iterable[int], far: int = FAR, weigh: Callable[[Op, int], Tensor] = gradients
) -> None:
    """Everything that a map says of itself, at ``sizes``, and in the middle of an axis of size ``far``."""
    for n in sizes:
        size = size_of(op, n)
        if size is not None:
            assert axis.size(n) == size, (axis, n)
            assert axis.reads(n) == rows_of(weigh(op, n)), (axis, n)
    check_growth(axis, op, far)
    if axis.size(far) >= 12:
        check_middle(axis, weigh(op, far), far)


def check_growth(axis: AxisMap, op: Op, far: int) -> None:
    if axis.growth is not None:
        more, outputs = axis.growth
        sizes = {n: size_of(op, n + more) for n in range(far, far + 3)}
        assert sizes[far] is not None
        for n, size in sizes.items():
            assert size in (None, axis.size(n) + outputs), (axis, n)


def check_middle(axis: AxisMap, weights: Tensor, n: int) -> None:
    """``period`` and ``phase`` against the weights themselves."""
    outputs = len(weights)
    step = axis.period(n)
    if step is None:
        return
    by, moved = step
    middle = range(outputs // 6, outputs - outputs // 6)
    for i in middle:
        if i + by in middle:
            shifted = weights[i].roll(moved)
            assert (shifted - weights[i + by]).abs().max() < NOISE, (axis, i)
    phase = axis.phase(n)
    if phase is not None:
        scale, offset = phase
        assert scale == Fraction(moved, by), axis
    if phase is not None and by <= len(middle):
        # The centre of what a whole period of outputs reads; each output's own, where all are alike.
        block = weights[middle.start : middle.start + by]
        own = torch.arange(middle.start, middle.start + by, dtype=torch.float64)[:, None]
        at = torch.arange(n, dtype=torch.float64) - float(scale) * own
        assert abs(float((block * at).sum() / block.sum()) - float(offset)) < NOISE, axis


def windows() -> list[tuple[int, int, int]]:
    return list(product((1, 2, 3, 4), (1, 2, 3), (1, 2, 3)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), windows())
def test_convolution(kernel: int, stride: int, dilation: int, mode: str) -> None:
    weight = torch.ones(1, 1, kernel, dtype=torch.float64)
    for lo, hi in ((0, 0), (1, 1), (0, 2), (3, 1), (2, 3)):

        def op(x: Tensor, lo: int = lo, hi: int = hi) -> Tensor:
            return F.conv1d(F.pad(x, (lo, hi), MODES[mode]), weight, None, stride, 0, dilation)

        axis = Slide(kernel, stride, dilation, lo, hi, mode)
        check(axis, op, (1, 2, 3, 4, 7, 10), far=40 if stride < 3 else 60)
        check_made_up(axis, lo, hi, mode == "zeros")


def check_made_up(axis: Slide, lo: int, hi: int, made_up: bool) -> None:
    for n in (4, 7, 10):
        if axis.size(n) > 0:
            padding = F.pad(torch.zeros(1, 1, n), (lo, hi), value=1.0)
            counts = F.conv1d(padding, torch.ones(1, 1, axis.kernel), None, axis.stride, 0, axis.dilation)
            assert axis.made_up(n) == (tuple(map(int, counts[0, 0])) if made_up else (0,) * axis.size(n))


@pytest.mark.parametrize("mode", MODES)
def test_pads_and_crops(mode: str) -> None:
    least = -2 if mode == "zeros" else 0
    for lo, hi in product(range(least, 4), repeat=2):
        axis = Slide(1, lo=lo, hi=hi, mode=mode)
        check(axis, lambda x, lo=lo, hi=hi: F.pad(x, (lo, hi), MODES[mode]), (2, 3, 5, 8))


def test_a_folded_crop_reads_as_torch_does() -> None:
    weight = torch.ones(1, 1, 3, dtype=torch.float64)
    for lo, hi, stride in product((-2, -1, 1), (-2, -1, 1), (1, 2)):

        def op(x, lo=lo, hi=hi, stride=stride):
            return F.conv1d(F.pad(x, (lo, hi)), weight, None, stride)

        check(Slide(3, stride, 1, lo, hi), op, (7, 8, 9))


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), list(product((1, 2, 3, 4, 5), (1, 2, 3, 4))))
def test_average_pool(kernel: int, stride: int, ceil: bool) -> None:
    for pad, counted in product(range(kernel // 2 + 1), (False, True)):
        axis = Slide(kernel, stride, 1, pad, pad, "zeros" if counted else "ignored", ceil)

        def op(x, pad=pad, counted=counted):
            return F.avg_pool1d(x, kernel, stride, pad, ceil, counted)

        check(axis, op, (1, 2, 3, 4, 7, 8, 9, 10, 11), far=64)
        for n in (5, 8, 9, 10, 11):
            # The mean of ones is 1 less the share of padding in what is averaged.
            means, rows = op(torch.ones(1, 1, n, dtype=torch.float64))[0, 0], axis.reads(n)
            shares = [made / (made + len(row)) for made, row in zip(axis.made_up(n), rows)]
            assert (means - (1 - torch.tensor(shares, dtype=torch.float64))).abs().max() < NOISE


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), windows())
def test_max_pool(kernel: int, stride: int, dilation: int, ceil: bool) -> None:
    for pad in range(kernel // 2 + 1):
        axis = Slide(kernel, stride, dilation, pad, pad, "ignored", ceil)

        def op(x: Tensor, pad: int = pad) -> Tensor:
            best = F.max_pool1d(x, kernel, stride, pad, dilation, ceil)
            return best.clamp(min=0)  # a window of nothing but padding is -inf

        check(axis, op, (1, 2, 3, 4, 7, 8, 9, 10, 11), far=64, weigh=responses)
        assert not any(axis.made_up(9))


def test_unread_counts_what_no_window_reaches() -> None:
    for kernel, stride, lo, hi, n, ceil in product((1, 2, 3), (1, 2, 3), (0, 1), (0, 1, 2), (4, 7, 8), (False, True)):
        axis = Slide(kernel, stride, 1, lo, hi, ceil=ceil)
        last = max(axis.taps(axis.size(n) - 1, n))
        assert axis.unread(n) == n + hi - 1 - last


@pytest.mark.parametrize(("kernel", "stride", "dilation"), windows())
def test_transposed_convolution(kernel: int, stride: int, dilation: int) -> None:
    weight = torch.ones(1, 1, kernel, dtype=torch.float64)
    for pad, extra in product(range(3), range(max(stride, dilation))):

        def op(x: Tensor, pad: int = pad, extra: int = extra) -> Tensor:
            return F.conv_transpose1d(x, weight, None, stride, pad, extra, 1, dilation)

        check(Spread(kernel, stride, dilation, pad, pad, extra), op, (1, 2, 3, 6), far=60)


ENDS = (None, 0, 1, 3, 100, -1, -3)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_slice(step: int) -> None:
    for start, stop in product(ENDS, ENDS):
        check(Pick(start, stop, step), lambda x, a=start, b=stop: x[..., a:b:step], (3, 4, 7), far=110)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_pixel_shuffle(times: int) -> None:
    def up(x: Tensor) -> Tensor:
        wide = x[:, :, None].expand(-1, times * times, 1, -1)
        return F.pixel_shuffle(wide, times)[:, :, 0]

    def down(x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x[:, :, None].expand(-1, 1, times, -1), times).sum(1)

    check(Repeat(times), up, (1, 2, 5))
    check(Repeat(times), lambda x: x.repeat_interleave(times, dim=2), (1, 2, 5))
    check(Slide(times, times), down, range(1, 10), far=36)


def test_roll() -> None:
    for by in range(-5, 6):
        check(Roll(by), lambda x, by=by: x.roll(by, -1), (1, 2, 4, 7))
        assert Roll(by).period(9) is None
        for n in (1, 2, 4, 9):
            scale, offset = Roll(by).phase(n)
            rows = rows_of(gradients(lambda x, by=by: x.roll(by, -1), n))
            alike = [row == (scale * i + offset,) for i, row in enumerate(rows)]
            assert 2 * sum(alike) >= n, (by, n)
        assert Roll(by).phase(9)[1] == -Roll(-by).phase(9)[1]


def test_concatenation() -> None:
    for before, after in product((0, 1, 3), repeat=2):

        def op(x: Tensor, before: int = before, after: int = after) -> Tensor:
            return torch.cat([x.new_zeros(*x.shape[:-1], before), x, x.new_zeros(*x.shape[:-1], after)], -1)

        for n in (1, 4, 24):
            check(Shift(before, before + n + after), op, (n,), far=n)


def test_broadcast_and_reduction_and_identity() -> None:
    for count in (1, 3):
        check(Stretch(count), lambda x, count=count: x.expand(-1, -1, count), (1,), far=1)
        check(Whole(count), lambda x, count=count: x.mean(-1, keepdim=True).expand(-1, -1, count), (1, 2, 5))
    check(Same(), lambda x: x * 2, (1, 2, 5))
    assert Stretch(3).growth is None


@pytest.mark.parametrize("count", range(1, 14))
def test_adaptive_pool(count: int) -> None:
    check(Bins(count), lambda x: F.adaptive_avg_pool1d(x, count), range(1, 27), far=60)
    for n in (24, 36, 40):
        weights = gradients(lambda x: F.adaptive_avg_pool1d(x, count), n)
        centres = [Fraction(sum(row), len(row)) for row in rows_of(weights)]
        scale, offset = Bins(count).phase(n)
        off = [centre - scale * i - offset for i, centre in enumerate(centres)]
        assert sum(off) == 0
        assert n % count or not any(off)


def test_parts_of_chunk_and_split() -> None:
    for amount, index in product((1, 2, 3, 4), range(4)):

        def chunk(x: Tensor, amount: int = amount, index: int = index) -> Tensor:
            return piece(x.chunk(amount, -1), index)

        def split(x: Tensor, amount: int = amount, index: int = index) -> Tensor:
            return piece(x.split(amount, -1), index)

        if index < amount:
            check(Cut(index, amount), chunk, range(1, 14))
        check(Cut(index, width=amount), split, range(1, 14))


def piece(parts: tuple[Tensor, ...], index: int) -> Tensor:
    return parts[index] if index < len(parts) else parts[0][..., :0]


def test_maps_are_told_apart_by_their_numbers() -> None:
    """Rows are remembered by map: equal numbers must mean equal maps, and other classes other maps."""
    maps: list[Any] = [
        Same(),
        Roll(1),
        Repeat(1),
        Stretch(1),
        Whole(1),
        Bins(1),
        Pick(),
        Cut(0, 1),
        Slide(1),
        Spread(1),
    ]
    assert len(set(maps)) == len(maps)
    assert Slide(3, 1, 1, 1, 1) == Slide(3, 1, 1, 1, 1)
