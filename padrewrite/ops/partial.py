"""Partial convolution: each output is rescaled by the share of its window that lies on real input.

Border form (no mask, only padding is missing), [PCP] with the ratio written as an outer product::

    out = conv(x, W) * r + b        r = r_0 ⊗ r_1 ⊗ ...        r_axis(i) = kernel / count_axis(i)

Mask form (holes anywhere), [PCP] Eq. 1-3: ``out = conv(x * mask) * K / count(mask) + b``. An output whose
window holds no real input at all is 0, without bias.

Source [PCP]: Liu et al. 2018, *Partial Convolution based Padding*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import handle_torch_function, has_torch_function_variadic

from padrewrite.ops.arguments import (
    Padding,
    Pairs,
    check_channels,
    check_mask,
    check_outer,
    check_scale,
    read_window,
)
from padrewrite.ops.window import Window


def partial_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    mask: Tensor | None = None,
    scale: str = "mean",
    outer: Pairs | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolution that treats padding (and masked pixels) as missing instead of zero. Stateless.

    Args:
        x: ``(N, C, *spatial)`` or ``(C, *spatial)``, one to three spatial axes, as the weight has.
        weight: ``(out, C / groups, *kernel)``.
        bias: ``(out,)`` or None.
        stride, dilation: an integer, or one per axis.
        padding: in pixels: an integer, one per axis, a ``(lo, hi)`` pair per axis, ``"same"`` or ``"valid"``.
            An odd total of ``"same"`` puts the extra pixel on the high side, as torch does.
        groups: as in ``torch.nn.functional.conv2d``; never affects the counts.
        mask: ``(N, 1, *spatial)`` or ``(1, 1, *spatial)``, any dtype, non-zero where ``x`` is valid; no batch
            axis where ``x`` has none. Values of ``x`` outside it are ignored, NaN included.
        scale: ``"mean"`` multiplies by ``K / count``; ``"sqrt"`` by its square root (keeps the variance).
        outer: per axis, how many pixels at each end of ``x`` are padding that was applied before this call.

    Returns:
        ``(N, out, *out_spatial)`` in the dtype of the plain convolution. With ``mask``: that, and the new
        mask ``(N, 1, *out_spatial)`` in the mask's dtype, 1 where any input of the window was valid.

    Raises:
        ValueError: an argument of the wrong rank, shape, sign or name.
    """
    tensors = (x, weight, bias, mask)
    if not torch.compiler.is_dynamo_compiling() and has_torch_function_variadic(*tensors):
        given = (x, weight, bias, stride, padding, dilation, groups)
        return handle_torch_function(partial_conv, tensors, *given, mask=mask, scale=scale, outer=outer)
    window = read_window(tuple(weight.shape[2:]), stride, padding, dilation)
    check_channels(x, weight, groups)
    check_outer(outer, window.rank)
    stored = torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()
    if mask is None:
        return border_form(x, weight, bias, window, groups, scale=scale, outer=outer, stored=stored)
    return mask_form(x, weight, bias, window, groups, mask, scale=scale, outer=outer, stored=stored)


def border_form(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int = 1,
    *,
    scale: str = "mean",
    outer: Pairs | None = None,
    dtype: torch.dtype | None = None,
    stored: bool = False,
) -> Tensor:
    """``conv(x, W) * r + b`` in plain torch calls, with every static number given as an integer.

    Tensors may be ``torch.fx.Proxy``: the calls are then appended to the proxy's graph, as ``call_function``
    nodes of torch, ``getattr`` and operators only. A proxy knows no dtype, so ``dtype``, that of the plain
    convolution's output, must be given with it. Negative padding in ``window`` crops. ``stored`` is for graphs
    that a compiler will fuse: the ratio is then computed once per position, not once per element.
    """
    check_scale(scale)
    axes = padded_axes(window, outer)
    if not axes:
        return convolve_zeros(x, weight, bias, window, groups)
    out = convolve_zeros(x, weight, None, window, groups)
    windows = dict.fromkeys(axes, (window,))
    return rescaled(x, out, bias, windows, scale=scale, outer=outer, dtype=dtype, stored=stored)


