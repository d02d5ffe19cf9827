"""Interpolation against torch: every mode, by size and by factor; where float arithmetic chooses otherwise."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import floor

import pytest
import torch
import torch.nn.functional as F
from analyses.oracles import NOISE, Op, gradients, responses, rows_of, size_of
from torch import Tensor

from ops.test_axis import check
from padrewrite.ops.resample import CHECKED, Resample, exactly

FACTORS = (2.0, 3.0, 0.5, 1.5, 0.7, 1.3, 1 / 3, 2 / 3, 0.29, 2.5, 0.1)
MODES = (("nearest", False), ("nearest-exact", False), ("linear", False), ("linear", True), ("area", False))
CUBIC = (("cubic", False), ("cubic", True))


def interpolate(x: Tensor, kind: str, align: bool, **numbers: object) -> Tensor:
    """One axis of ``F.interpolate``; what exists for images only: an image of one row."""
    corners = align if kind in ("linear", "cubic") else None
    if kind != "cubic" and "antialias" not in numbers:
        return F.interpolate(x, mode=kind, align_corners=corners, **numbers)  # pyright: ignore
    one = {"size": 1, "scale_factor": 1.0}
    pairs = {name: (one[name], value) if name in one else value for name, value in numbers.items()}
    return F.interpolate(x[:, :, None], mode=f"bi{kind}", align_corners=corners, **pairs)[:, :, 0]  # pyright: ignore


def weigh(op: Op, n: int) -> Tensor:
    """torch's backward of the nearest modes computes positions in float32, whatever the type: run them forward."""
    return responses(op, n)


@pytest.mark.parametrize(("kind", "align"), MODES + CUBIC)
def test_by_size(kind: str, align: bool) -> None:
    for count in range(1, 24):

        def op(x, count=count):
            return interpolate(x, kind, align, size=count)

        check(Resample(kind, count, None, align), op, range(1, 21), weigh=weigh)


FILTERED = (("linear", False), ("linear", True), *CUBIC)


@pytest.mark.parametrize(("kind", "align"), FILTERED)
def test_antialiased_by_size(kind: str, align: bool) -> None:
    """Also where the filter is wider than the input. Aligned corners push wide filters over the end of a long one."""
    far = 20 if align else 120
    for count in range(1, 24):

        def op(x, count=count):
            return interpolate(x, kind, align, size=count, antialias=True)

        check(Resample(kind, count, None, align, antialias=True), op, range(1, 21), far)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(("kind", "align"), FILTERED)
def test_antialiased_by_factor(kind: str, align: bool, factor: float, recompute: bool) -> None:
    def op(x):
        return interpolate(x, kind, align, scale_factor=factor, recompute_scale_factor=recompute, antialias=True)

    axis = Resample(kind, None, factor, align, recompute, antialias=True)
    check(axis, op, range(1, 31), far=120)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(("kind", "align"), MODES + CUBIC)
def test_by_factor(kind: str, align: bool, factor: float, recompute: bool) -> None:
    def op(x):
        return interpolate(x, kind, align, scale_factor=factor, recompute_scale_factor=recompute)

    # Rounding aside a resize ends where its input does, so that the middle of 60 pixels is far from both ends.
    check(Resample(kind, None, factor, align, recompute), op, range(1, 41), far=60, weigh=weigh)


@pytest.mark.parametrize(("kind", "align"), [("linear", False), ("linear", True), ("area", False), *CUBIC])
def test_gradients_say_the_same(kind: str, align: bool) -> None:
    for n, count in product((1, 2, 5, 8), (1, 3, 4, 9, 16)):

        def op(x, count=count):
            return interpolate(x, kind, align, size=count)

        assert Resample(kind, count, None, align).reads(n) == rows_of(gradients(op, n))


