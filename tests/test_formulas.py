"""Number functions against brute force."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from strategies import windows_1d

from padrewrite.formulas import valid_count


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
