"""Does a chain of dilated convolutions see every pixel, and how evenly?

The layers of a chain feed each other, first one first. Along one axis, layer i reads its input at
``{0, 1, .., K_i - 1} * r_i``; together they read the sum of these sets (a Minkowski sum).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import gcd, pi, sin

from padrewrite.formulas.checking import at_least, per_layer, read_rates


def max_gap(rates: Sequence[int], kernel: int = 3) -> int:
    """The paper's M_2, which should be at most ``kernel``. It is a rule of thumb: see ``is_hole_free``.

    ``M_n = r_n`` and ``M_i = max(|M_{i+1} - (K-1) r_i|, r_i)`` down to i = 2: r_1 is ignored and order matters. The
    paper writes 2 for K - 1, its kernel being 3; for that reading at another kernel, compare ``max_gap(rates, 3)``.

    Args:
        rates: dilation of each layer, in order.
        kernel: taps per axis, the same for all layers.

    Returns:
        Pixels. One layer has no M_2; its own rate is returned. Source: [HDC] Eq. 2.

    Raises:
        ValueError: no rates, one is no integer of at least 1, or the kernel has fewer than 2 taps.
    """
    read = read_rates(rates)
    at_least(2, "kernel", kernel, "a kernel of one tap has no gaps; leave such layers out")
    gap = read[-1]
    for rate in reversed(read[1:-1]):
        gap = max(abs(gap - (kernel - 1) * rate), rate)
    return gap


def is_hole_free(
    rates: Sequence[int], kernels: int | Sequence[int], strides: int | Sequence[int] | None = None
) -> bool:
    """Whether one output of the chain reads every pixel between its first and its last. Exact.

    With ``R_i = r_i * (product of the strides before layer i)`` in ascending order, it does iff R_1 = 1 and
    ``R_{j+1} <= 1 + sum over i <= j of (K_i - 1) R_i``. Sufficient: what the first j layers cover has no holes and is
    as long as the right-hand side, so that shifts by R_{j+1} leave none. Necessary: otherwise the right-hand side is a
    distance that nothing reaches. The order of layers of stride 1 does not matter. Layers of one tap read one pixel,
    but their strides count.

    Args:
        rates: dilation of each layer, in order, in pixels of that layer's input.
        kernels: taps per axis, one integer or one per layer.
        strides: one integer or one per layer; None: all 1. The last one does not matter.

    Returns:
        True also for a chain of one-tap layers, which reads one pixel.

    Raises:
        ValueError: no rates, lengths that differ, or an entry that is no integer of at least 1.
    """
    read = read_rates(rates)
    taps = per_layer("kernels", kernels, len(read))
    steps = per_layer("strides", 1 if strides is None else strides, len(read))
    jump, layers = 1, list[tuple[int, int]]()
    for rate, k, step in zip(read, taps, steps):
        layers.append((rate * jump, k))
        jump *= step
    covered = 1
    for rate, k in sorted(layers):
        if k > 1 and rate > covered:
            return False
        covered += (k - 1) * rate
    return True


def path_counts(rates: Sequence[int], kernels: int | Sequence[int]) -> list[int]:
    """How many paths lead from one output of a chain to each pixel of its field, along one axis.

    A path takes one tap per layer. On a map of several axes the counts multiply.

    Args:
        rates: dilation of each layer, in any order, at one resolution.
        kernels: taps per axis, one integer or one per layer.

    Returns:
        One integer per pixel, from the field's first to its last; 0 is a hole. They add up to the product of the
        kernels. Source: [HDC] Fig. 2 shades pixels by them.

    Raises:
        ValueError: no rates, lengths that differ, or an entry that is no integer of at least 1.
    """
    read = read_rates(rates)
    counts = [1]
    for rate, taps in zip(read, per_layer("kernels", kernels, len(read))):
        wider = [0] * (len(counts) + (taps - 1) * rate)
        for tap in range(taps):
            for i, count in enumerate(counts):
                wider[i + tap * rate] += count
        counts = wider
    return counts


def gridding_score(rates: Sequence[int], kernels: int | Sequence[int]) -> float:
    """How strongly a chain prefers some pixels of its field to their neighbours, whatever the weights: 0 is even.

    The number of paths from an output to each input, as a function of position, has the Fourier transform
    ``prod |D_K(w r_i)|`` with ``D_K(t) = sin(Kt/2) / (K sin(t/2))`` at frequency w, relative to w = 0. The score is
    its largest value over all periods m of 2 to max(r) pixels (``w = 2 pi k / m``). It is 1 iff the rates have a common
    divisor g > 1: then the map splits into g x g networks that never share an input. Time grows with max(r) squared.

    Args:
        rates: dilation of each layer, in any order, at one resolution.
        kernels: taps per axis, one integer or one per layer. Layers of one tap are ignored.

    Returns:
        A number in [0, 1]. (1, 2, 3) has 1/9, (2, 2, 2) has 1.

    Raises:
        ValueError: no rates, lengths that differ, or an entry that is no integer of at least 1.
    """
    read = read_rates(rates)
    layers = Counter((r, k) for r, k in zip(read, per_layer("kernels", kernels, len(read))) if k > 1)
    if not layers:
        return 0.0
    if gcd(*(r for r, _ in layers)) > 1:
        return 1.0
    worst = 0.0
    for period in range(2, max(r for r, _ in layers) + 1):
        for k in range(1, period // 2 + 1):
            if gcd(k, period) == 1:
                worst = max(worst, _response(layers, k, period, worst))
    return worst


def _response(layers: Counter[tuple[int, int]], k: int, period: int, enough: float) -> float:
    """The transform at frequency k/period, or something not above ``enough`` as soon as it cannot be above it."""
    response = 1.0
    for (rate, taps), count in layers.items():
        # Reduced as integers: the phase stays exact however large the rate.
        turn = pi * (k * rate % period) / period
        if turn:
            response *= abs(sin(taps * turn) / (taps * sin(turn))) ** count
        if response <= enough:
            break
    return response
