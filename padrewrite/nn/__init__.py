"""Drop-in layers: for building from scratch, and what rewritten models contain."""

from padrewrite.nn.axis_padding import AxisPaddedConv1d, AxisPaddedConv2d, AxisPaddedConv3d
from padrewrite.nn.large import BoundaryRefinement, GlobalConv2d
from padrewrite.nn.partial import PartialConv1d, PartialConv2d, PartialConv3d
from padrewrite.nn.symmetric import SymmetricConv1d, SymmetricConv2d, SymmetricConv3d

__all__ = [
    "AxisPaddedConv1d",
    "AxisPaddedConv2d",
    "AxisPaddedConv3d",
    "BoundaryRefinement",
    "GlobalConv2d",
    "PartialConv1d",
    "PartialConv2d",
    "PartialConv3d",
    "SymmetricConv1d",
    "SymmetricConv2d",
    "SymmetricConv3d",
]
