"""The passes that come with padrewrite. The engine finds them by entry point, as it would find yours."""

from padrewrite_passes.boundary_refinement import BoundaryRefinement
from padrewrite_passes.hybrid_dilation import HybridDilation
from padrewrite_passes.output_stride import OutputStride
from padrewrite_passes.padding_mode import PaddingMode
from padrewrite_passes.partial_padding import PartialPadding
from padrewrite_passes.resnet_gcn import ResnetGcn
from padrewrite_passes.separable_kernel import SeparableKernel
from padrewrite_passes.symmetric_even import SymmetricEven

__all__ = [
    "BoundaryRefinement",
    "HybridDilation",
    "OutputStride",
    "PaddingMode",
    "PartialPadding",
    "ResnetGcn",
    "SeparableKernel",
    "SymmetricEven",
]