def rescaled(
    x: Tensor,
    out: Tensor,
    bias: Tensor | None,
    windows: Mapping[int, tuple[Window, ...]],
    *,
    scale: str = "mean",
    outer: Pairs | None = None,
    dtype: torch.dtype | None = None,
    stored: bool = False,
) -> Tensor:
    """``out * r + bias`` for an unbiased convolution ``out`` of ``x``.

    ``windows`` holds, for each axis on which some window touches padding, the windows that channels are read through:
    one, or several of which each reads as many channels, whose counts are then added up.
    """
    dtype = out.dtype if dtype is None else dtype
    real = _ratio_dtype(dtype)
    rank = next(iter(windows.values()))[0].rank
    counts = [
        reduce(torch.add, [_axis_counts(x, out, window, axis, outer, real) for window in found])
        for axis, found in windows.items()
    ]
    taps = math.prod([sum([window.kernel[axis] for window in found]) for axis, found in windows.items()])
    empty = any(all(_may_be_empty(w, axis, outer) for w in found) for axis, found in windows.items())
    ratio = _ratio(reduce(torch.mul, counts), taps, scale, empty, real)
    if stored:
        ratio = _store(ratio, rank - min(windows))
    return _rescale(out, ratio, bias, empty, rank, dtype)


def mask_form(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int,
    mask: Tensor,
    *,
    scale: str = "mean",
    outer: Pairs | None = None,
    stored: bool = False,
) -> tuple[Tensor, Tensor]:
    """``(conv(x * mask) * K / count + b, count > 0)``, with the count taken over the mask's one channel."""
    check_scale(scale)
    check_mask(mask, x, window.rank)
    valid = mask != 0
    if outer is not None:
        # Pixels of an earlier explicit pad are padding whatever the mask says of them.
        valid = F.pad(F.pad(valid, flat(outer, -1)), flat(outer, 1))
    out = convolve_zeros(torch.where(valid, x, 0), weight, None, window, groups)
    real = _ratio_dtype(out.dtype)
    count = F.pad(valid.to(real), flat(window.padding, 1))
    # Shifted sums, not a convolution with ones: exact under autocast, TF32 and Winograd, for any kernel size.
    for axis in range(window.rank):
        taps = count.unfold(axis - window.rank, window.span[axis], window.stride[axis])
        count = taps[..., :: window.dilation[axis]].sum(-1)
    ratio = _ratio(count, math.prod(window.kernel), scale, True, real)
    if stored:
        ratio = _store(ratio.contiguous(), mask.dim())
    return _rescale(out, ratio, bias, True, window.rank, out.dtype), (count > 0).to(mask.dtype)


def padded_axes(window: Window, outer: Pairs | None = None) -> tuple[int, ...]:
    """The axes along which some window may touch padding, the window's own or that of an earlier pad."""

    def is_padded(axis: int) -> bool:
        own = max(window.padding[axis]) > 0
        return own or (outer is not None and not all(_surely(side == 0) for side in outer[axis]))

    return tuple(axis for axis in range(window.rank) if is_padded(axis))


def _may_be_empty(window: Window, axis: int, outer: Pairs | None) -> bool:
    """Whether some input size leaves an output without any real input, told from static numbers alone."""
    reach = window.kernel[axis] - 1
    # A dilated window can straddle a shorter input: N=1, k=2, d=2, p=1 has an empty middle.
    if window.dilation[axis] > 1 and reach > 0:
        return True
    before, after = (0, 0) if outer is None else outer[axis]
    return not (_surely(window.lo[axis] + before <= reach) and _surely(window.hi[axis] + after <= reach))


def _surely(fact: bool) -> bool:
    """Whether a comparison is known to hold; a symbolic size is not asked, as that would fix its value."""
    return isinstance(fact, (bool, torch.SymBool)) and statically_known_true(fact)


