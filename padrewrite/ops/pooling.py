"""Pools, pads, resampling and shuffles: the torch calls that act on the trailing axes, read per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from padrewrite.ops.axis import AxisMap, Bins, Repeat, Same, Slide, Whole
from padrewrite.ops.conv import per_axis
from padrewrite.ops.pad import read_pad
from padrewrite.ops.resample import KINDS, Resample
from padrewrite.ops.step import Called, Read, Reader, Source, Step, barrier, same, shape_of


def trailing(call: Called, kind: str, axes: Sequence[AxisMap], weighted: bool = True, channels: bool = True) -> Step:
    """A step that maps the trailing axes of its first operand; ``channels``: the dimension before them is kept."""
    x = call.x
    lead = len(shape_of(x)) - len(axes)
    dims: list[Source] = list(same(x)[:lead])
    if not channels:
        dims[-1] = None
    dims += [(lead + a, axis) for a, axis in enumerate(axes)]
    return Step(kind, call.name, (Read(x, tuple(dims)),), weighted=weighted)


def _pool(rank: int, average: bool) -> Reader:
    def read(call: Called) -> Step:
        kernel = per_axis(call.get(1, "kernel_size"), rank)
        stride = per_axis(call.get(2, "stride") or kernel, rank)
        pads = per_axis(call.get(3, "padding", 0), rank)
        ceil = bool(call.get(4 if average else 5, "ceil_mode", False))
        rates = (1,) * rank if average else per_axis(call.get(4, "dilation", 1), rank)
        counted = average and bool(call.get(5, "count_include_pad", True))
        mode = "zeros" if counted else "ignored"
        axes = [Slide(k, s, d, p, p, mode, ceil) for k, s, d, p in zip(kernel, stride, rates, pads)]
        return trailing(call, "pool", axes, average)

    return read


def _power_pool(rank: int) -> Reader:
    def read(call: Called) -> Step:
        kernel = per_axis(call.get(2, "kernel_size"), rank)
        stride = per_axis(call.get(3, "stride") or kernel, rank)
        ceil = bool(call.get(4, "ceil_mode"))
        return trailing(call, "pool", [Slide(k, s, ceil=ceil) for k, s in zip(kernel, stride)])

    return read


def _adaptive(rank: int, average: bool) -> Reader:
    def read(call: Called) -> Step:
        sizes = shape_of(call.x)[-rank:]
        wanted = per_axis(call.get(1, "output_size"), rank)
        axes: list[AxisMap] = []
        for n, count in zip(sizes, wanted):
            if count is None:
                axes.append(Same())
            else:
                axes.append(Whole() if count == 1 and n > 1 else Bins(int(count)))
        return trailing(call, "pool", axes, average)

    return read


def _read_pad_step(call: Called) -> Step:
    pad = read_pad(call.node.target, call.node.args, dict(call.node.kwargs))
    if pad is None:
        return barrier(call, f"{call.name} is not a padding that is known")
    values: Any = [(call_number(lo), call_number(hi)) for lo, hi in pad.amounts]
    kind = "crop" if all(v <= 0 for pair in values for v in pair) else "pad"
    mode = "constant" if pad.mode == "constant" else pad.mode
    return trailing(call, kind, [Slide(1, 1, 1, lo, hi, mode) for lo, hi in values])


def call_number(value: Any) -> int:
    """A size argument as the number it had while recording."""
    return int(value.meta["value"] if hasattr(value, "meta") else value)


_LINEAR = ("linear", "bilinear", "trilinear")


def _interpolate(call: Called) -> Step:
    x = call.x
    rank = len(shape_of(x)) - 2
    size, factor = call.get(1, "size"), call.get(2, "scale_factor")
    mode, align = call.get(3, "mode", "nearest"), bool(call.get(4, "align_corners", False))
    if call.name == "upsample_nearest":
        mode = "nearest"
    if call.name == "upsample_bilinear":
        mode, align = "bilinear", True
    recompute = bool(call.get(5, "recompute_scale_factor", False))
    antialias = bool(call.get(6, "antialias", False))
    factors = per_axis(factor, rank) if size is None else (None,) * rank
    kind = "linear" if mode in _LINEAR else "cubic" if mode == "bicubic" else mode
    if kind not in KINDS:
        return barrier(call, f"interpolate mode {mode!r} is not known")
    axes = [
        Resample(kind, int(count), None, align, antialias=antialias)
        if f is None
        else Resample(kind, None, float(f), align, recompute, antialias)
        for count, f in zip(call.shape[2:], factors)
    ]
    return trailing(call, "resample", axes)


def _shuffle(up: bool) -> Reader:
    def read(call: Called) -> Step:
        r = int(call.get(1, "upscale_factor" if up else "downscale_factor"))
        axes: list[AxisMap] = [Repeat(r) if up else Slide(r, r)] * 2
        return trailing(call, "shuffle", axes, channels=False)

    return read


def _per_rank(name: str, make: Callable[[int], Reader]) -> dict[str, Reader]:
    return {name.format(rank): make(rank) for rank in (1, 2, 3)}


READERS: dict[str, Reader] = {
    **_per_rank("max_pool{}d", lambda r: _pool(r, False)),
    **_per_rank("max_pool{}d_with_indices", lambda r: _pool(r, False)),
    **_per_rank("avg_pool{}d", lambda r: _pool(r, True)),
    **_per_rank("lp_pool{}d", _power_pool),
    **_per_rank("adaptive_avg_pool{}d", lambda r: _adaptive(r, True)),
    **_per_rank("adaptive_max_pool{}d", lambda r: _adaptive(r, False)),
    **_per_rank("adaptive_max_pool{}d_with_indices", lambda r: _adaptive(r, False)),
    "pad": _read_pad_step,
    "interpolate": _interpolate,
    "upsample": _interpolate,
    "upsample_nearest": _interpolate,
    "upsample_bilinear": _interpolate,
    "pixel_shuffle": _shuffle(True),
    "pixel_unshuffle": _shuffle(False),
}
