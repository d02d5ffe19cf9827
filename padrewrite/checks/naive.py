"""The convolution that every contract is checked against: float64, by index, sharing no code with the ops.

Each kernel tap of each output position is looked up through an index map written out below, one axis at a
time; no convolution, padding or unfolding of torch is called. One gather per tap, one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

Ints = Sequence[int]
Pairs = Sequence[tuple[int, int]]
AxisMap = tuple[list[list[int]], list[list[bool]]]
"""Per kernel tap and output position of one axis: the input read, and whether it is real input."""

MODES = ("zeros", "reflect", "replicate", "circular")


def naive_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Ints | None = None,
    dilation: Ints | None = None,
    padding: Pairs | None = None,
    groups: int = 1,
    modes: Sequence[str] | None = None,
    partial: str | None = None,
    mask: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolution of any rank in float64 (complex128 for complex input).

    Args:
        x: ``(N, C, *spatial)``.
        weight: ``(out, C / groups, *kernel)``.
        bias: ``(out,)`` or None.
        stride, dilation: one integer per axis; default 1.
        padding: ((lo, hi), ...) per axis; negative crops; default 0.
        modes: per axis what lies beyond the border, one of `MODES`; default zeros.
        partial: None, ``"mean"`` or ``"sqrt"``: rescale by ``K / count`` or its root; ``count`` is taps on
            real input (zeros are none; the other modes repeat real input). No bias where it is 0.
        mask: ``(N, 1, *spatial)`` or ``(1, 1, *spatial)``, 0 for pixels to ignore. Beyond the border it
            follows ``modes``, as ``x`` does.

    Returns:
        ``(N, out, *out_spatial)``; with ``mask`` that and the new mask ``(N, 1, *out_spatial)`` in float64.
    """
    rank = weight.dim() - 2
    kernel = tuple(weight.shape[2:])
    dtype = torch.complex128 if x.is_complex() or weight.is_complex() else torch.float64
    x, weight = x.to(dtype), weight.to(dtype)
    valid = torch.ones((1, 1, *x.shape[2:]), dtype=torch.float64, device=x.device)
    if mask is not None:
        valid = mask.to(torch.float64).expand(max(mask.shape[0], x.shape[0]), *mask.shape[1:])
        x = torch.where(valid != 0, x, torch.zeros((), dtype=dtype, device=x.device))
    maps = [
        _axis_map(
            x.shape[2 + axis],
            kernel[axis],
            1 if stride is None else stride[axis],
            1 if dilation is None else dilation[axis],
            (0, 0) if padding is None else padding[axis],
            "zeros" if modes is None else modes[axis],
        )
        for axis in range(rank)
    ]
    out = _contract(_gather(x, maps, kernel), weight, groups)
    count = _gather(valid, maps, kernel).sum(2)
    out = _finish(out, count, bias, partial, torch.Size(kernel).numel())
    return out if mask is None else (out, (count > 0).to(torch.float64))


def naive_symmetric(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    axes: Ints,
    order: str,
    stride: Ints,
    dilation: Ints,
    padding: Pairs,
    groups: int,
    modes: Sequence[str],
    partial: str | None = None,
) -> Tensor:
    """A symmetric convolution of any rank in float64: input channels one by one, each read through its own window.

    Args:
        axes: where a channel's kernel begins with the padding, or one dilation step later.
        order: which channels begin later, see ``_begins_later``.
        padding: ((lo, hi), ...) per axis around all channels together; the others as in ``naive_conv``.
        partial: the count along a symmetric axis is the sum of those of both windows.
    """
    rank, kernel, per_group = weight.dim() - 2, tuple(weight.shape[2:]), weight.shape[1]
    x, weight = x.to(torch.float64), weight.to(torch.float64)

    def maps(sides: Ints) -> list[AxisMap]:
        later = [sides[list(axes).index(axis)] if axis in axes else 0 for axis in range(rank)]
        spans = [d * (k - (axis not in axes)) for axis, (d, k) in enumerate(zip(dilation, kernel))]
        window = zip(x.shape[2:], kernel, stride, dilation, padding, modes, spans, later)
        return [_moved_map(*axis) for axis in window]

    sides = _begins_later(per_group, len(axes), order) * groups
    sums: list[list[Tensor]] = [[] for _ in range(groups)]
    for side in sorted(set(sides)):
        for group, found in enumerate(sums):
            mine = [c for c in range(group * per_group, (group + 1) * per_group) if sides[c] == side]
            kernels = weight.chunk(groups)[group][:, [c - group * per_group for c in mine]]
            found.append(_contract(_gather(x[:, mine], maps(side), kernel), kernels, 1))
    out = torch.cat([torch.stack(found).sum(0) for found in sums], 1)
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=torch.float64, device=x.device)
    both = product((0, 1), repeat=len(axes))
    count = torch.stack([_gather(ones, maps(side), kernel).sum(2) for side in both]).sum(0)
    return _finish(out, count, bias, partial, torch.Size(kernel).numel() * 2 ** len(axes))


