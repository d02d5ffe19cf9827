"""Drop-in layers: for building from scratch, and what rewritten models contain."""

from padrewrite.nn.axis_padding import AxisPaddedConv1d, AxisPaddedConv2d, AxisPaddedConv3d
from padrewrite.nn.large import BoundaryRefinement, GlobalConv2d
from padrewrite.nn.partial import PartialConv1d, PartialConv2d, PartialConv3d

__all__ = [
    "AxisPaddedConv1d",
    "AxisPaddedConv2d",
    "AxisPaddedConv3d",
    "BoundaryRefinement",
    "GlobalConv2d",
    "PartialConv1d",
    "PartialConv2d",
    "PartialConv3d",
]
