"""The optimal rates of several groups: first how much each group's sum changes, then each group by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from padrewrite.formulas.searching import largest_sum, nearest_rates


def share_out(groups: Sequence[tuple[int, ...]], kernel: int) -> list[int]:
    """Hole-free rates of groups of layers, nearest to the wanted ones in the sense of ``assign_rates``.

    A group can have every sum from its length to ``largest_sum``. Groups that want more get their largest; what they
    lack goes to the others, as far as there is room: nothing else keeps the chain's sum and changes the groups' sums
    less. Who gets how much is a shortest path over the groups, last to first, by squared changes.

    Args:
        groups: the wanted rates, group by group, at least 1 each.
        kernel: taps per axis, at least 2.

    Returns:
        One rate per layer.
    """
    rooms = [largest_sum(len(g), kernel) - sum(g) for g in groups]
    spare = sum(max(0, room) for room in rooms)
    lacking = min(spare, sum(max(0, -room) for room in rooms))

    @cache
    def rates_of(wanted: tuple[int, ...], extra: int) -> tuple[int, tuple[int, ...]]:
        rates = nearest_rates(wanted, kernel, min(sum(wanted), largest_sum(len(wanted), kernel)) + extra)
        return sum((a - b) ** 2 for a, b in zip(rates, wanted)), rates

    # costs[e]: the least that the groups from here on cost if they take e more than they want.
    costs: dict[int, int] = {0: 0}
    takes: list[dict[int, int]] = []
    for wanted, room in zip(reversed(groups), reversed(rooms)):
        best: dict[int, tuple[int, tuple[int, ...], int]] = {}
        for rest, cost in costs.items():
            for extra in range(min(max(0, room), lacking - rest) + 1):
                own, rates = rates_of(wanted, extra)
                key = (own + cost, rates, extra)
                best[rest + extra] = min(key, best.get(rest + extra, key))
        costs = {total: key[0] for total, key in best.items()}
        takes.append({total: key[2] for total, key in best.items()})
    result: list[int] = []
    left = lacking
    for wanted, take in zip(groups, reversed(takes)):
        result += rates_of(wanted, take[left])[1]
        left -= take[left]
    return result
