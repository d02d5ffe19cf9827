"""Pure number functions of the spatial mathematics: counts, dilation rules, erosion. No torch, no graph.

Sources: [PCP] Liu et al. 2018, *Partial Convolution based Padding*; [C2sp] Wu et al. 2019, *Convolution with even-sized
kernels and symmetric padding*; [DLv3] Chen et al. 2017, *Rethinking Atrous Convolution for Semantic Image
Segmentation*; [HDC] Wang et al. 2018, *Understanding Convolution for Semantic Segmentation*.
"""

from __future__ import annotations

from padrewrite.formulas.assigning import assign_rates
from padrewrite.formulas.counting import valid_count, valid_weight_fraction
from padrewrite.formulas.dilation import gridding_score, is_hole_free, max_gap, path_counts
from padrewrite.formulas.eroding import erosion

__all__ = [
    "assign_rates",
    "erosion",
    "gridding_score",
    "is_hole_free",
    "max_gap",
    "path_counts",
    "valid_count",
    "valid_weight_fraction",
]
