"""Medians with distribution-free intervals. Pure numbers: no clock, no torch.

For n independent draws of a continuous distribution, the number of draws below its median is Binomial(n,
1/2). So the interval between the l-th smallest and the l-th largest draw covers the median with probability
``1 - 2 * P(Binomial(n, 1/2) < l)``, whatever the distribution. Run times are skewed and have outliers: a
normal interval of the mean would be wrong for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from statistics import median

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A median and the interval that covers the true one."""

    value: float
    low: float
    high: float
    coverage: float
    """Probability that an interval built this way covers the true median; below 0.95 when n < 6."""


def median_ranks(n: int, confidence: float = CONFIDENCE) -> tuple[int, int, float]:
    """Ranks of the order statistics that bound the median.

    Args:
        n: number of draws, at least 1.
        confidence: wanted coverage, in (0, 1).

    Returns:
        ``(low, high, coverage)``: 1-based ranks with ``low + high == n + 1``, the narrowest pair whose
        coverage is at least ``confidence``. Where even the extremes cover less (n < 6 at 0.95) they are
        returned with what they do cover.

    Raises:
        ValueError: n or confidence out of range.
    """
    if n < 1 or not 0 < confidence < 1:
        raise ValueError(f"median_ranks wants n >= 1 and 0 < confidence < 1, got n={n}, confidence={confidence}")
    budget = (1 - Fraction(confidence)) * 2**n
    low, outside = 1, 2
    while 2 * (low + 1) <= n + 1 and outside + 2 * comb(n, low) <= budget:
        outside += 2 * comb(n, low)
        low += 1
    return low, n + 1 - low, float(1 - Fraction(outside, 2**n))


def estimate_median(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The sample median and its distribution-free interval.

    Raises:
        ValueError: no values.
    """
    ordered = sorted(values)
    low, high, coverage = median_ranks(len(ordered), confidence)
    return Estimate(median(ordered), ordered[low - 1], ordered[high - 1], coverage)


def paired_ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Element-wise ``values / baseline``: what drifts over the rounds (clock rate, load) cancels within each
    round.

    Raises:
        ValueError: the lengths differ, or a baseline value is not positive.
    """
    if len(values) != len(baseline):
        raise ValueError(f"paired_ratios wants equally many rounds, got {len(values)} and {len(baseline)}")
    if any(b <= 0 for b in baseline):
        raise ValueError("paired_ratios wants positive baseline times")
    return [v / b for v, b in zip(values, baseline)]
