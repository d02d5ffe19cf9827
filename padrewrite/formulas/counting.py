"""How many kernel taps fall on real input."""

from __future__ import annotations

from padrewrite.formulas.checking import at_least, integer


def valid_count(size: int, kernel: int, stride: int, dilation: int, pad_lo: int, pad_hi: int) -> list[int]:
    """Number of kernel taps that fall on real input, per output position along one axis.

    Args:
        size: input length in pixels.
        kernel, stride, dilation: of the window, along this axis.
        pad_lo, pad_hi: padding before and after, in pixels; what is negative is cut off.

    Returns:
        One integer in ``0 .. kernel`` per output. Source: [PCP] Eq. 2 in closed form, with floor division.

    Raises:
        ValueError: ``size`` is no integer of at least 0, a number of the window none of at least 1, or a padding none.
    """
    at_least(0, "size", size, "give the length of the input in pixels")
    for name, number in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        at_least(1, name, number, "1 is the least that a window has")
    for name, number in (("pad_lo", pad_lo), ("pad_hi", pad_hi)):
        integer(name, number, "give the padding in pixels")
    outputs = (size + pad_lo + pad_hi - dilation * (kernel - 1) - 1) // stride + 1
    counts: list[int] = []
    for i in range(max(0, outputs)):
        start = i * stride - pad_lo
        last = min(kernel - 1, (size - 1 - start) // dilation)
        first = max(0, -(start // dilation))
        counts.append(max(0, last - first + 1))
    return counts


def valid_weight_fraction(size: int, rate: int, kernel: int = 3) -> float:
    """Share of the weights of a dilated convolution that meet real input, averaged over a square map.

    Tap t reads at distance ``t * rate - lo`` from its output and finds input at ``max(0, size - distance)`` of the
    ``size`` positions; a square kernel has the square of the mean. From rate = size on, only one tap of 3 is left.

    Args:
        size: height and width of the map, in pixels; the padding keeps it ("same": an odd total goes to the end).
        rate: dilation, in pixels.
        kernel: height and width of the kernel, in taps.

    Returns:
        A share in (0, 1]. Source: [DLv3] Section 3.3 and Fig. 4.

    Raises:
        ValueError: an argument is no integer of at least 1.
    """
    at_least(1, "size", size, "give the height of the map in pixels")
    at_least(1, "rate", rate, "an undilated layer has rate 1")
    at_least(1, "kernel", kernel, "give the height of the kernel in taps")
    lo = rate * (kernel - 1) // 2
    met = sum(max(0, size - abs(t * rate - lo)) for t in range(kernel))
    return (met / (kernel * size)) ** 2
