"""The figure of the demo: how strongly a network answers near the border. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from padrewrite.drawing.canvas import COLOURS, MARKERS, blank

REACH = 100
"""Distance from the border that is drawn, in input pixels."""

_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[0], "marker": MARKERS[0], "markersize": 5, "linewidth": 1.6},
    {"color": COLOURS[1], "marker": MARKERS[1], "markersize": 4, "linewidth": 1.6},
    {"color": "black", "linestyle": (0, (2, 1.5)), "linewidth": 1.6},
)


@dataclass(frozen=True)
class Curves:
    """One panel: a depth of the network."""

    title: str
    stride: int
    """Input pixels per position."""
    curves: Mapping[str, Sequence[float]]
    """By name: the response at 0, 1, 2, ... positions from the border, over its interior mean."""


@dataclass(frozen=True)
class Maps:
    """The photograph and the response maps of one depth."""

    photograph: Any
    """(H, W, 3) in 0..1."""
    crop: tuple[int, int, int, int]
    """Top, left, height and width of what the network sees, in pixels."""
    depth: str
    maps: Mapping[str, Any]
    """By name: (h, w), over the interior mean."""


def draw_border_response(title: str, panels: Sequence[Curves], pictures: Maps, path: Path) -> None:
    """Writes a PNG: the photograph and maps of one depth above, a panel of curves per depth below."""
    figure: Any = blank(11, 8.2)
    figure.suptitle(title, fontsize=12)
    above, below = figure.subfigures(2, 1, height_ratios=[2.2, 5.8])
    _draw_pictures(above, pictures)
    _draw_curves(below, panels)
    figure.savefig(path, format="png")


def _draw_pictures(figure: Any, pictures: Maps) -> None:
    from matplotlib.patches import Rectangle

    axes = figure.subplots(1, 1 + len(pictures.maps))
    axes[0].imshow(pictures.photograph)
    top, left, height, width = pictures.crop
    axes[0].add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="white", linewidth=2))
    axes[0].set_title("input: the part in the frame", fontsize=10)
    image = None
    for axis, (name, values) in zip(axes[1:], pictures.maps.items()):
        image = axis.imshow(values, cmap="viridis", vmin=0.4, vmax=1.4)
        axis.set_title(f"{pictures.depth}: {name}", fontsize=10)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    bar = figure.colorbar(image, ax=list(axes[1:]), fraction=0.05, pad=0.01, extend="both")
    bar.set_label("mean |activation|\ninterior mean = 1", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _draw_curves(figure: Any, panels: Sequence[Curves]) -> None:
    columns = 3
    axes = figure.subplots(-(-len(panels) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for axis, panel in zip(axes.flat, panels):
        axis.axhline(1, color="0.75", linewidth=1)
        for look, (name, values) in zip(_LOOKS, panel.curves.items()):
            shown = values[: REACH // panel.stride + 1]
            axis.plot([d * panel.stride for d in range(len(shown))], shown, label=name, **look)
        axis.set_title(f"{panel.title}  (1 position = {panel.stride} input pixels)", fontsize=10)
        axis.grid(alpha=0.25)
        axis.set_xlim(-2, REACH)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    axes[0, 0].set_ylim(*_limits(panels))
    axes[0, 0].legend(loc="lower right", fontsize=10, framealpha=0.9)
    figure.supxlabel("distance from the border (input pixels)", fontsize=10)
    figure.supylabel("mean |activation|, interior mean = 1", fontsize=10)


def _limits(panels: Sequence[Curves]) -> tuple[float, float]:
    """Of the response axis: all that is drawn, at least from 0.4 to 1.2, in steps of a fifth."""
    drawn = [v for p in panels for values in p.curves.values() for v in values[: REACH // p.stride + 1]]
    lowest, highest = min(0.4, *drawn), max(1.2, *drawn)
    return math.floor(lowest * 5) / 5, math.ceil(highest * 5) / 5
