"""Where the sites of a model look, on the input: what reaches them, and where their positions sit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

from padrewrite.analyses.analysis import Analysis, SiteRecord
from padrewrite.drawing.canvas import COLOURS, MARKERS, blank, shades
from padrewrite.errors import PadrewriteError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = 24
"""Up to so many sites are named on the axis of layers."""


def receptive_field_figure(analysis: Analysis, sites: Sequence[str]) -> Figure:
    """The input pixels that the middle output of each site depends on, exactly, over the whole input.

    Shaded pixels reach the output along some path; white ones within the frame, which spans them, are holes. The cross
    is where the output sits. What arrives through global pools and gates, from everywhere, is left out.

    Args:
        analysis: of a model on example inputs with one or two spatial axes.
        sites: their ids; one panel each.

    Raises:
        PadrewriteError: no site is given, one is unknown, its support is not known or has three axes, or matplotlib
            is not installed.
    """
    if not sites:
        raise PadrewriteError("receptive_field_figure got no site; give ids, as in analysis.sites")
    records = [_reached_record(analysis, site) for site in sites]
    tallest = max(record.reached.sizes[0] / record.reached.sizes[-1] for record in records if record.reached)
    figure: Any = blank(0.6 + 3.6 * len(records), 1.2 + 3.1 * min(2.0, tallest))
    for axis, record in zip(figure.subplots(1, len(records), squeeze=False)[0], records):
        _draw_field(axis, record)
    figure.supxlabel("input column (pixels)", fontsize=9)
    figure.supylabel("input row (pixels)", fontsize=9)
    return figure


def _reached_record(analysis: Analysis, site: str) -> SiteRecord:
    record = analysis.sites.get(site)
    if record is None:
        raise PadrewriteError(f"there is no site {site!r}; the analysis has {', '.join(analysis.sites)}")
    if record.reached is None or not record.reached.count:
        why = record.ended or "nothing reaches it, or more than one input does"
        raise PadrewriteError(f"what reaches {site} is not known: {why}")
    if len(record.reached.sizes) > 2:
        raise PadrewriteError(f"{site} has {len(record.reached.sizes)} spatial axes; figures show one or two")
    return record


def _draw_field(axis: Any, record: SiteRecord) -> None:
    seen = record.reached
    assert seen is not None
    height, width = seen.sizes if len(seen.sizes) == 2 else (1, *seen.sizes)
    shown = [[nan] * width for _ in range(height)]
    for place in seen.positions():
        row, column = place if len(place) == 2 else (0, *place)
        shown[row][column] = 1.0
    edges = (-0.5, width - 0.5, height - 0.5, -0.5)
    axis.imshow(shown, cmap=shades("Blues"), vmin=0, vmax=1.4, extent=edges, interpolation="nearest", aspect="equal")
    _draw_frame(axis, record)
    extents = "x".join(map(str, seen.extents))
    axis.set_title(f"{record.id}\n{seen.count:,} pixels in {extents} ({seen.share:.0%})", fontsize=9)
    axis.tick_params(labelsize=8)
    if len(seen.sizes) == 1:
        axis.set_aspect("auto")
        axis.set_yticks([])


def _draw_frame(axis: Any, record: SiteRecord) -> None:
    """The outline of the pixels that reach the output, and a cross where it sits."""
    from matplotlib.patches import Rectangle

    assert record.reached is not None
    places = record.reached.positions()
    lows, highs = (list(map(pick, zip(*places))) for pick in (min, max))
    if len(lows) == 1:
        lows, highs = [0, *lows], [0, *highs]
    corner, size = (lows[1] - 0.5, lows[0] - 0.5), (highs[1] - lows[1] + 1, highs[0] - lows[0] + 1)
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=COLOURS[0], linewidth=1.4))
    if record.output_size is not None and all(phase is not None for phase in record.phase):
        middle = [float(p.offset + p.scale * (n // 2)) for p, n in zip(record.phase, record.output_size) if p]
        row, column = middle if len(middle) == 2 else (0.0, *middle)
        axis.plot([column], [row], marker="x", color=COLOURS[0], markersize=6, markeredgewidth=1.8)


def shift_figure(analyses: Mapping[str, Analysis] | Analysis) -> Figure:
    """Where position 0 of every convolution's output sits on the input, layer by layer: what its shifts add up to.

    Two places count as unshifted and are drawn in grey: pixel 0 itself (kernels that are padded evenly), and the middle
    of the first cell of a grid that tiles the input (strided kernels that are padded so). Layers whose phase is not
    known are left out.

    Args:
        analyses: by label, of models with the same number of convolutions: before and after a rewrite, for example;
            one alone is labelled by its model's class.

    Raises:
        PadrewriteError: there is no analysis, one has no known phase, or matplotlib is not installed.
    """
    if isinstance(analyses, Analysis):
        analyses = {analyses.model: analyses}
    if not analyses:
        raise PadrewriteError("shift_figure got no analysis; give those of one or more models by their labels")
    curves = {label: _offsets(label, analysis) for label, analysis in analyses.items()}
    figure: Any = blank(7.2, 4.4)
    axis = figure.subplots()
    axis.axhline(0, color="0.6", linewidth=1.2)
    cells = next(iter(curves.values()))[2]
    layers = range(1, len(cells) + 1)
    axis.step(layers, cells, where="mid", color="0.6", linewidth=1.2, linestyle=":", label="unshifted (grey)")
    for number, (label, (_, offsets, _)) in enumerate(curves.items()):
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        axis.plot(range(1, len(offsets) + 1), offsets, **look, linewidth=1.6, markersize=5, label=label)
    names = next(iter(curves.values()))[0]
    if len(names) <= NAMES:
        axis.set_xticks(list(layers), names, rotation=60, ha="right", fontsize=7, rotation_mode="anchor")
    axis.set_xlabel("convolution, in the order of execution", fontsize=9)
    axis.set_ylabel("position 0 of its output, on the input (pixels)", fontsize=9)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=9)
    return figure


def _offsets(label: str, analysis: Analysis) -> tuple[list[str], list[float], list[float]]:
    """Ids, offsets, and the offsets of tiling grids, along the last axis, of all sites whose phase is known."""
    known = [(record.id, record.phase[-1]) for record in analysis.sites.values() if record.phase[-1] is not None]
    if not known:
        raise PadrewriteError(f"no convolution of {label!r} has a known phase; was it analysed with example inputs?")
    ids, phases = [name for name, _ in known], [phase for _, phase in known]
    return ids, [float(p.offset) for p in phases], [float((p.scale - 1) / 2) for p in phases]