def _begins_later(channels: int, axes: int, order: str) -> list[tuple[int, ...]]:
    """Per channel, for each symmetric axis, whether its kernel begins one step later.

    In two dimensions, a kernel that begins later has its padding at the bottom or on the right.
    """
    names = {
        ("raster", 1): "0 1",
        ("raster", 2): "00 01 10 11",
        ("raster", 3): "000 001 010 011 100 101 110 111",
        ("author", 1): "1 0",
        ("author", 2): "11 00 10 01",
        ("author", 3): "111 000 110 001 101 010 100 011",
    }
    sides = names["raster" if order == "raster" else "author", axes].split() if axes else [""]
    sizes = [channels // len(sides)] * len(sides)
    for extra in range(channels % len(sides)):
        sizes[extra] += 1
    return [tuple(map(int, side)) for side, size in zip(sides, sizes) for _ in range(size)]


def naive_pool(
    x: Tensor, *, kernel: Ints, stride: Ints, dilation: Ints, padding: Pairs, average: bool, counted: bool
) -> Tensor:
    """A max or average pool of any rank in float64; padding is -inf to a maximum, 0 to an average.

    Args:
        x: ``(N, C, *spatial)``.
        counted: an average divides by the whole window, not only by what of it is input.
    """
    x = x.to(torch.float64)
    window = zip(x.shape[2:], kernel, stride, dilation, padding)
    maps = [_axis_map(n, k, s, d, p, "zeros") for n, k, s, d, p in window]
    taps, real = (_gather(t, maps, tuple(kernel)) for t in (x, torch.ones_like(x[:1, :1])))
    if not average:
        return torch.where(real > 0, taps, torch.full((), float("-inf"), dtype=x.dtype)).amax(2)
    return taps.sum(2) / (torch.Size(kernel).numel() if counted else real.sum(2))


def _axis_map(size: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int], mode: str) -> AxisMap:
    """Where the taps of one axis read."""
    indices: list[list[int]] = []
    real: list[list[bool]] = []
    starts = range(-pad[0], size + pad[1] - dilation * (kernel - 1), stride)
    if len(starts) == 0:
        raise ValueError(f"no output: size {size}, kernel {kernel}, dilation {dilation}, padding {pad}")
    for tap in range(kernel):
        positions = [start + tap * dilation for start in starts]
        inside = [0 <= position < size for position in positions]
        indices.append([_source(position, size, mode) for position in positions])
        real.append([True] * len(positions) if mode != "zeros" else inside)
    return indices, real


def _moved_map(
    size: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int], mode: str, span: int, later: int
) -> AxisMap:
    """``_axis_map`` of a kernel that begins ``later`` dilation steps into a window of ``span`` + 1 positions."""
    starts = range(-pad[0], size + pad[1] - span, stride)
    if len(starts) == 0:
        raise ValueError(f"no output: size {size}, span {span}, padding {pad}")
    taps = [[start + (later + tap) * dilation for start in starts] for tap in range(kernel)]
    indices = [[_source(position, size, mode) for position in row] for row in taps]
    return indices, [[mode != "zeros" or 0 <= position < size for position in row] for row in taps]


def _source(position: int, size: int, mode: str) -> int:
    """The input position that a position on or beyond the border stands for."""
    if mode == "circular":
        return position % size
    if mode == "reflect" and size > 1:
        folded = position % (2 * size - 2)
        return folded if folded < size else 2 * size - 2 - folded
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {MODES}")
    return min(max(position, 0), size - 1)


def _gather(x: Tensor, maps: list[AxisMap], kernel: tuple[int, ...]) -> Tensor:
    """``(N, C, K, *out_spatial)``: the input under each of the K kernel taps, 0 where there is none."""
    taps: list[Tensor] = []
    for offsets in product(*(range(k) for k in kernel)):
        tap = x
        for axis, offset in enumerate(offsets):
            indices, real = maps[axis][0][offset], maps[axis][1][offset]
            tap = tap.index_select(2 + axis, torch.tensor(indices, device=x.device))
            if not all(real):
                shape = (-1,) + (1,) * (len(kernel) - 1 - axis)
                keep = torch.tensor(real, device=x.device).reshape(shape)
                tap = torch.where(keep, tap, torch.zeros((), dtype=x.dtype, device=x.device))
        taps.append(tap)
    return torch.stack(taps, dim=2)


def _contract(taps: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Sum over input channels and taps, group by group."""
    batch, channels, _, *spatial = taps.shape
    outputs = weight.shape[0]
    columns = taps.reshape(batch, groups, -1, torch.Size(spatial).numel())
    rows = weight.reshape(1, groups, outputs // groups, -1)
    if columns.shape[2] != rows.shape[3]:
        raise ValueError(f"x has {channels} channels; the weight wants {weight.shape[1]} in each of {groups} groups")
    return (rows @ columns).reshape(batch, outputs, *spatial)


def _finish(out: Tensor, count: Tensor, bias: Tensor | None, partial: str | None, taps: int) -> Tensor:
    """Rescale by the counts and add the bias, which outputs without any real input do not get."""
    seen = (count > 0).to(torch.float64)
    if partial is not None:
        exponent = {"mean": 1.0, "sqrt": 0.5}[partial]
        out = out * seen * (taps / (count + (1 - seen))) ** exponent
    if bias is None:
        return out
    shift = bias.to(out.dtype).reshape(-1, *(1 for _ in range(out.dim() - 2)))
    return out + (shift if partial is None else shift * seen)
