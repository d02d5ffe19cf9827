"""How a wanted convolution is reached from the calls that a model makes: its explicit pads and its own call.

One answer serves everything that acts on it: the graph editor, the module writer and the compiler backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils._sympy.functions import FloorDiv

from padrewrite.ops.assembly import Assembly, Attached
from padrewrite.ops.conv import Conv, Pairs, with_padding

SPLITS = ("fixed", "upper", "lower", "low", "high", "unknown")
"""How a pad's (lo, hi) follows from its total, which follows from the input's size: not at all (fixed), halved with
the odd pixel after (upper) or before (lower), all of it before (low) or after (high), or in no way that is proved."""


def split_of(lo: Any, hi: Any) -> str:
    """The rule that (lo, hi), integers or sympy expressions of sizes, provably follow."""
    if isinstance(lo, int) and isinstance(hi, int):
        return "fixed"
    if lo is None or hi is None:
        return "unknown"
    half = FloorDiv(lo + hi, 2)
    if lo == half:
        return "upper"
    if hi == half:
        return "lower"
    return "low" if hi == 0 else "high" if lo == 0 else "unknown"


def split_total(total: Any, split: str) -> tuple[Any, Any]:
    """(lo, hi) for a total by a rule other than fixed and unknown."""
    if split in ("upper", "lower"):
        small, large = total // 2, total - total // 2
        return (small, large) if split == "upper" else (large, small)
    return (total, 0) if split == "low" else (0, total)


@dataclass(frozen=True)
class ExplicitPad:
    """A pad call folded into a convolution: resolved (lo, hi) per spatial axis, and its mode."""

    amounts: Pairs
    mode: str


@dataclass(frozen=True)
class Realisation:
    """The convolution call that computes the wanted op."""

    own: Conv
    """The call itself; its window holds the padding that is left for it to apply."""
    outer: Pairs | None = None
    """Pixels that explicit zero pads have added already, per axis; None if partial padding needs no such fact."""
    bypass: bool = False
    """The call reads what the explicit pads read, and pads for them; their own results go unused here."""


def behind_pads(after: Assembly | Attached, pads: Sequence[ExplicitPad]) -> Assembly | Attached:
    """What is left for ``after`` to pad behind ``pads``, which stay."""
    if isinstance(after, Attached) or not pads:
        return after
    left = after.behind(added(pads))
    assert left is not None
    return left


def added(pads: Sequence[ExplicitPad]) -> Pairs:
    """(lo, hi) per axis of several pads together."""
    axes = range(len(pads[0].amounts))
    return tuple((sum(p.amounts[a][0] for p in pads), sum(p.amounts[a][1] for p in pads)) for a in axes)


def realise(after: Conv, pads: Sequence[ExplicitPad]) -> Realisation:
    """The call for ``after`` behind ``pads``: on their result if they already pad as wanted, around them if not."""
    if not pads:
        return Realisation(after)
    if after.symmetric is not None and after.partial is not None:
        return Realisation(after, bypass=True)  # it cannot be told that what it reads is padded already
    explicit = [
        tuple(sum(p.amounts[a][side] for p in pads) for side in (0, 1)) for a in range(after.window.rank)
    ]
    own = [(lo - e[0], hi - e[1]) for (lo, hi), e in zip(after.padding, explicit)]
    as_wanted = all(
        pair == (0, 0) or pad.mode == mode for pad in pads for pair, mode in zip(pad.amounts, after.modes)
    )
    # Zeros go on where zeros end; a border of real pixels is not the border of a border.
    as_wanted = as_wanted and all(
        left == (0, 0) or all(p.mode == "zeros" or p.amounts[a] == (0, 0) for p in pads) for a, left in enumerate(own)
    )
    crops = min(map(min, own)) < 0 <= min(map(min, after.padding))
    # Blocks of channels that are read from one side each crop anyway; what they crop of a pad is zeros.
    if not as_wanted or (crops and after.symmetric is None):
        return Realisation(after, bypass=True)
    outer: Pairs | None = None
    if after.partial is not None:
        outer = tuple((e[0], e[1]) if m == "zeros" else (0, 0) for e, m in zip(explicit, after.modes))
        outer = outer if any(pair != (0, 0) for pair in outer) else None
    return Realisation(with_padding(after, own), outer)