def _axis_counts(x: Tensor, out: Tensor, window: Window, axis: int, outer: Pairs | None, dtype: torch.dtype) -> Tensor:
    """Valid taps of each output position along one axis, shaped to broadcast over ``out``.

    With ``a`` the first position of a window, ``-clamp(floor((a - B) / d), -k, 0)`` of its taps lie below a
    bound B; the count is that of ``B = size`` less that of ``B = 0``. Offsets start from the bound: they are
    small, hence exact as floats, where they matter (on CUDA ``arange`` is exact to 2**24 pixels an axis).
    No integer division, which would cost a kernel; for d > 1, halves keep quotients off the integers, where a
    rounded one could fall either way.
    """
    k, s, d = window.kernel[axis], window.stride[axis], window.dilation[axis]
    before, after = (0, 0) if outer is None else outer[axis]
    first = -(window.lo[axis] + before)
    size = x.shape[axis - window.rank]
    if outer is not None:
        size = size - (before + after)
    extent = out.shape[axis - window.rank] * s
    halves = 1 if d == 1 else 2

    def taps_below(bound: int) -> Tensor:
        start = halves * (first - bound) + halves - 1
        offset = torch.arange(start, start + halves * extent, halves * s, dtype=dtype, device=x.device)
        return torch.clamp(offset if d == 1 else torch.floor(offset * (0.5 / d)), -k, 0)

    count = taps_below(0) - taps_below(size)
    return torch.reshape(count, (-1,) + (1,) * (window.rank - 1 - axis))


def _ratio(count: Tensor, kernel: int, scale: str, may_be_empty: bool, dtype: torch.dtype) -> Tensor:
    """``kernel / count`` or its root, 0 where the count is. One rounding, and exactly 1 in the interior."""
    full = torch.full((), float(kernel), dtype=dtype, device=count.device)
    ratio = torch.div(full, torch.clamp(count, min=1) if may_be_empty else count)
    if scale == "sqrt":
        ratio = torch.sqrt(ratio)
    return torch.where(count > 0, ratio, 0) if may_be_empty else ratio


def _store(ratio: Tensor, rank: int) -> Tensor:
    """``ratio`` itself, by a call that Inductor has to give memory to.

    Left alone, it inlines the dozen operations per axis into the kernel over batch and channels. On CPU that
    kernel alone took 1.1 times as long (channels last) to 9 times (contiguous, dynamic sizes), a network up to
    1.05 times. Stored, the ratio is one more kernel, of the size of the map.
    """
    sizes = [ratio.shape[axis] for axis in range(rank)]
    strides: list[int] = [1]
    for size in sizes[:0:-1]:
        strides.insert(0, strides[0] * size)
    return torch.as_strided(ratio, sizes, strides)


def _rescale(
    out: Tensor, ratio: Tensor, bias: Tensor | None, may_be_empty: bool, rank: int, dtype: torch.dtype
) -> Tensor:
    """``out * ratio + bias``, without bias where the ratio is 0.

    One ``addcmul``: nothing of the output's size is saved for backward, as the ratio needs no gradient, and a
    bias of one number per channel leaves the memory format to ``out``.
    """
    if bias is None:
        scaled = out * ratio
    else:
        scaled = torch.addcmul(torch.reshape(bias, (-1,) + (1,) * rank), out, ratio)
        scaled = torch.where(ratio > 0, scaled, 0) if may_be_empty else scaled
    if dtype.itemsize >= 4:
        return scaled
    return torch.ops.aten.to.dtype(scaled, dtype)


def _ratio_dtype(dtype: torch.dtype) -> torch.dtype:
    """The real dtype to scale in. Half types: float32, as a bfloat16 ratio alone is 4e-3 off at kernel 5."""
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


def convolve_zeros(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    """The plain convolution with zero padding; what the sides do not share is padded (or cropped) first."""
    shared = tuple(max(0, min(pair)) for pair in window.padding)
    rest = tuple((lo - both, hi - both) for (lo, hi), both in zip(window.padding, shared))
    if any(pair != (0, 0) for pair in rest):
        x = F.pad(x, flat(rest, 1))
    conv = (F.conv1d, F.conv2d, F.conv3d)[window.rank - 1]
    return conv(x, weight, bias, window.stride, shared, window.dilation, groups)


def flat(pairs: Pairs, sign: int) -> list[int]:
    """((lo, hi), ...) in the order of ``torch.nn.functional.pad``: last axis first."""
    return [sign * side for pair in reversed(pairs) for side in pair]
