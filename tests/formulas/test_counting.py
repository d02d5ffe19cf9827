"""Counts of valid taps against windows slid by hand."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import windows_1d

from padrewrite.formulas import valid_count, valid_weight_fraction


def brute_force(size: int, kernel: int, stride: int, dilation: int, lo: int, hi: int) -> list[int]:
    """Slides the window over a list with the padding written out."""
    line = [False] * lo + [True] * size + [False] * hi
    span = dilation * (kernel - 1) + 1
    return [sum(line[i : i + span : dilation]) for i in range(0, len(line) - span + 1, stride)]


def test_valid_count_of_every_small_window() -> None:
    sizes, kernels, strides, rates, pads = range(1, 6), range(1, 5), (1, 2, 3), (1, 2, 3), range(5)
    for size, k, s, d, lo, hi in product(sizes, kernels, strides, rates, pads, pads):
        assert valid_count(size, k, s, d, lo, hi) == brute_force(size, k, s, d, lo, hi), (
            size,
            k,
            s,
            d,
            lo,
            hi,
        )


@given(windows_1d(max_kernel=9))
def test_valid_count_of_any_window(window: tuple[int, int, int, tuple[int, int], int]) -> None:
    k, s, d, (lo, hi), size = window
    assert valid_count(size, k, s, d, lo, hi) == brute_force(size, k, s, d, lo, hi)


def test_valid_count_can_be_zero_in_the_middle() -> None:
    assert valid_count(1, 2, 1, 2, 2, 2) == [1, 0, 1]


def test_valid_count_without_outputs_is_empty() -> None:
    assert valid_count(2, 5, 1, 1, 0, 0) == []


FRACTIONS = {
    1: 0.980,
    6: 0.881,
    12: 0.769,
    18: 0.665,
    24: 0.568,
    32: 0.451,
    48: 0.258,
    64: 0.118,
}


@pytest.mark.parametrize(("rate", "share"), FRACTIONS.items())
def test_valid_weights_of_the_figure(rate: int, share: float) -> None:
    """[DLv3] Fig. 4: a 3x3 kernel on 65 x 65 pixels."""
    assert round(valid_weight_fraction(65, rate), 3) == share


@pytest.mark.parametrize("rate", [65, 66, 1000])
def test_from_the_size_on_one_weight_of_nine_is_left(rate: int) -> None:
    assert valid_weight_fraction(65, rate) == pytest.approx(1 / 9, rel=1e-15)


@given(st.integers(1, 7), st.integers(1, 8), st.integers(1, 5))
def test_valid_weights_counted_one_by_one(size: int, rate: int, kernel: int) -> None:
    """Every tap of every output of the map."""
    span = rate * (kernel - 1)
    starts, taps = range(-(span // 2), size - span // 2), range(kernel)
    inside = range(size)
    met = sum(y + i * rate in inside and x + j * rate in inside for y, x, i, j in product(starts, starts, taps, taps))
    assert valid_weight_fraction(size, rate, kernel) == pytest.approx(met / (kernel * size) ** 2, rel=1e-14)
