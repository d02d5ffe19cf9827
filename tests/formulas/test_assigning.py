"""Assigned rates: the paper's presets, and the optimal ones against all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from heapq import heappop
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulas.supports import has_no_hole
from padrewrite.formulas import assign_rates, is_hole_free, max_gap, searching

RESNET_101 = [2] * 23 + [4] * 3
"""The 3x3 convolutions of the last two stages at output stride 8."""


def field_increase(rates: Sequence[int], kernel: int = 3) -> int:
    return sum((kernel - 1) * r for r in rates)


PRESETS = {
    "none": ([1] * 26, 52),
    "conv": ([2, 1] * 11 + [2] + [2, 1, 2], 80),
    "rf": ([1, 2, 3] * 7 + [2, 2] + [3, 4, 5], 116),
    "bigger": ([1, 2, 5, 9] * 5 + [1, 2, 5] + [5, 9, 17], 248),
}


def test_field_of_the_original() -> None:
    assert field_increase(RESNET_101) == 116


@pytest.mark.parametrize(("policy", "rates", "increase"), [(p, *wanted) for p, wanted in PRESETS.items()])
def test_presets_of_the_paper(policy: str, rates: list[int], increase: int) -> None:
    assert assign_rates(RESNET_101, policy=policy) == rates
    assert field_increase(rates) == increase


@pytest.mark.parametrize("policy", PRESETS)
def test_presets_leave_undilated_layers_alone(policy: str) -> None:
    assert assign_rates([1, 1, 1, 1, 1], policy=policy) == [1] * 5


def test_presets_begin_again_where_the_rate_changes() -> None:
    assert assign_rates([1, 2, 2, 4, 4, 4, 4], policy="rf") == [1, 2, 2, 3, 4, 5, 4]
    assert assign_rates([2, 4, 4], policy="conv") == [2, 2, 1]
    assert assign_rates([2, 4, 4, 4, 4], policy="bigger") == [1, 5, 9, 17, 5]


@pytest.mark.parametrize(
    ("rates", "best", "change"),
    [
        ([2] * 23, [1, 2, 3] * 7 + [1, 3], 0),
        ([4] * 3, [1, 3, 8], 0),
        ([2] * 3, [1, 2, 3], 0),
        ([2, 4, 4], [1, 3, 6], 0),
        ([2, 4, 8], [1, 3, 9], -2),
        ([8] * 3, [1, 3, 9], -22),
        ([5], [1], -8),
    ],
)
def test_optimal_rates_of_known_chains(rates: list[int], best: list[int], change: int) -> None:
    """Receptive fields in pixels, kernel 3."""
    assert assign_rates(rates) == best
    assert field_increase(best) - field_increase(rates) == change


def test_the_whole_chain_as_one_group() -> None:
    assert assign_rates(RESNET_101, scope="chain") == [1] + [2] * 22 + [4, 4, 5]
    assert assign_rates([2] * 23, scope="chain") == [1] + [2] * 21 + [3]
    assert assign_rates([4] * 3, scope="chain") == assign_rates([4] * 3, group=3)
    assert assign_rates([2] * 7, scope="chain") == assign_rates([2] * 7, group=7)


@pytest.mark.parametrize("scope", ["group", "chain"])
@pytest.mark.parametrize(
    ("rates", "kernel"),
    [([2**i for i in range(10)], 2), ([1, 1, 2, 2, 4, 4, 2, 2, 1, 1], 3), ([1] * 5, 3), ([3, 2, 1], 3)],
)
def test_what_has_no_holes_is_left_alone(rates: list[int], kernel: int, scope: str) -> None:
    assert assign_rates(rates, kernel, scope=scope) == rates


def test_the_chain_given_is_not_changed() -> None:
    for rates in ([2, 2, 2], [1, 2, 3]):
        before = list(rates)
        assert assign_rates(rates) is not rates
        assert rates == before


@cache
def candidates(layers: int, kernel: int, most: int) -> tuple[tuple[int, ...], ...]:
    """Every non-decreasing choice that begins with 1 and has no hole, by adding up sets; sums up to ``most``."""
    return tuple(grown((1,), layers, kernel, most))


def grown(rates: tuple[int, ...], layers: int, kernel: int, most: int) -> Iterator[tuple[int, ...]]:
    # A group with a hole among its first layers has it for good: later rates are no smaller.
    if sum(rates) + rates[-1] * (layers - len(rates)) > most or not has_no_hole(rates, kernel):
        return
    if len(rates) == layers:
        yield rates
        return
    for rate in range(rates[-1], most + 1):
        yield from grown((*rates, rate), layers, kernel, most)


def best_of_all(rates: list[int], kernel: int, group: int) -> list[int]:
    """The least of all choices in the order that ``assign_rates`` promises."""
    if has_no_hole(tuple(sorted(rates)), kernel):
        return rates
    wanted = [rates[i : i + group] for i in range(0, len(rates), group)]
    every = [candidates(len(g), kernel, sum(rates) + 1) for g in wanted]

    def badness(choice: tuple[tuple[int, ...], ...]) -> tuple[int, int, int, tuple[int, ...]]:
        flat = [r for new in choice for r in new]
        return (
            abs(sum(flat) - sum(rates)),
            sum(abs(sum(new) - sum(old)) for new, old in zip(choice, wanted)),
            sum((a - b) ** 2 for a, b in zip(flat, rates)),
            tuple(flat),
        )

    return [r for new in min(product(*every), key=badness) for r in new]


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_optimal_is_the_best_of_all_short_chains(kernel: int) -> None:
    for layers in (1, 2, 3, 4):
        for rates in product(range(1, 5), repeat=layers):
            for group in (2, 3, layers):
                assert assign_rates(rates, kernel, group=group) == best_of_all(list(rates), kernel, group), rates


@pytest.mark.parametrize(
    ("rates", "kernel", "group"),
    [
        ([2, 2, 3, 3, 2, 2, 3, 3], 4, 2),
        ([2, 2, 2, 9, 9, 9, 2, 2], 3, 3),
        ([9, 9, 9, 2, 2, 2, 3, 2], 3, 3),
        ([2, 3, 2, 3, 4, 2, 4], 5, 3),
        ([2, 9, 8, 2, 2, 3, 9, 2, 7], 3, 4),
        ([2, 3, 2, 2, 2, 4, 2, 2, 4], 4, 4),
    ],
)
def test_optimal_shares_out_what_large_groups_lack(rates: list[int], kernel: int, group: int) -> None:
    """In the last three the second-best share of some groups is part of the best of all."""
    assert assign_rates(rates, kernel, group=group) == best_of_all(rates, kernel, group)


@given(st.lists(st.sampled_from((2, 2, 2, 3, 5, 9)), min_size=4, max_size=8), st.integers(3, 4), st.integers(2, 3))
def test_optimal_shares_out_as_the_best_of_all(rates: list[int], kernel: int, group: int) -> None:
    assert assign_rates(rates, kernel, group=group) == best_of_all(rates, kernel, group)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(2, 3), st.integers(1, 3))
def test_optimal_is_the_best_of_all(rates: list[int], kernel: int, group: int) -> None:
    assert assign_rates(rates, kernel, group=group) == best_of_all(rates, kernel, group)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(2, 4))
def test_optimal_is_the_best_of_all_for_the_whole_chain(rates: list[int], kernel: int) -> None:
    assert assign_rates(rates, kernel, scope="chain") == best_of_all(rates, kernel, len(rates))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(2, 7), st.integers(1, 5))
def test_optimal_groups_keep_their_promises(rates: list[int], kernel: int, group: int) -> None:
    new = assign_rates(rates, kernel, group=group)
    assert assign_rates(new, kernel, group=group) == new
    if is_hole_free(rates, kernel):
        return
    groups = [new[i : i + group] for i in range(0, len(new), group)]
    assert all(g == sorted(g) and g[0] == 1 and is_hole_free(g, kernel) for g in groups)
    most = sum((kernel ** len(g) - 1) // (kernel - 1) for g in groups)
    assert sum(new) == min(sum(rates), most)
    if kernel == 3:
        assert all(max_gap(g) <= 3 for g in groups), "ascending groups that begin with 1 pass the paper's rule"


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_a_group_reaches_every_sum_up_to_its_largest(kernel: int, layers: int) -> None:
    most = (kernel**layers - 1) // (kernel - 1)
    reached = {sum(g) for g in candidates(layers, kernel, most + 1)}
    assert reached == set(range(layers, most + 1))


LONG: dict[str, Callable[[int], list[int]]] = {
    "equal": lambda n: [2] * n,
    "steep": lambda n: [30] * n,
    "stages": lambda n: [2] * (n // 2) + [8] * (n - n // 2),
    "multi-grid": lambda n: [2, 4, 8] * (n // 3) + [2] * (n % 3),
    "all sizes": lambda n: [2 + 7 * i % 11 for i in range(n)],
}


STEPS = 4000
"""About twice what the worst of these chains takes; a search without its bound takes millions."""


@pytest.fixture
def expanded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each prefix that the search takes off its heap: what its time is proportional to."""
    taken: list[int] = []

    def pop(heap: list[Any]) -> Any:
        taken.append(len(heap))
        return heappop(heap)

    monkeypatch.setattr(searching, "heappop", pop)
    return taken


@pytest.mark.parametrize("scope", ["group", "chain"])
@pytest.mark.parametrize("chain", LONG)
def test_two_hundred_layers_take_few_steps(chain: str, scope: str, expanded: list[int]) -> None:
    rates = LONG[chain](200)
    new = assign_rates(rates, scope=scope)
    assert len(expanded) < STEPS
    assert len(new) == 200
    assert new != rates


def test_cycles_of_large_rates_as_one_group_take_few_steps(expanded: list[int]) -> None:
    rates = [2**i for i in range(1, 11)] * 3
    new = assign_rates(rates, kernel=2, scope="chain")
    assert 0 < len(expanded) < STEPS
    assert sum(new) == sum(rates)


def test_long_groups_that_take_over_from_others_take_few_steps(expanded: list[int]) -> None:
    rates = [2] * 150 + [50] * 50
    new = assign_rates(rates, group=5)
    assert 0 < len(expanded) < STEPS
    assert sum(new) == sum(rates)
