"""The boundary refinement as numbers: S + conv(relu(conv(S))).

Source: Peng et al. 2017, Large Kernel Matters, Fig. 2C: two 3 x 3 convolutions with biases, no norm.
"""

from __future__ import annotations

from padrewrite.ops.assembly import Assembly, Branch, Relu
from padrewrite.ops.conv import Conv
from padrewrite.ops.window import Window

BRANCH = "residual"
"""Of the layer: its convolutions are ``residual.0`` and ``residual.2``."""


def refinement(channels: int) -> Assembly:
    """The refinement that begins as the identity: its last convolution is zero."""
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    conv = Conv(window, channels, channels, 1, True, ("zeros", "zeros"))
    return Assembly((Branch(BRANCH, (conv, Relu(), conv)),), skip=True, zero=(f"{BRANCH}.2",))
