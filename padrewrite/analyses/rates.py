"""Another dilation rate for a convolution: what becomes of its padding, and when that can be.

    p' = p r'/r        on each side

Sizes stay if p_lo + p_hi = r(k - 1). If r divides p_lo, tap p_lo/r reads the output's own place, before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from padrewrite.ops.conv import Conv, with_padding

ROOM = {"reflect": -1, "circular": 0}
"""How much wider than the map the padding of a mode may be, in pixels; others may be as wide as they like."""


def with_rate(op: Conv, rate: int, axes: Sequence[int]) -> Conv:
    """``op`` at another rate along ``axes``, one-tap axes left out, its padding in proportion."""
    w = op.window
    rates = tuple(rate if a in axes and w.kernel[a] > 1 else d for a, d in enumerate(w.dilation))
    pads = [(lo * r // d, hi * r // d) for lo, hi, r, d in zip(w.lo, w.hi, rates, w.dilation)]
    padded = with_padding(op, pads)
    return replace(padded, window=replace(padded.window, dilation=rates))


def keeps_size(op: Conv, axes: Sequence[int]) -> bool:
    """Whether the map has the same size before and after, along ``axes``, at stride 1."""
    return all(op.window.lo[a] + op.window.hi[a] == op.reach.span[a] - 1 for a in axes)


def pads_by_rate(op: Conv, axes: Sequence[int]) -> bool:
    """Whether the padding before the map is a multiple of the rate, so that it can follow another."""
    return all(op.window.lo[a] % op.window.dilation[a] == 0 for a in axes)


def can_fill(op: Conv, sizes: Sequence[int]) -> bool:
    """Whether maps of ``sizes`` pixels are large enough to be reflected or wrapped around by its padding."""
    return all(m not in ROOM or max(pads) <= n + ROOM[m] for m, n, pads in zip(op.modes, sizes, op.padding))
