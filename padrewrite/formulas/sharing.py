"""The optimal rates of several groups: first how much each group's sum changes, then each group by itself."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache

from padrewrite.formulas.searching import largest_sum, nearest_rates

Choice = tuple[int, tuple[int, ...]]
"""What a group costs in squares, and its rates."""
Choices = Mapping[int, Choice]
"""The best choice for each extra that a group may take over what it wants (or can have)."""


def share_out(groups: Sequence[tuple[int, ...]], kernel: int) -> list[int]:
    """Hole-free rates of groups of layers, nearest to the wanted ones in the sense of ``assign_rates``.

    A group can have every sum from its length to ``largest_sum``. Groups that want more get their largest; what they
    lack goes to the others, as far as there is room: nothing else keeps the chain's sum and changes the groups' sums
    less. Who gets how much is decided by the squares, exactly.

    Args:
        groups: the wanted rates, group by group, at least 1 each.
        kernel: taps per axis, at least 2.

    Returns:
        One rate per layer.
    """
    rooms = [largest_sum(len(wanted), kernel) - sum(wanted) for wanted in groups]
    lacking = min(sum(max(0, room) for room in rooms), sum(max(0, -room) for room in rooms))

    @cache
    def choices_of(wanted: tuple[int, ...]) -> Choices:
        room = largest_sum(len(wanted), kernel) - sum(wanted)
        base, most = sum(wanted) + min(0, room), min(max(0, room), lacking)
        found = {extra: nearest_rates(wanted, kernel, base + extra) for extra in range(most + 1)}
        return {e: (sum((a - b) ** 2 for a, b in zip(rates, wanted)), rates) for e, rates in found.items()}

    offers = [choices_of(wanted) for wanted in groups]
    shares = _cheapest(offers, lacking)
    return [rate for offer, share in zip(offers, shares) for rate in offer[share][1]]


def _cheapest(offers: Sequence[Choices], total: int) -> list[int]:
    """One extra of each group, adding up to ``total``, at the least cost; the smallest rates among equals.

    At a price per unit every extra has a regret, by how much it is dearer than the group's best. The extras add up to
    ``total`` anyway, so the least cost is the least sum of regrets. At the right price that is near 0, and an extra of
    more regret than a solution found takes no part in a better one.
    """
    dearest = max(cost for offer in offers for cost, _ in offer.values())
    price = bisect_left(range(dearest), True, key=lambda p: sum(_most(offer, p) for offer in offers) >= total)
    lowest = [min(cost - price * extra for extra, (cost, _) in offer.items()) for offer in offers]
    regrets = [
        {extra: cost - price * extra - low for extra, (cost, _) in offer.items()} for offer, low in zip(offers, lowest)
    ]
    limit = 1
    while (shares := _within(limit, regrets, offers, total)) is None:
        limit *= 2
    return shares


def _most(offer: Choices, price: int) -> int:
    """The largest of the best extras at a price per unit."""
    return min((cost - price * extra, -extra, extra) for extra, (cost, _) in offer.items())[-1]


def _within(
    limit: int, regrets: Sequence[Mapping[int, int]], offers: Sequence[Choices], total: int
) -> list[int] | None:
    """The extras of least regret that add up to ``total``; None if they regret more than ``limit`` in all."""
    # From the last group to the first: what the groups from here on take in all -> (regret, rates here, extra here).
    behind: dict[int, int] = {0: 0}
    tables: list[dict[int, tuple[int, tuple[int, ...], int]]] = []
    for regret, offer in zip(reversed(regrets), reversed(offers)):
        few = [(extra, own) for extra, own in regret.items() if own <= limit]
        table: dict[int, tuple[int, tuple[int, ...], int]] = {}
        for taken, before in behind.items():
            for extra, own in few:
                if before + own <= limit and taken + extra <= total:
                    key = (before + own, offer[extra][1], extra)
                    table[taken + extra] = min(key, table.get(taken + extra, key))
        behind = {taken: key[0] for taken, key in table.items()}
        tables.append(table)
    if total not in behind:
        return None
    shares: list[int] = []
    for table in reversed(tables):
        shares.append(table[total][2])
        total -= shares[-1]
    return shares
