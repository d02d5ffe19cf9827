"""Curves of the formulas: valid weights against rate ([DLv3] Fig. 4) and erosion by depth ([C2sp] Fig. 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

from padrewrite.drawing.canvas import COLOURS, MARKERS, blank
from padrewrite.formulas import erosion, valid_count, valid_weight_fraction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KERNELS: Mapping[str, tuple[int, bool]] = {
    "3x3": (3, False),
    "2x2 symmetric": (2, True),
    "2x2": (2, False),
    "4x4 symmetric": (4, True),
    "4x4": (4, False),
}
"""Kernel and whether its padding is symmetric, by label: those of the paper's figure."""


def valid_weights_figure(size: int = 65, kernel: int = 3, rates: Sequence[int] | None = None) -> Figure:
    """How many weights of a dilated square kernel meet real input, as its rate grows.

    A curve per number of weights says at which share of the outputs so many of them do; the dashed one is the share of
    all weights. With a rate of ``size`` a 3x3 kernel has become a 1x1. Source: Chen et al. 2017, *Rethinking Atrous
    Convolution for Semantic Image Segmentation*, Fig. 4.

    Args:
        size: height and width of the map, in pixels; the padding keeps it.
        kernel: height and width of the kernel, in taps.
        rates: dilations to draw; by default all up to half more than ``size``.

    Raises:
        PadrewriteError: matplotlib is not installed.
        ValueError: an argument is no integer of at least 1.
    """
    drawn = list(rates) if rates is not None else list(range(1, 3 * size // 2))
    valid = [valid_weight_fraction(size, rate, kernel) for rate in drawn]
    shares = [_shares(size, rate, kernel) for rate in drawn]
    figure: Any = blank(6.4, 4.2)
    axis = figure.subplots()
    for number, weights in enumerate(sorted({n for share in shares for n in share}, reverse=True)):
        label = f"{weights} weight{'s' if weights > 1 else ''}"
        heights = [share.get(weights, nan) for share in shares]
        _draw(axis, drawn, heights, number, label, every=max(1, len(drawn) // 12))
    axis.plot(drawn, valid, color="black", linestyle=(0, (4, 2)), linewidth=1.6, label="share of all weights")
    axis.set_xlabel("rate (pixels)")
    axis.set_ylabel(f"share of the {size}x{size} outputs")
    axis.set_ylim(0, 1.02)
    axis.set_title(f"Weights of a {kernel}x{kernel} kernel that meet real input", fontsize=11)
    _finish(axis)
    return figure


def _shares(size: int, rate: int, kernel: int) -> dict[int, float]:
    """Share of the outputs by how many weights are valid there."""
    total = rate * (kernel - 1)
    along = Counter(valid_count(size, kernel, 1, rate, total // 2, total - total // 2))
    shares: dict[int, float] = {}
    for a, many in along.items():
        for b, others in along.items():
            shares[a * b] = shares.get(a * b, 0.0) + many * others / size**2
    return shares


def erosion_figure(
    layers: int = 55,
    size: int = 32,
    downsample_after: Collection[int] = (19, 37),
    kernels: Mapping[str, tuple[int, bool]] = KERNELS,
) -> Figure:
    """Information Q that zero padding leaves of the input, after each layer of a stack of equal convolutions.

    Dotted lines are the layers after which the map is halved. Source: Wu et al. 2019, *Convolution with even-sized
    kernels and symmetric padding*, Fig. 3, by the mean-field recursion of ``padrewrite.formulas.erosion``.

    Args:
        layers, size, downsample_after: as for ``erosion``; by default the 55 layers of ResNet-56 on 32x32 pixels.
        kernels: by label, taps per axis and whether the padding is symmetric.

    Raises:
        PadrewriteError: matplotlib is not installed.
        ValueError: a number is out of range.
    """
    numbers = {"layers": layers, "size": size}
    curves = {
        label: erosion(kernel, **numbers, symmetric=symmetric, downsample_after=downsample_after)
        for label, (kernel, symmetric) in kernels.items()
    }
    figure: Any = blank(6.4, 4.2)
    axis = figure.subplots()
    for layer in sorted(downsample_after):
        axis.axvline(layer, color="0.6", linestyle=":", linewidth=1)
    for number, (label, left) in enumerate(curves.items()):
        _draw(axis, range(1, layers + 1), left, number, label, every=max(1, layers // 9))
    axis.set_yscale("log")
    axis.set_xlabel("layer")
    axis.set_ylabel("information left, Q (input = 1)")
    axis.set_title(f"What zero padding leaves after each of {layers} layers, from {size}x{size} pixels", fontsize=11)
    _finish(axis)
    return figure


def _draw(axis: Any, x: Sequence[int], y: Sequence[float], number: int, label: str, every: int) -> None:
    """One curve; the markers of the curves are offset from each other, so that none hides another."""
    look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
    axis.plot(x, y, **look, linewidth=1.6, markersize=4.5, markevery=(number % every, every), label=label)


def _finish(axis: Any) -> None:
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=9)
    axis.legend(fontsize=9, framealpha=0.9)
