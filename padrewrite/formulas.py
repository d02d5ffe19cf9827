"""Pure number functions of the spatial mathematics: counts, dilation rules, erosion. No torch, no graph."""

from __future__ import annotations


def valid_count(size: int, kernel: int, stride: int, dilation: int, pad_lo: int, pad_hi: int) -> list[int]:
    """Number of kernel taps that fall on real input, per output position along one axis.

    Args:
        size: input length in pixels.
        kernel, stride, dilation: of the window, along this axis.
        pad_lo, pad_hi: padding before and after, in pixels.

    Returns:
        One integer in ``0 .. kernel`` per output. Source: [PCP] Eq. 2 in closed form, with floor division.
    """
    outputs = (size + pad_lo + pad_hi - dilation * (kernel - 1) - 1) // stride + 1
    counts: list[int] = []
    for i in range(max(0, outputs)):
        start = i * stride - pad_lo
        last = min(kernel - 1, (size - 1 - start) // dilation)
        first = max(0, -(start // dilation))
        counts.append(max(0, last - first + 1))
    return counts
