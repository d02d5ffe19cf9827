"""Odd kernels carried over to symmetric even ones: the nearest there is, and behind an average pool the nearest, too.

A channel's even kernel fills all but the first or all but the last tap of the odd one, along each axis: a corner of it,
by the channel's direction. The nearest such kernel W' is that corner of W. Behind an average over cells of s pixels
every tap t stands for s equal taps of W'[t]/s each, and the nearest is the sum of W over the cell::

    W'[t] = sum over u in cell t of W[u]        minimises  sum over u of (W[u] - W'[t(u)]/s)^2

Source: Wu et al. 2019, *Convolution with even-sized kernels and symmetric padding* (C2sp), Section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from padrewrite.ops.assembly import Assembly
from padrewrite.ops.conv import Conv
from padrewrite.ops.directions import Block, Symmetry, even_axes
from padrewrite.ops.pool import Pool
from padrewrite.ops.window import Ints, Window

POOLED = "pooled"
"""The branch of a layer that averages its input first."""
EVEN = "even"
"""The branch of one that does not."""


def cells_of(window: Window) -> Pool:
    """The average over cells of ``window``'s strides that stands for them. The last cell may have fewer pixels: then
    their mean is taken. For n pixels it has ceil(n/s) outputs, as an odd kernel padded by its half."""
    none = (0,) * window.rank
    cells = Window(window.stride, window.stride, (1,) * window.rank, none, none)
    return Pool(cells, average=True, counted=False, ceil=True)


def evened(op: Conv, order: str) -> Conv:
    """``op`` with one tap less along every axis on which it extends, its channels read from all sides; stride 1.

    All channels together span the taps that they did, so padding, sizes and mean positions stay.
    """
    kernel = tuple(k - (k > 1) for k in op.kernel)
    window = replace(op.window, kernel=kernel, stride=(1,) * op.window.rank)
    axes = even_axes(kernel)
    return replace(op, window=window, symmetric=Symmetry(order, axes) if axes else None)


def project(old: Conv, new: Assembly, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """The parameters of an assembly of one branch, an average pool if there is a stride and then one convolution."""
    name, conv = next(iter(new.convs.items()))
    sums = weight
    for axis, width in enumerate(_cells(new)):
        sums = _summed(sums, 2 + axis, width)
    parts = [_corner(part, block) for part, block in _parts(conv, sums)]
    state = {f"{name}.weight": torch.cat(parts, 1)}
    return state if bias is None else {**state, f"{name}.bias": bias}


def unfold(old: Conv, new: Assembly, state: Mapping[str, Tensor]) -> Tensor:
    """The dense kernel that the parameters compute: corners put back, taps spread over the cells that they average."""
    name, conv = next(iter(new.convs.items()))
    kernels: list[Tensor] = []
    for part, block in _parts(conv, state[f"{name}.weight"]):
        kernels.append(F.pad(part, [amount for pair in reversed(_missing(block, conv)) for amount in pair]))
    dense = torch.cat(kernels, 1)
    for axis, width in enumerate(_cells(new)):
        dense = dense.repeat_interleave(width, 2 + axis) / width
    return dense


def _cells(new: Assembly) -> Ints:
    """Pixels per axis of the cells that are averaged. The old layer may have lost its stride before it became even."""
    first = new.branches[0].parts[0]
    return first.window.stride if isinstance(first, Pool) else (1,) * new.window.rank


def _summed(weight: Tensor, dim: int, width: int) -> Tensor:
    """Sums of the taps that lie in each cell of ``width`` pixels. The cell of the middle output begins with the
    middle tap; there are as many cells as taps, so the outer ones are empty."""
    if width == 1:
        return weight
    taps = weight.shape[dim]
    middle = (taps - 1) // 2
    sums = weight.new_zeros((*weight.shape[:dim], taps, *weight.shape[dim + 1 :]))
    cells = torch.tensor([middle + (u - middle) // width for u in range(taps)])
    return sums.index_add(dim, cells, weight)


def _parts(conv: Conv, weight: Tensor) -> list[tuple[Tensor, Block]]:
    """Per block of input channels its kernels, and which corner they fill."""
    channels, rank = conv.in_channels // conv.groups, conv.window.rank
    blocks = (Block(channels, (0,) * rank),)
    if conv.symmetric is not None:
        blocks = conv.symmetric.blocks(channels, rank)
    return list(zip(torch.split(weight, [block.channels for block in blocks], 1), blocks))


def _corner(weight: Tensor, block: Block) -> Tensor:
    """All but the first tap along an axis for channels read from after the middle, all but the last for the others."""
    for axis, after in enumerate(block.after):
        taps = weight.shape[2 + axis]
        if taps > 1:
            weight = weight.narrow(2 + axis, after, taps - 1)
    return weight


def _missing(block: Block, conv: Conv) -> list[Ints]:
    """Per axis how many taps a corner lacks before and after."""
    axes = conv.symmetric.axes if conv.symmetric is not None else ()
    return [(after, 1 - after) if axis in axes else (0, 0) for axis, after in enumerate(block.after)]
