"""Rules of dilated chains against sets added up and path counts transformed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from math import gcd
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulas.supports import (
    KERNELS,
    LONGEST,
    every_chain,
    every_sorted_chain,
    has_no_hole,
    is_contiguous,
    strided_support,
    support,
)
from padrewrite.formulas import gridding_score, is_hole_free, max_gap

LAYERS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("rates", "gap"),
    [
        ((1, 2, 5), 2),
        ((1, 2, 9), 5),
        ((2, 2, 2), 2),
        ((3, 4, 5), 4),
        ((5, 9, 17), 9),
        ((1, 2), 2),
        ((7,), 7),
    ],
)
def test_gap_of_the_paper(rates: tuple[int, ...], gap: int) -> None:
    """[HDC] Section 3.2. The last two: M_2 = M_n = r_2, and a chain that has no M_2."""
    assert max_gap(rates) == gap


def test_gap_by_hand_for_another_kernel() -> None:
    """K = 5: M_4 = 20, M_3 = max(|20 - 4*3|, 3) = 8, M_2 = max(|8 - 4*1|, 1) = 4."""
    assert max_gap((1, 1, 3, 20), kernel=5) == 4


def test_the_paper_passes_what_grids() -> None:
    assert max_gap((2, 2, 2)) <= 3
    assert not is_hole_free((2, 2, 2), 3)
    assert gridding_score((2, 2, 2), 3) == 1


def test_two_for_every_kernel_passes_holes() -> None:
    """Kernel 2 covers 0..3 with rates 1 and 2, then repeats that at distance 6. With K - 1 = 1 the rule sees it."""
    assert max_gap((1, 2, 6), kernel=3) <= 2
    assert not is_hole_free((1, 2, 6), 2)
    assert max_gap((1, 2, 6), kernel=2) > 2


@pytest.mark.parametrize("last", [(3, 4, 5), (5, 9, 17)])
def test_the_papers_last_groups_pass_only_as_part_of_the_chain(last: tuple[int, ...]) -> None:
    assert max_gap(last) > 3
    assert not is_hole_free(last, 3)
    assert is_hole_free((1, 2, 3, 2, 2, *last), 3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_theorem_for_every_chain_of_equal_kernels(kernel: int) -> None:
    """Rates up to 12, up to 4 layers. Sums of sets do not depend on the order; here neither does the answer."""
    truth = {rates: has_no_hole(rates, kernel) for rates in every_sorted_chain(range(1, LONGEST + 1))}
    assert 0 < sum(truth.values()) < len(truth) == 1819
    for rates in every_chain(range(1, LONGEST + 1)):
        assert is_hole_free(rates, kernel) == truth[tuple(sorted(rates))], (rates, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_set_itself_does_not_depend_on_the_order(kernel: int) -> None:
    for rates in every_sorted_chain((2, 3)):
        assert len({support(order, [kernel] * len(order)) for order in permutations(rates)}) == 1, rates


@given(LAYERS)
def test_theorem_for_mixed_kernels(layers: list[tuple[int, int, int]]) -> None:
    rates, kernels, _ = zip(*layers)
    assert is_hole_free(rates, kernels) == is_contiguous(support(rates, kernels))


@given(LAYERS)
def test_theorem_for_strides(layers: list[tuple[int, int, int]]) -> None:
    rates, kernels, strides = zip(*layers)
    read = strided_support(rates, kernels, strides)
    assert is_hole_free(rates, kernels, strides) == (len(read) == max(read) + 1)


def test_theorem_for_every_short_chain_with_strides() -> None:
    for layers in product(range(1, 4), (2, 3), range(1, 4), range(1, 4), (2, 3), range(1, 4), range(1, 4), (2, 3)):
        rates, kernels, strides = layers[0::3], layers[1::3], (*layers[2::3], 1)
        read = strided_support(rates, kernels, strides)
        assert is_hole_free(rates, kernels, strides) == (len(read) == max(read) + 1), (rates, kernels, strides)


def test_strides_count_from_the_next_layer_on() -> None:
    assert is_hole_free((1, 1), 3, strides=(3, 1))
    assert not is_hole_free((1, 1), 3, strides=(4, 1))
    assert is_hole_free((1, 1), 3, strides=(1, 4))
    assert not is_hole_free((1, 1), 2, strides=3)
    assert not is_hole_free((1, 1), (1, 3), strides=(2, 1))


def test_layers_of_one_tap_are_ignored() -> None:
    assert is_hole_free((5, 1, 9, 3), (1, 3, 1, 3))
    assert is_hole_free((5,), 1)
    assert gridding_score((4, 1, 2, 3), (1, 3, 3, 3)) == gridding_score((1, 2, 3), 3)
    assert gridding_score((2, 4), 1) == 0


def test_chains_of_known_networks() -> None:
    assert is_hole_free([2**i for i in range(10)], 2), "WaveNet"
    assert is_hole_free([1, 1, 2, 2, 4, 4, 2, 2, 1, 1], 3), "DRN-C"
    assert is_hole_free([1] + [2] * 22, 3), "hole-free says little"
    assert gridding_score([1] + [2] * 22, 3) == pytest.approx(1 / 3, rel=1e-12)


@pytest.mark.parametrize(
    ("rates", "score"),
    [((2, 2, 2), 1), ((1, 2, 3), 0.111), ((1, 2, 4), 0.333), ((1, 2, 9), 0.379), ((1, 3, 8), 0.15)],
)
def test_score_of_known_chains(rates: tuple[int, ...], score: float) -> None:
    assert round(gridding_score(rates, 3), 3) == score


def transformed(rates: Sequence[int], kernels: Sequence[int]) -> float:
    """The largest share of the path counts at any period, from the counts themselves."""
    counts = np.ones(1)
    for rate, kernel in zip(rates, kernels):
        taps = np.zeros(rate * (kernel - 1) + 1)
        taps[::rate] = 1
        counts = np.convolve(counts, taps)
    worst = 0.0
    for period in range(2, max((r for r, k in zip(rates, kernels) if k > 1), default=1) + 1):
        folded = np.zeros(period)
        np.add.at(folded, np.arange(len(counts)) % period, counts)
        worst = max(worst, np.abs(np.fft.fft(folded))[1:].max() / counts.sum())
    return worst


@given(LAYERS)
def test_score_is_the_transform_of_the_path_counts(layers: list[tuple[int, int, int]]) -> None:
    rates, kernels, _ = zip(*layers)
    assert gridding_score(rates, kernels) == pytest.approx(transformed(rates, kernels), abs=1e-12)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(2, 6))
def test_score_is_one_for_a_common_divisor_only(rates: list[int], kernel: int) -> None:
    assert (gridding_score(rates, kernel) == 1) == (gcd(*rates) > 1)


@given(LAYERS, st.randoms(use_true_random=False))
def test_order_does_not_matter_without_strides(layers: list[tuple[int, int, int]], random: Random) -> None:
    rates, kernels, _ = zip(*layers)
    mixed = list(layers)
    random.shuffle(mixed)
    others, other_kernels, _ = zip(*mixed)
    assert is_hole_free(rates, kernels) == is_hole_free(others, other_kernels)
    assert gridding_score(rates, kernels) == pytest.approx(gridding_score(others, other_kernels), abs=1e-14)
