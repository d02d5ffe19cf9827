"""Pictures of the spatial mathematics, as matplotlib figures: ``figure.savefig("picture.png")`` writes one.

They need the extra ``figures``; without matplotlib every function raises a ``PadrewriteError`` that says how to get it.
Equal arguments draw equal pictures.
"""

from __future__ import annotations

from padrewrite.drawing.curves import erosion_figure, valid_weights_figure
from padrewrite.drawing.gridding import gridding_figure
from padrewrite.drawing.positions import receptive_field_figure, shift_figure

__all__ = [
    "erosion_figure",
    "gridding_figure",
    "receptive_field_figure",
    "shift_figure",
    "valid_weights_figure",
]
