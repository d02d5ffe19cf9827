"""Symmetric convolution: even kernels without the half-pixel shift. Blocks of channels are read from all sides.

With D directions (two per symmetric axis), the channels cut into blocks C_1, ..., C_D of sizes as equal as can be, and
the window of each block moved by d/2 along every symmetric axis, before or after the middle::

    out[i] = sum over blocks, c in C_j, taps t of  w[c, t] x[c, i*s + d*t - p_j]  + b        mean of p_j = d(k-1)/2

The shifts cancel: on average the window is centred on a pixel. Three formulations of one function: ``concat`` pads each
block on its own sides and convolves once; ``embedded`` convolves with kernels of k+1, each placed in its block's
corner; ``crops`` convolves each block by itself and adds up what is cropped to size.

Source [C2sp]: Wu et al. 2019, *Convolution with even-sized kernels and symmetric padding*, Section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from padrewrite.ops.arguments import Padding, Pairs, check_channels, check_scale, read_window
from padrewrite.ops.directions import ORDERS, Block, Symmetry, even_axes, reach_of, same_padding, window_of
from padrewrite.ops.formulations import FORMULATIONS, choose
from padrewrite.ops.pad import MODES, pad_axes
from padrewrite.ops.partial import convolve_zeros, flat, rescaled
from padrewrite.ops.window import Ints, Window

Blocks: TypeAlias = tuple[Block, ...]


def symmetric_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    order: str = "balanced",
    padding: Padding = "same",
    axes: Sequence[int] | None = None,
    modes: Sequence[str] | None = None,
    scale: str | None = None,
    formulation: str | None = None,
) -> Tensor:
    """Convolution with an even kernel that is centred on average: a part of the channels from each side. Stateless.

    Args:
        x: ``(N, C, *spatial)`` or ``(C, *spatial)``, one to three spatial axes, as the weight has.
        weight: ``(out, C / groups, *kernel)``, of any parity per axis; odd axes are padded on both sides as ever. With
            one channel per group nothing cancels an even kernel's shift.
        bias: ``(out,)`` or None.
        stride, dilation: an integer, or one per axis. A block's window is d/2 off the middle.
        groups: as in ``torch.nn.functional.conv2d``; directions are balanced inside each group.
        order: of the directions over the channels, one of ``padrewrite.ops.directions.ORDERS``.
        padding: around all blocks together, whose windows span d*k + 1 pixels: ``"same"`` (d*k/2 on each side, which
            keeps the size at stride 1), or in pixels an integer, one per axis, or a ``(lo, hi)`` pair per axis.
        axes: the spatial axes on which to be symmetric; default all of even kernel.
        modes: per axis how the border is filled (zeros, reflect, replicate or circular); default zeros.
        scale: None, or ``"mean"`` or ``"sqrt"``: partial padding on the axes padded with zeros. An output is then
            scaled by ``2k / (n + m)`` per symmetric axis, n and m the real taps of a window before and one after.
        formulation: one of ``FORMULATIONS``; by default that of the table in ``padrewrite.ops.formulations``. All
            are one function, up to rounding.

    Returns:
        ``(N, out, *out_spatial)``.

    Raises:
        ValueError: an argument of the wrong rank, shape, sign or name.
    """
    if not torch.compiler.is_dynamo_compiling() and has_torch_function_variadic(x, weight, bias):
        given = (x, weight, bias, stride, dilation, groups)
        options: dict[str, Any] = {"order": order, "padding": padding, "axes": axes, "modes": modes, "scale": scale}
        return handle_torch_function(symmetric_conv, (x, weight, bias), *given, formulation=formulation, **options)
    window, symmetry, filled = read_symmetric(tuple(weight.shape[2:]), stride, dilation, order, padding, axes, modes)
    check_channels(x, weight, groups)
    stored = torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()
    return symmetric_form(
        *(x, weight, bias, window, groups, symmetry, int(weight.shape[1])),
        modes=filled,
        scale=scale,
        stored=stored,
        last=stored and convolves_channels_last(x, window.rank),
        formulation=formulation or choose(x, int(weight.shape[1]) * groups),
    )


def read_symmetric(
    kernel: tuple[int, ...],
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    order: str,
    padding: Padding,
    axes: Sequence[int] | None,
    modes: Sequence[str] | None,
) -> tuple[Window, Symmetry, tuple[str, ...]]:
    """The window (padding around all blocks), the directions and the mode per axis that the arguments describe.

    Raises:
        ValueError: naming the argument.
    """
    bare = read_window(kernel, stride, "valid", dilation)
    if order not in ORDERS:
        raise ValueError(f"order={order!r} is unknown; choose one of {', '.join(map(repr, ORDERS))}")
    chosen = even_axes(kernel) if axes is None else tuple(sorted(axes))
    odd = [a for a in chosen if a not in even_axes(kernel)]
    if odd:
        raise ValueError(f"axes={axes!r}: the kernel {kernel} is not even along {odd}, so it has a middle there")
    filled = ("zeros",) * bare.rank if modes is None else tuple(modes)
    if len(filled) != bare.rank or any(mode not in MODES for mode in filled):
        raise ValueError(f"modes={modes!r}: give {bare.rank} of {', '.join(map(repr, MODES))}")
    pairs = same_padding(bare, chosen) if padding == "same" else _pairs(padding, kernel)
    window = replace(bare, lo=tuple(p[0] for p in pairs), hi=tuple(p[1] for p in pairs))
    return window, Symmetry(order, chosen), filled


def _pairs(padding: Padding, kernel: tuple[int, ...]) -> Pairs:
    """Numbers as (lo, hi) per axis. Negative ones crop, which the sides of a pair may do."""
    if isinstance(padding, (tuple, list)) and any(isinstance(entry, (tuple, list)) for entry in padding):
        pairs = tuple(tuple(entry) for entry in padding if isinstance(entry, (tuple, list)))
        if len(pairs) != len(kernel) or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"padding={padding!r}: give {len(kernel)} (lo, hi) pairs, one per axis")
        return tuple((pair[0], pair[1]) for pair in pairs)  # pyright: ignore[reportGeneralTypeIssues]
    return read_window(kernel, 1, padding, 1).padding


def symmetric_form(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int,
    symmetry: Symmetry,
    channels: int,
    *,
    modes: Sequence[str],
    scale: str | None = None,
    dtype: torch.dtype | None = None,
    stored: bool = False,
    last: bool = False,
    formulation: str = "concat",
) -> Tensor:
    """The convolution in plain torch calls, ``channels`` input channels a group, with every number an integer.

    Tensors may be ``torch.fx.Proxy``, as for ``padrewrite.ops.partial.border_form``, whose ``dtype`` and ``stored``
    these are. ``last`` is for a compiler that convolves channels last whatever the layout of the input
    (``convolves_channels_last``): what is joined is then written that way, and not converted afterwards.
    """
    filled = tuple(pair if m != "zeros" else (0, 0) for pair, m in zip(window.padding, modes))
    zeros = tuple(pair if m == "zeros" else (0, 0) for pair, m in zip(window.padding, modes))
    x = pad_axes(x, filled, modes)
    left = replace(window, lo=tuple(lo for lo, _ in zeros), hi=tuple(hi for _, hi in zeros))
    blocks = symmetry.blocks(channels, window.rank)
    reach = reach_of(left, symmetry.axes)
    padded = tuple(a for a, pair in enumerate(zeros) if any(type(side) is not int or side > 0 for side in pair))
    scaled = scale is not None and bool(padded)
    if scale is not None:
        check_scale(scale)
    own = None if scaled else bias
    if formulation == "concat" and len(blocks) > 1:
        out = _concat(x, weight, own, left, groups, symmetry.axes, blocks, last)
    elif formulation == "crops" and len(blocks) > 1:
        out = _crops(x, weight, own, left, groups, symmetry.axes, blocks)
    elif formulation in FORMULATIONS:
        out = convolve_zeros(x, _embed(weight, symmetry.axes, blocks), own, reach, groups)
    else:
        raise ValueError(f"formulation={formulation!r} is unknown; choose one of {', '.join(map(repr, FORMULATIONS))}")
    if not scaled:
        return out
    sides = [window_of(left, symmetry.axes, Block(channels, (side,) * window.rank)) for side in (0, 1)]
    windows = {a: tuple(sides) if a in symmetry.axes else (left,) for a in padded}
    return rescaled(x, out, bias, windows, scale=scale or "mean", dtype=dtype, stored=stored)


def convolves_channels_last(x: Tensor, rank: int) -> bool:
    """Whether Inductor keeps the input of a convolution of ``x`` channels last: in two dimensions on CPUs."""
    return x.device.type == "cpu" and rank == 2 and x.dim() == 4


def _concat(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int,
    axes: Ints,
    blocks: Blocks,
    last: bool,
) -> Tensor:
    """Each block padded (or cropped) on its own sides, then one convolution."""
    rank = window.rank
    shared = tuple(lo if a not in axes and _is_even(lo, hi) else 0 for a, (lo, hi) in enumerate(window.padding))
    rest = tuple((lo - both, hi - both) for (lo, hi), both in zip(window.padding, shared))
    by_hand = replace(window, lo=tuple(lo for lo, _ in rest), hi=tuple(hi for _, hi in rest))
    pads = [flat(window_of(by_hand, axes, block).padding, 1) for block in blocks] * groups
    parts = torch.split(x, [block.channels for block in blocks] * groups, -rank - 1)
    padded = [F.pad(parts[place], pad) for place, pad in enumerate(pads)]
    if last:
        # One part decides how Inductor lays out the whole; of the strides that eager mode sees, none change. Permuted,
        # because memory formats cannot be asked for inside vmap.
        padded[0] = padded[0].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    joined = torch.cat(padded, -rank - 1)
    own = replace(window, lo=shared, hi=shared)
    return convolve_zeros(joined, weight, bias, own, groups)


def _is_even(lo: int, hi: int) -> bool:
    """Whether a convolution can pad both sides itself; an amount that is a size expression is padded explicitly."""
    return type(lo) is int and type(hi) is int and lo == hi >= 0


def _embed(weight: Tensor, axes: Ints, blocks: Blocks) -> Tensor:
    """Kernels of one tap more along symmetric axes, zero where the block's kernel does not lie."""
    parts = torch.split(weight, [b.channels for b in blocks], 1)
    corners: list[Tensor] = []
    for place, block in enumerate(blocks):
        sides = tuple((side, 1 - side) if a in axes else (0, 0) for a, side in enumerate(block.after))
        corners.append(F.pad(parts[place], flat(sides, 1)))
    return torch.cat(corners, 1)


def _crops(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int, axes: Ints, blocks: Blocks
) -> Tensor:
    """One convolution per block, added up. At stride 1 the outputs are cropped, otherwise the inputs."""
    rank = window.rank
    sizes = [block.channels for block in blocks]
    if groups > 1:
        x = torch.unflatten(x, -rank - 1, (groups, sum(sizes)))
    parts, weights = torch.split(x, sizes, -rank - 1), torch.split(weight, sizes, 1)
    crop = all(window.stride[a] == 1 for a in axes)
    terms: list[Tensor] = []
    for place, block in enumerate(blocks):
        part = torch.flatten(parts[place], -rank - 2, -rank - 1) if groups > 1 else parts[place]
        own = window_of(window, axes, block)
        out = convolve_zeros(part, weights[place], bias if place == 0 else None, window if crop else own, groups)
        off = tuple((a - b, c - d) for (a, c), (b, d) in zip(own.padding, window.padding))
        terms.append(F.pad(out, flat(off, 1)) if crop else out)
    return reduce(torch.add, terms)
