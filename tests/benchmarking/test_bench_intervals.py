"""Order-statistic intervals against tables, against enumeration of every outcome, and against simulation."""

from __future__ import annotations

import math
import random
import statistics
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from padrewrite.benchmarking.intervals import estimate_median, median_ranks, paired_ratios

# Ranks of the 95 % interval of a median as printed in tables of the binomial (sign test).
TABLE = [
    (6, 1, 6),
    (8, 1, 8),
    (9, 2, 8),
    (10, 2, 9),
    (12, 3, 10),
    (15, 4, 12),
    (20, 6, 15),
    (25, 8, 18),
    (30, 10, 21),
]


@pytest.mark.parametrize(("n", "low", "high"), TABLE)
def test_ranks_are_those_of_the_printed_tables(n: int, low: int, high: int) -> None:
    assert median_ranks(n)[:2] == (low, high)


def _enumerated_coverage(n: int, low: int, high: int) -> float:
    """Share of the 2**n ways to fall around the median in which it lies between the two ranks."""
    hits = 0
    for below in product((False, True), repeat=n):
        hits += low <= sum(below) < high
    return hits / 2**n


@pytest.mark.parametrize("n", range(1, 14))
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_ranks_against_enumeration(n: int, confidence: float) -> None:
    low, high, coverage = median_ranks(n, confidence)
    assert low + high == n + 1
    assert low <= high
    assert coverage == pytest.approx(_enumerated_coverage(n, low, high), abs=1e-12)
    if low > 1:
        assert coverage >= confidence
    if low + 1 <= high - 1:
        assert _enumerated_coverage(n, low + 1, high - 1) < confidence, "a narrower interval would have done"


@pytest.mark.parametrize(("n", "coverage"), [(1, 0.0), (2, 0.5), (5, 0.9375)])
def test_too_few_draws_say_what_they_cover(n: int, coverage: float) -> None:
    assert median_ranks(n) == (1, n, coverage)


def test_many_draws_do_not_overflow() -> None:
    low, high, coverage = median_ranks(3001)
    assert 0.95 <= coverage < 0.9525
    # The normal approximation of the binomial: n/2 -+ 1.96 sqrt(n)/2.
    assert abs(low - (1500 - 0.98 * math.sqrt(3001))) < 2
    assert high == 3002 - low


@pytest.mark.parametrize("n", [9, 20])
def test_coverage_by_simulation(n: int) -> None:
    """Skewed draws, as run times are: the interval covers the true median as often as it says."""
    rng = random.Random(417)
    trials, true_median = 4000, 1.0  # exp(0), the median of the lognormal
    hits = 0
    for _ in range(trials):
        draws = [rng.lognormvariate(0, 0.5) for _ in range(n)]
        estimate = estimate_median(draws)
        hits += estimate.low <= true_median <= estimate.high
    coverage = median_ranks(n)[2]
    spread = math.sqrt(coverage * (1 - coverage) / trials)
    assert abs(hits / trials - coverage) < 4 * spread


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_estimate_is_ordered_and_blind_to_the_order_of_draws(values: list[float], rng: random.Random) -> None:
    estimate = estimate_median(values)
    assert estimate.value == statistics.median(values)
    assert estimate.low <= estimate.value <= estimate.high
    assert {estimate.low, estimate.high} <= set(values)
    shuffled = list(values)
    rng.shuffle(shuffled)
    assert estimate_median(shuffled) == estimate


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30), st.floats(0.5, 2))
def test_a_drift_common_to_both_cancels(drift: list[float], factor: float) -> None:
    ratios = paired_ratios([factor * d for d in drift], drift)
    assert ratios == pytest.approx([factor] * len(drift))


def test_ratios_are_of_the_round_and_not_of_the_medians() -> None:
    # Ratio of medians 3/2; median of ratios 1.
    assert statistics.median(paired_ratios([1.0, 3.0, 4.0], [1.0, 2.0, 5.0])) == 1.0


@pytest.mark.parametrize(("n", "confidence"), [(0, 0.95), (5, 0.0), (5, 1.0)])
def test_ranks_out_of_range(n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="median_ranks wants"):
        median_ranks(n, confidence)


@pytest.mark.parametrize(("values", "base"), [([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0], [-1.0])])
def test_ratios_out_of_range(values: list[float], base: list[float]) -> None:
    with pytest.raises(ValueError, match="paired_ratios wants"):
        paired_ratios(values, base)
