"""Windows without a middle pixel: which axes of a convolution sit half a pixel off, which do not, and the cure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from padrewrite.ops.conv import Conv, with_padding
from padrewrite.ops.directions import Symmetry, even_axes, same_padding, symmetric_padding
from padrewrite.ops.following import axis_of
from padrewrite.ops.window import Ints


def half_pixel_axes(op: Conv) -> Ints:
    """Axes of stride 1 and odd d(k-1), which no padding centres ([C2sp] Section 3); symmetric ones are centred."""
    cured = op.symmetric.axes if op.symmetric is not None else ()
    spans = zip(op.stride, op.window.span)
    return tuple(a for a, (stride, span) in enumerate(spans) if stride == 1 and span % 2 == 0 and a not in cured)


def causal_axes(op: Conv) -> Ints:
    """Axes that are padded before the map only, by all of their reach: the output looks back, on purpose.

    A reach of one pixel may as well be a shift, and counts as one where the other axes are half a pixel off, too.
    """
    w = op.window
    half = half_pixel_axes(op)
    others = {a: [b for b in range(w.rank) if b != a and w.kernel[b] > 1] for a in range(w.rank)}
    maybe = {a for a in half if w.span[a] == 2 and others[a] and all(b in half for b in others[a])}
    return tuple(a for a in range(w.rank) if w.hi[a] == 0 and w.lo[a] == w.span[a] - 1 > 0 and a not in maybe)


def shift(op: Conv, axis: int) -> Fraction:
    """How far outputs sit off what they read, in input pixels: d(k-1)/2 - p, over all channels on average."""
    phase = axis_of(op, axis).phase(0)
    assert phase is not None
    return phase[1]


def shift_text(old: Conv, new: Conv, axes: Sequence[int]) -> str:
    """The mean shifts of two convolutions, once where axes have the same."""
    before, after = (" and ".join(dict.fromkeys(str(shift(op, a)) for a in axes)) for op in (old, new))
    return f"mean shift {before} px -> {after}"


def off_grid(op: Conv, axis: int) -> Fraction:
    """``shift`` less that of a grid of this stride whose cells tile the input."""
    return shift(op, axis) - Fraction(op.stride[axis] - 1, 2)


def why_left(op: Conv) -> tuple[str, str]:
    """(code, reason) for a convolution without half-pixel axes."""
    even = even_axes(op.kernel)
    if not even:
        return "odd-kernel", f"a {'x'.join(map(str, op.kernel))} kernel has a middle"
    stride, kernel = [op.stride[a] for a in even], [op.kernel[a] for a in even]
    if stride == kernel:
        return "patchify", "kernel and stride are equal: each output stands in the middle of the patch that it reads"
    off = [off_grid(op, a) for a in even]
    if not any(off):
        how = f"stride {_each(stride)}" if max(stride) > 1 else f"dilation {_each([op.dilation[a] for a in even])}"
        return "aligned", f"{how} and padding {op.padding} centre the even kernel: no output is shifted"
    if set(even) <= set(causal_axes(op)):
        return "causal", f"padding {op.padding} is all before the map, so it looks back"
    if max(stride) > 1:
        return "strided", f"stride {_each(stride)} leads to a coarser grid; padding {op.padding} is {_each(off)} px off"
    return "whole-pixels", f"padding {op.padding} shifts it by {_each(off)} px, not by half a pixel"


def _each(values: Sequence[object]) -> str:
    return " and ".join(dict.fromkeys(map(str, values)))


def made_symmetric(op: Conv, order: str, axes: Ints, keep_size: bool) -> Conv:
    """``op`` with channels read from both sides along ``axes``.

    With ``keep_size`` its output has the size it has; else that of its input, along those axes.
    """
    same = same_padding(op.window, axes)
    pairs = [
        pair if a not in axes else symmetric_padding(op.window, a) if keep_size else same[a]
        for a, pair in enumerate(op.padding)
    ]
    return replace(with_padding(op, pairs), symmetric=Symmetry(order, axes))


def leftover(op: Conv) -> Fraction:
    """Largest distance, over the symmetric axes, of the mean window from the nearest whole pixel."""
    axes = op.symmetric.axes if op.symmetric is not None else ()
    return max((abs(shift(op, a) - round(shift(op, a))) for a in axes), default=Fraction(0))


def rest_text(op: Conv) -> str:
    """What ``leftover`` is and why; empty if it is nothing."""
    rest = leftover(op)
    return f"{op.in_channels // op.groups} channels per group leave a mean shift of {rest} px" if rest else ""
