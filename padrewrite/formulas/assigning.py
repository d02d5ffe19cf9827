"""Dilation rates without gridding: the paper's presets and an optimal assignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        return _optimal(read, kernel, len(read) if scope == "chain" else group)
    if policy not in PRESETS:
        known = ", ".join(map(repr, ("optimal", *PRESETS)))
        raise ValueError(f"policy={policy!r} is unknown; choose one of {known}")
    runs = [(rate, len(list(same))) for rate, same in groupby(read)]
    return [new for rate, length in runs for new in PRESETS[policy](rate, length)]


def _optimal(rates: list[int], kernel: int, group: int) -> list[int]:
    if is_hole_free(rates, kernel):
        return rates
    return share_out([tuple(rates[i : i + group]) for i in range(0, len(rates), group)], kernel)


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
