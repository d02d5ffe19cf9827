"""Which input pixels a chain of dilated convolutions reads, and how often ([HDC] Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import nan
from typing import TYPE_CHECKING, Any

from padrewrite.analyses.chains import Chain, Gridding
from padrewrite.drawing.canvas import COLOURS, blank, shades
from padrewrite.errors import PadrewriteError
from padrewrite.formulas import path_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID_LINES = 45
"""Fields up to so many pixels wide are drawn with lines between the pixels."""


OneChain = Sequence[int] | Gridding | Chain
"""Rates of convolutions with kernel 3, first to last, or a chain of ``analyze``, or one with kernels of its own."""


def gridding_figure(chains: Mapping[str, OneChain] | OneChain | Sequence[OneChain]) -> Figure:
    """What one output of each chain reads: a map of the pixels above, one axis of it below.

    A pixel's shade says how many paths lead from the output to it, relative to the pixel with most; a white pixel in
    the field is a hole, which nothing reads. All chains are drawn at one scale, side by side: before and after a
    rewrite, for example. Source: Wang et al. 2018, *Understanding Convolution for Semantic Segmentation*, Fig. 2.

    Args:
        chains: by title: rates of convolutions with kernel 3, first to last; or a chain of ``analyze`` (alone; give
            ``chain.with_lead_in`` to see it behind the convolutions before it); or ``Gridding.of(rates, kernels)``. One
            chain, or several in a list (``analysis.chains``), get their sites or their rates as titles.

    Raises:
        PadrewriteError: there is no chain, or matplotlib is not installed.
        ValueError: a rate or kernel is no integer of at least 1.
    """
    titled = _titled(chains)
    if not titled:
        raise PadrewriteError("gridding_figure got no chain; give rates or chains of an analysis by their titles")
    runs = {title: _gridding(chain) for title, chain in titled.items()}
    counts = {title: path_counts(run.rates, run.kernels) for title, run in runs.items()}
    widest = max(map(len, counts.values()))
    figure: Any = blank(1.2 + 3.4 * len(runs), 5.8)
    axes = figure.subplots(2, len(runs), squeeze=False, height_ratios=(3, 1.2), sharex=True)
    image = None
    for (above, below), (title, run) in zip(zip(*axes), runs.items()):
        image = _draw_map(above, counts[title], widest)
        above.set_title(f"{title}\n{_summary(run, counts[title])}", fontsize=9)
        _draw_profile(below, counts[title])
    for row in axes:
        for axis in row[1:]:
            axis.tick_params(labelleft=False)
    axes[0, 0].set_ylabel("distance from the output (pixels)", fontsize=9)
    axes[1, 0].set_ylabel("paths along one axis\n(most = 1)", fontsize=9)
    figure.supxlabel("distance from the output (pixels)", fontsize=9)
    bar = figure.colorbar(image, ax=list(axes[0]), fraction=0.05, pad=0.02)
    bar.set_label("paths to the pixel (most = 1); white: none", fontsize=9)
    return figure


def _titled(chains: Any) -> dict[str, OneChain]:
    if isinstance(chains, Mapping):
        return dict(chains)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    several: list[OneChain] = [chains] if isinstance(chains, (Chain, Gridding)) else list(chains)
    if any(isinstance(part, int) for part in several):
        several = [chains]
    titled: dict[str, OneChain] = {}
    for chain in several:
        ends = (chain.sites[0], chain.sites[-1]) if isinstance(chain, Chain) else ()
        title = " to ".join(ends) or _listed(_gridding(chain).rates)
        titled[f"{title} ({len(titled) + 1})" if title in titled else title] = chain
    return titled


def _gridding(chain: Sequence[int] | Gridding | Chain) -> Gridding:
    if isinstance(chain, Chain):
        return chain.alone
    return chain if isinstance(chain, Gridding) else Gridding.of(chain, [3] * len(chain))


def _summary(run: Gridding, counts: Sequence[int]) -> str:
    """The rates and what is read of the field, in figures."""
    read, field = sum(count > 0 for count in counts), len(counts)
    taps = "" if set(run.kernels) == {3} else f", kernels {_listed(run.kernels)}"
    covered = f"{read**2} of {field}x{field} pixels read, gridding score {run.score:.2f}"
    return f"rates {_listed(run.rates)}{taps}\n{covered}"


def _listed(values: Sequence[int]) -> str:
    """Values of the layers, as short as they must be to stand over a panel."""
    runs = [(value, len(list(same))) for value, same in groupby(values)]
    text = ", ".join(", ".join([str(v)] * n) if n < 4 else f"{v} (x{n})" for v, n in runs)
    return text if len(text) <= 36 else f"{min(values)} to {max(values)} in {len(values)} layers"


def _places(counts: Sequence[int]) -> list[float]:
    """Distance of each pixel from the output, which sits over the middle of its field."""
    return [i - (len(counts) - 1) / 2 for i in range(len(counts))]


def _draw_map(axis: Any, counts: Sequence[int], widest: int) -> Any:
    from matplotlib.colors import PowerNorm

    most, edge = max(counts), len(counts) / 2
    seen = [[a * b / most**2 if a * b else nan for b in counts] for a in counts]
    image = axis.imshow(
        seen, cmap=shades(), norm=PowerNorm(0.4, 0, 1), extent=(-edge, edge, edge, -edge), interpolation="nearest"
    )
    if widest <= GRID_LINES:
        lines = [i - edge for i in range(len(counts) + 1)]
        axis.vlines(lines, -edge, edge, color="0.8", linewidth=0.4)
        axis.hlines(lines, -edge, edge, color="0.8", linewidth=0.4)
    axis.plot([0], [0], marker="x", color=COLOURS[0], markersize=6, markeredgewidth=1.8)
    axis.set_xlim(-widest / 2 - 0.5, widest / 2 + 0.5)
    axis.set_ylim(widest / 2 + 0.5, -widest / 2 - 0.5)
    axis.tick_params(labelsize=8)
    return image


def _draw_profile(axis: Any, counts: Sequence[int]) -> None:
    most = max(counts)
    axis.bar(_places(counts), [c / most for c in counts], width=0.8, color=COLOURS[1])
    axis.set_ylim(0, 1.08)
    axis.tick_params(labelsize=8)
