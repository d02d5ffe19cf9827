"""What a chain of convolutions reads, by adding up sets: nothing here knows of a formula."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations_with_replacement, product

KERNELS = (2, 3, 5, 7)
LARGEST_RATE = 12
LONGEST = 4


def every_chain(lengths: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """All rates up to 12, in every order."""
    return (rates for n in lengths for rates in product(range(1, LARGEST_RATE + 1), repeat=n))


def every_sorted_chain(lengths: Iterable[int]) -> Iterator[tuple[int, ...]]:
    return (r for n in lengths for r in combinations_with_replacement(range(1, LARGEST_RATE + 1), n))


def support(rates: Sequence[int], kernels: Sequence[int]) -> int:
    """Positions that one output reads, as the bits of an integer: each layer repeats the set at its taps."""
    bits = 1
    for rate, kernel in zip(rates, kernels):
        repeated = 0
        for tap in range(kernel):
            repeated |= bits << (rate * tap)
        bits = repeated
    return bits


def is_contiguous(bits: int) -> bool:
    """Whether ``bits`` is 0b11..1: bit 0 is always set."""
    return bits & (bits + 1) == 0


@cache
def has_no_hole(rates: tuple[int, ...], kernel: int) -> bool:
    return is_contiguous(support(rates, [kernel] * len(rates)))


def strided_support(rates: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> set[int]:
    """What output 0 of a chain with strides reads, followed back layer by layer."""
    positions = {0}
    for rate, kernel, stride in reversed(list(zip(rates, kernels, strides))):
        positions = {p * stride + tap * rate for p in positions for tap in range(kernel)}
    return positions
