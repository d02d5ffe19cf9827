"""What all figures share: the blank figure and the colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from padrewrite.errors import PadrewriteError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, told apart by all kinds of colour vision. Lines differ in their markers too, for print in grey."""

MARKERS = ("o", "s", "^", "D", "v", "x")


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches.

    Raises:
        PadrewriteError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PadrewriteError(
            f"figures need matplotlib, which cannot be imported ({error}). Run: pip install 'padrewrite[figures]'"
        ) from error
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def shades(name: str = "Blues", empty: str = "white") -> Any:
    """A map from 0..1 to colours that print well; what is nothing at all (nan) gets the colour ``empty``."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    chosen = ListedColormap(colormaps[name]([0.2 + 0.8 * i / 255 for i in range(256)]))
    return chosen.with_extremes(bad=empty)
