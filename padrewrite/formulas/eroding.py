"""What zero padding takes away from a stack of convolutions."""

from __future__ import annotations

from collections.abc import Collection
from math import sqrt

from padrewrite.formulas.checking import at_least, listed


def erosion(
    kernel: int, layers: int, size: int, *, symmetric: bool = False, downsample_after: Collection[int] = ()
) -> list[float]:
    """Information Q left after each layer of a stack of zero-padded k x k convolutions, relative to the input.

    [C2sp] Eq. 7 takes Q as the mean of |F| over the map. Mean field: with independent zero-mean weights of variance
    1 / (taps x channels) the second moment v of an output is the mean of v over its window, a padding zero counting
    as 0, and |F| goes like sqrt(v). v is a product of one factor per axis, so everything runs along one axis; the mean
    of the square roots is squared at the end. No skip connections, no normalisation.

    Every layer keeps the size. An odd kernel is padded by (k-1)/2 at both ends; an even one by k/2 - 1 before and k/2
    after, as ``padding="same"`` does, which moves the map by half a pixel per layer. With ``symmetric`` a quarter of
    the channels is padded towards each corner (Ck-sp): per axis v' is the mean of both one-sided windows.

    Args:
        kernel: taps per axis.
        layers: number of convolutions.
        size: height and width of the input, in pixels.
        symmetric: symmetric padding of even kernels. Odd kernels are symmetric as they are.
        downsample_after: layers, counted from 1, after which rows and columns 0, 2, 4, .. are kept: what a stride of 2
            in that layer does.

    Returns:
        Q in (0, 1] after each layer (and after the downsampling that follows it), first layer first.

    Raises:
        ValueError: a number is out of range, or ``downsample_after`` names a layer that does not exist.
    """
    at_least(1, "kernel", kernel, "give the height of the kernel in taps")
    at_least(0, "layers", layers, "give the number of convolutions")
    at_least(1, "size", size, "give the height of the input in pixels")
    for layer in listed("downsample_after", downsample_after, "give a list of layers"):
        if not isinstance(layer, int) or not 1 <= layer <= layers:
            raise ValueError(f"downsample_after names layer {layer!r} of {layers}; count the layers from 1")
    half = kernel // 2
    before = {half, half - 1} if symmetric and kernel % 2 == 0 else {(kernel - 1) // 2}
    moment, left = [1.0] * size, list[float]()
    for layer in range(1, layers + 1):
        windows = [_window_means(moment, kernel, lo) for lo in sorted(before)]
        moment = [sum(means) / len(means) for means in zip(*windows)]
        if layer in downsample_after:
            moment = moment[::2]
        left.append((sum(map(sqrt, moment)) / len(moment)) ** 2)
    return left


def _window_means(values: list[float], kernel: int, lo: int) -> list[float]:
    """Mean over each window that starts ``lo`` positions before its output; what lies outside is 0."""
    return [sum(values[max(0, i - lo) : max(0, i - lo + kernel)]) / kernel for i in range(len(values))]