@pytest.mark.parametrize(("kind", "align"), [("linear", False), ("linear", True)])
def test_each_output_is_centred_on_its_coordinate(kind: str, align: bool) -> None:
    for n, count in product((7, 12, 16), (2, 5, 12, 19, 30)):
        phase = Resample(kind, count, None, align).phase(n)
        weights = gradients(lambda x, count=count: interpolate(x, kind, align, size=count), n)
        assert phase is not None
        for i, centre in enumerate((weights * torch.arange(n)).sum(1)):
            wanted = float(phase[0] * i + phase[1])
            if 1 <= wanted <= n - 2:  # no neighbour is clamped
                assert abs(float(centre) - wanted) < NOISE, (n, count, i)


def test_sizes_are_torchs() -> None:
    """torch multiplies in float64 and cuts off: exact arithmetic would differ."""
    differs = 0
    for factor in (*FACTORS, 1.1, 0.3333, 3.141592653589793):
        for n in range(1, 400):

            def op(x, factor=factor):
                return F.interpolate(x, scale_factor=factor)

            size = size_of(op, n)
            assert Resample("nearest", None, factor).size(n) == (size or 0)
            differs += Resample("nearest", None, factor).size(n) != floor(n * exactly(factor))
    assert Resample("nearest", None, 0.29).size(100) == 28
    assert differs > 0


def test_irregular_growth_is_not_claimed() -> None:
    for factor in (*FACTORS, 1.1, 0.3333, 3.141592653589793, 0.123456789):
        exact = exactly(factor)
        regular = all(int(n * factor) == floor(n * exact) for n in range(1, CHECKED + 1))
        assert Resample("linear", None, factor).growth == ((exact.denominator, exact.numerator) if regular else None)
    assert Resample("linear", None, 0.29).growth is None
    assert Resample("linear", None, 1.5).growth == (2, 3)


def test_fraction_of_a_factor() -> None:
    for p, q in product(range(1, 40), repeat=2):
        assert exactly(p / q) == Fraction(p, q)
    assert exactly(0.3333) == Fraction(3333, 10000) != Fraction(1, 3)
    assert float(exactly(3.141592653589793)) == 3.141592653589793


def test_float32_chooses_another_pixel_at_times() -> None:
    """What the docstring says: exact positions are those of float64; float32 is off by one for few pairs of sizes."""
    off = {"nearest": 0, "nearest-exact": 0}
    sizes = list(product(range(1, 17), range(1, 129)))
    for kind, (n, count) in product(off, sizes):
        exact = Resample(kind, count).reads(n)
        for dtype in (torch.float64, torch.float32):
            unit = torch.eye(n, dtype=dtype)[:, None]
            got = F.interpolate(unit, count, mode=kind)[:, 0].argmax(0).tolist()
            if dtype == torch.float64:
                assert tuple((j,) for j in got) == exact
            elif tuple((j,) for j in got) != exact:
                off[kind] += 1
                assert all(j in (row[0], row[0] - 1) for j, row in zip(got, exact))
    assert all(0 < count < 0.03 * len(sizes) for count in off.values()), off
    assert F.interpolate(torch.arange(2.0)[None, None], 82)[0, 0, 41] == 0


def test_one_output_with_aligned_corners_reads_the_first_input() -> None:
    axis = Resample("linear", 1, None, True)
    assert axis.reads(5) == ((0,),)
    assert axis.phase(5) is None
    assert axis.period(5) is None


@pytest.mark.parametrize("kind", ["nearest", "nearest-exact", "area"])
def test_uneven_steps_sit_on_their_line_on_average(kind: str) -> None:
    """Exactly, and single outputs of the nearest modes no farther off it than the docstring says, which some are."""
    for n, count in product(range(1, 25), range(1, 37)):
        phase, ratio = Resample(kind, count).phase(n), Fraction(n, count)
        assert phase is not None
        rows = rows_of(responses(lambda x, count=count: F.interpolate(x, count, mode=kind), n))
        centres = [Fraction(sum(row), len(row)) for row in rows]  # all of a row weigh the same
        off = [centre - phase[0] * i - phase[1] for i, centre in enumerate(centres)]
        assert phase[0] == ratio
        assert sum(off) == 0, (n, count)
        if kind != "area":
            assert max(map(abs, off)) == Fraction(ratio.denominator - 1, 2 * ratio.denominator), (n, count)
