"""The optimal rates of one group: non-decreasing, hole-free, with a given sum, nearest in squares.

A search over prefixes, best first (A*): a prefix is worth the squares it has cost and a bound from below on the rest.
The bound is the exact cost of the rest if rates may be fractions and need only be non-decreasing from the last rate on,
plus what their sum then still lacks, spread evenly: (lack)^2 / layers. Bounded isotonic regression gives both at once.
It is sharp because all wanted rates are first moved by one constant, which moves all costs of one sum alike, to where
the relaxed rates have nearly the wanted sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from heapq import heappop, heappush

Block = tuple[int, int, int]
"""Neighbours that isotonic regression gives their common mean: how many, their sum, the sum of their squares."""


def largest_sum(layers: int, kernel: int) -> int:
    """What the rates of a hole-free group add up to at most: 1 + K + K^2 + .."""
    return (kernel**layers - 1) // (kernel - 1)


def nearest_rates(wanted: Sequence[int], kernel: int, total: int) -> tuple[int, ...]:
    """Non-decreasing hole-free rates that add up to ``total``, nearest to ``wanted`` in squares.

    Args:
        wanted: at least one rate of at least 1.
        kernel: taps per axis, at least 2.
        total: between the number of layers and ``largest_sum``.

    Returns:
        Of several the lexicographically smallest.
    """
    rest = _Rest(wanted, kernel, total)
    # Equal promises leave the heap in the order of their prefixes, so the first full one is the smallest.
    heap: list[tuple[int, tuple[int, ...], int]] = [(0, (), 0)]
    seen: dict[tuple[int, int, int], tuple[int, tuple[int, ...]]] = {}
    while True:
        _, prefix, cost = heappop(heap)
        layer, reached, last = len(prefix), sum(prefix), prefix[-1] if prefix else 1
        if layer == len(wanted):
            return prefix
        place = (layer, last, reached)
        if place in seen and seen[place] <= (cost, prefix):
            continue
        seen[place] = (cost, prefix)
        for rate in _next_rates(last, reached, len(wanted) - layer, kernel, total):
            spent = cost + (rate - rest.aims[layer]) ** 2
            promise = spent + rest.bound(layer + 1, rate, total - reached - rate)
            heappush(heap, (promise, (*prefix, rate), spent))


def _next_rates(last: int, reached: int, layers: int, kernel: int, total: int) -> range:
    """Rates after a prefix with sum ``reached`` that leave no hole and from which ``total`` can be met.

    The ``layers`` left have at least this rate each, and at most what is covered, which grows K-fold each time.
    """
    covered = 1 + (kernel - 1) * reached
    grown = kernel ** (layers - 1)
    # After this rate r, the largest final sum is grown * (reached + r) + largest_sum(layers - 1).
    least = -((largest_sum(layers - 1, kernel) - total) // grown) - reached
    return range(max(last, least), min(covered, (total - reached) // layers) + 1)


class _Rest:
    """What the layers after a prefix cost at least."""

    def __init__(self, wanted: Sequence[int], kernel: int, total: int) -> None:
        caps = [kernel**i for i in range(len(wanted))]
        relaxed = [s / n for n, s, _ in _blocks(wanted) for _ in range(n)]
        move = bisect_left(
            range(total), True, key=lambda m: sum(min(r + m, cap) for r, cap in zip(relaxed, caps)) >= total
        )
        self.aims = [w + move for w in wanted]
        # No rate exceeds its cap. Where the relaxed one would, the cap becomes the aim and the excess is paid for.
        capped = [min(a, cap) if r + move >= cap else a for a, cap, r in zip(self.aims, caps, relaxed)]
        suffixes = range(len(capped) + 1)
        self._paid = [sum((a - c) ** 2 for a, c in zip(self.aims[i:], capped[i:])) for i in suffixes]
        self._suffixes = [_blocks(capped[i:]) for i in suffixes]
        self._known: dict[tuple[int, int], tuple[int, int, int]] = {}

    def bound(self, layer: int, last: int, total: int) -> int:
        """Least cost of the layers from ``layer`` on, if their rates are at least ``last`` and add up to ``total``."""
        layers = len(self.aims) - layer
        if not layers:
            return 0
        if (layer, last) not in self._known:
            self._known[layer, last] = self._relax(layer, last)
        top, bottom, reached = self._known[layer, last]
        lack = total - reached
        return -(-(top * layers + lack * lack * bottom) // (bottom * layers))

    def _relax(self, layer: int, last: int) -> tuple[int, int, int]:
        """Cost (as a fraction) and sum of the best non-decreasing fractions of at least ``last``."""
        cost, reached = Fraction(self._paid[layer]), 0
        for n, s, squares in self._suffixes[layer]:
            if s < n * last:
                cost += squares - 2 * last * s + n * last * last
            else:
                cost += squares - Fraction(s * s, n)
            reached += max(s, n * last)
        return cost.numerator, cost.denominator, reached


def _blocks(values: Sequence[int]) -> list[Block]:
    """The isotonic regression of ``values``: neighbours that decrease are pooled until the means ascend."""
    blocks: list[Block] = []
    for value in values:
        n, s, squares = 1, value, value * value
        while blocks and blocks[-1][1] * n >= s * blocks[-1][0]:
            m, t, more = blocks.pop()
            n, s, squares = n + m, s + t, squares + more
        blocks.append((n, s, squares))
    return blocks
