"""Separable kernels as numbers: k x k becomes (k x 1 then 1 x k), alone or beside (1 x k then k x 1).

    W[o,c,y,x] ~ sum_m A[o,m,x] B[m,c,y]  (+ sum_n C[o,n,y] D[n,c,x])

No bias and no nonlinearity lies between, and each convolution pads, strides and dilates along its own axis, so the
pair is one linear map with the border of the k x k kernel. Source: Peng et al. 2017, Large Kernel Matters, Fig. 3B.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from padrewrite.ops.assembly import Assembly, Branch, Carry
from padrewrite.ops.conv import Conv
from padrewrite.ops.window import Ints, Window

ORDERS = {"left": (0, 1), "right": (1, 0)}
"""Per branch the axis of its first and of its second convolution."""


def separate(op: Conv, mid: int, branches: int, carry: Carry | None, cheaper: bool, bias: bool = False) -> Assembly:
    """The separable form of a two-dimensional convolution.

    Args:
        mid: channels between the two convolutions of a branch, over all groups.
        branches: 1 or 2.
        bias: every convolution has a bias, as in the paper; otherwise only the last of the first branch, if ``op`` has.
    """
    made: list[Branch] = []
    for name, (first, second) in list(ORDERS.items())[:branches]:
        last = op.bias and (bias or not made)
        middle = _along(op, first, op.in_channels, mid, op.bias and bias)
        made.append(Branch(name, (middle, _along(op, second, mid, op.out_channels, last))))
    return Assembly(tuple(made), carry=carry, cheaper=cheaper)


def mid_of(new: Assembly) -> int:
    """Middle channels of a separable form."""
    return next(iter(new.convs.values())).out_channels


def with_mid(new: Assembly, mid: int) -> Assembly:
    """The same with another number of middle channels."""
    made: list[Branch] = []
    for branch in new.branches:
        first, second = branch.parts
        assert isinstance(first, Conv)
        assert isinstance(second, Conv)
        made.append(replace(branch, parts=(replace(first, out_channels=mid), replace(second, in_channels=mid))))
    return replace(new, branches=tuple(made))


def full_rank(op: Conv) -> int:
    """Middle channels with which one branch computes any kernel of this shape."""
    (ky, kx), inner, outer = op.kernel, op.in_channels // op.groups, op.out_channels // op.groups
    return op.groups * min(inner * ky, outer * kx)


def enlarged(op: Conv, kernel: Ints) -> Conv | None:
    """``op`` with a kernel that reaches further by as much on both sides; None where it would not be centred.

    Padding grows with it, so sizes and positions stay, and the old kernel with zeros around it computes the same.
    """
    w, grown = op.window, [new - old for new, old in zip(kernel, op.kernel)]
    if any(g < 0 or g % 2 for g in grown):
        return None
    more = [g // 2 * d for g, d in zip(grown, w.dilation)]
    lo, hi = (tuple(p + m for p, m in zip(side, more)) for side in (w.lo, w.hi))
    return replace(op, window=Window(kernel, w.stride, w.dilation, lo, hi))


def _along(op: Conv, axis: int, channels: int, out: int, bias: bool) -> Conv:
    """The convolution along one axis: the numbers of ``op`` there, a kernel of 1 elsewhere."""
    w = op.window

    def only(values: Ints, neutral: int) -> Ints:
        return tuple(v if a == axis else neutral for a, v in enumerate(values))

    window = Window(only(w.kernel, 1), only(w.stride, 1), only(w.dilation, 1), only(w.lo, 0), only(w.hi, 0))
    modes: Any = tuple(m if a == axis else "zeros" for a, m in enumerate(op.modes))
    return Conv(window, channels, out, op.groups, bias, modes, op.partial)
