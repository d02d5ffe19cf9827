"""The layers of *Large Kernel Matters* (Peng et al. 2017): the global convolution and the boundary refinement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.nn.common_types import _size_2_t

from padrewrite.nn.assembled import Assembled
from padrewrite.ops.assembly import Assembly
from padrewrite.ops.conv import Conv, own_padding, per_axis
from padrewrite.ops.refinement import BRANCH, refinement
from padrewrite.ops.separable import ORDERS, separate
from padrewrite.ops.window import Window


class GlobalConv2d(Assembled):
    """A large kernel as two separable ones: (k x 1 then 1 x k) + (1 x k then k x 1), Fig. 3B of the paper.

    Linear: no nonlinearity between, only biases. ``2 k m (c_in + c_out)`` weights for k x k with m middle channels.

    Args:
        kernel_size: one number or (height, width).
        mid_channels: between the two convolutions of a branch; ``out_channels`` by default.
        bias: of every convolution.
        stride, dilation, groups: as for ``nn.Conv2d``.
        padding: as for ``nn.Conv2d``; by default "same", the odd pixel of an even kernel after.
        branches: 1 for k x 1 then 1 x k alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        mid_channels: int | None = None,
        bias: bool = True,
        *,
        stride: _size_2_t = 1,
        padding: str | _size_2_t = "same",
        dilation: _size_2_t = 1,
        groups: int = 1,
        branches: int = 2,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        kernel, rates = per_axis(kernel_size, 2), per_axis(dilation, 2)
        mid = out_channels if mid_channels is None else mid_channels
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels), ("mid_channels", mid)):
            if channels < 1 or channels % groups:
                raise ValueError(f"{name}={channels} is not a positive multiple of groups={groups}")
        if branches not in (1, 2):
            raise ValueError(f"branches={branches} is neither 1 nor 2")
        pairs = own_padding(padding, kernel, rates)
        lo, hi = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        window = Window(kernel, per_axis(stride, 2), rates, lo, hi)
        op = Conv(window, in_channels, out_channels, groups, bias, ("zeros", "zeros"))
        super().__init__(separate(op, mid, branches, None, False, bias), device=device, dtype=dtype)


class BoundaryRefinement(Assembled):
    """``S + conv(relu(conv(S)))`` with 3 x 3 kernels and biases, Fig. 2C of the paper.

    Args:
        channels: in and out.
        identity: begin as the identity: the last convolution's parameters are zeros. Everything trains from there.
    """

    def __init__(self, channels: int, *, identity: bool = False, device: Any = None, dtype: Any = None) -> None:
        made = refinement(channels)
        super().__init__(made if identity else replace(made, zero=()), device=device, dtype=dtype)


def layer_of(assembly: Assembly, replaced: Conv | None = None, device: Any = None, dtype: Any = None) -> Assembled:
    """The layer that computes an assembly, of the class that is named for it where there is one."""
    names = {branch.name for branch in assembly.branches}
    named: type[Assembled] = GlobalConv2d if names and names <= set(ORDERS) else Assembled
    named = BoundaryRefinement if names == {BRANCH} else named
    made = named.__new__(named)
    Assembled.__init__(made, assembly, replaced, device, dtype)
    return made
