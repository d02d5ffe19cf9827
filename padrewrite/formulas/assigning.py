"""Dilation rates without gridding: the paper's presets and an optimal assignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby

from padrewrite.formulas.checking import at_least, read_rates
from padrewrite.formulas.dilation import is_hole_free
from padrewrite.formulas.sharing import share_out

SCOPES = ("group", "chain")

# Rate of a run of layers -> what its layers get, again and again.
BIGGER: Mapping[int, tuple[int, ...]] = {1: (1,), 2: (1, 2, 5, 9), 4: (5, 9, 17)}


def assign_rates(
    rates: Sequence[int], kernel: int = 3, policy: str = "optimal", scope: str = "group", group: int = 3
) -> list[int]:
    """Other dilation rates for a chain of equal convolutions.

    ``optimal`` deals the chain into groups of ``group`` layers, first to last (the last group may be shorter), and
    wants every group non-decreasing, beginning with 1 and hole-free. Among those it takes the smallest, in this order,
    of the change of the chain's receptive field, the changes of the groups' fields added up, the squared changes of the
    rates added up, and the rates themselves, read like words. A chain that is hole-free as a whole is left alone. If
    the field cannot be kept (``sum r`` of g layers is at most ``(K^g - 1) / (K - 1)``) the nearest is returned: compare
    the sums. Groups run on where the rates change; stages that should not share one are passed one by one.

    The presets are those of the paper for ResNet-101, kernel 3. They apply to every run of equal rates r > 1, from its
    start; other layers keep rate 1; ``kernel``, ``scope`` and ``group`` do not matter to them:

    ========== ==================================================================================
    ``none``   1 everywhere
    ``conv``   2, 1 in turn
    ``rf``     (r - 1, r, r + 1) in turn; the one or two layers left over keep r
    ``bigger`` (1, 2, 5, 9) in turn for r = 2; (5, 9, 17) for r = 4; defined for no other
    ========== ==================================================================================

    Args:
        rates: dilation of each layer, in order, in pixels of their common resolution.
        kernel: taps per axis, the same for all layers.
        policy: ``optimal``, ``none``, ``conv``, ``rf`` or ``bigger``.
        scope: ``chain`` takes the whole chain for one group.
        group: layers per group.

    Returns:
        One rate per layer, in pixels. Source: [HDC] Section 3.2 and its experiments; ``optimal`` is ours.

    Raises:
        ValueError: no rates, an entry or ``group`` is no integer of at least 1, the kernel has fewer than 2 taps, the
            policy or scope is unknown, or ``bigger`` has no rates for one that occurs.
    """
    read = read_rates(rates)
    at_least(2, "kernel", kernel, "a kernel of one tap is not dilated; leave such layers out")
    at_least(1, "group", group, "give the layers per group, 3 in the paper")
    if scope not in SCOPES:
        raise ValueError(f"scope={scope!r} is unknown; choose one of {', '.join(map(repr, SCOPES))}")
    if policy == "optimal":
        return _optimal(read, kernel, [read], len(read) if scope == "chain" else group)
    if policy not in tuple(PRESETS):
        known = ", ".join(map(repr, ("optimal", *PRESETS)))
        raise ValueError(f"policy={policy!r} is unknown; choose one of {known}")
    return [new for rate, length in _runs(read) for new in PRESETS[policy](rate, length)]


def assign_by_stage(rates: Sequence[int], kernel: int, policy: str, scope: str, group: int) -> list[int]:
    """As ``assign_rates``, but where the chain is made of stages, no group takes layers of two of them.

    A stage is two layers or more of one rate. What the groups of one stage lack, those of the others take.
    """
    runs = _runs(list(rates))
    if policy != "optimal" or scope == "chain" or min(length for _, length in runs) < 2:
        return assign_rates(rates, kernel, policy, scope, group)
    return _optimal(list(rates), kernel, [[rate] * length for rate, length in runs], group)


def is_for_preset(rates: Sequence[int], policy: str) -> bool:
    """Whether a preset is meant for these rates: dilated stages of two layers or more, of a rate that it knows."""
    if policy == "none":
        return True
    known = BIGGER if policy == "bigger" else range(1, max(rates) + 1)
    return all(rate in known and (length > 1 or rate == 1) for rate, length in _runs(list(rates)))


def is_from_preset(rates: Sequence[int], policy: str) -> bool:
    """Whether some chain of stages, as ``is_for_preset`` knows them, would get these rates."""
    given = list(rates)

    @cache
    def explained(start: int, before: int) -> bool:
        first = given[start] if start < len(given) else 0
        return start == len(given) or any(
            given[start:end] == PRESETS[policy](rate, end - start) and explained(end, rate)
            for rate in {1, 2, 3, 4, first, first + 1} - {before}
            for end in range(start + 1 + (rate > 1), len(given) + 1)
            if is_for_preset([rate] * (end - start), policy)
        )

    return explained(0, 0)


def is_from_groups(rates: Sequence[int], kernels: Sequence[int], group: int) -> bool:
    """Whether ``optimal`` may have made these rates, group by group, from a chain with holes.

    Such a chain of n layers has a sum of 2n or more, and keeps it: its least rate is 2 or more, or after j rates of sum
    s >= j, in ascending order, come n - j of 2 + s or more.
    """
    groups = [list(rates[i : i + group]) for i in range(0, len(rates), group)]
    made = all(one[0] == 1 and one == sorted(one) and is_hole_free(one, kernels[0]) for one in groups)
    return made and len(set(kernels)) == 1 and sum(rates) >= 2 * len(rates)


def _runs(rates: list[int]) -> list[tuple[int, int]]:
    """Each run of equal rates as rate and length."""
    return [(rate, len(list(same))) for rate, same in groupby(rates)]


def _optimal(rates: list[int], kernel: int, stages: Sequence[list[int]], group: int) -> list[int]:
    if is_hole_free(rates, kernel):
        return rates
    return share_out([tuple(one[i : i + group]) for one in stages for i in range(0, len(one), group)], kernel)


def _none(rate: int, length: int) -> list[int]:
    return [1] * length


def _conv(rate: int, length: int) -> list[int]:
    return [1] * length if rate == 1 else [2 - i % 2 for i in range(length)]


def _rf(rate: int, length: int) -> list[int]:
    if rate == 1:
        return [1] * length
    return [rate - 1, rate, rate + 1] * (length // 3) + [rate] * (length % 3)


def _bigger(rate: int, length: int) -> list[int]:
    if rate not in BIGGER:
        raise ValueError(f"rates contains {rate}; policy 'bigger' knows {', '.join(map(str, BIGGER))}: use 'optimal'")
    cycle = BIGGER[rate]
    return [cycle[i % len(cycle)] for i in range(length)]


PRESETS: Mapping[str, Callable[[int, int], list[int]]] = {
    "none": _none,
    "conv": _conv,
    "rf": _rf,
    "bigger": _bigger,
}
