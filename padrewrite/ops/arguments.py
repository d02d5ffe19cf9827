"""The arguments of a convolution as people give them: read into a window, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

from torch import Tensor

from padrewrite.ops.window import Window

Pairs: TypeAlias = tuple[tuple[int, int], ...]
"""((lo, hi), ...) per spatial axis."""
Padding: TypeAlias = int | str | Sequence[int] | Pairs

SCALES = ("mean", "sqrt")
"""``mean`` keeps the mean of the window (the paper); ``sqrt`` keeps the variance of the output."""


def read_window(
    kernel: tuple[int, ...], stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int]
) -> Window:
    """The window that the arguments of a torch convolution describe, or a ValueError naming the argument."""
    rank = len(kernel)
    if not 1 <= rank <= 3:
        raise ValueError(f"weight has {rank + 2} axes; give (out, in / groups, *kernel), kernel of 1 to 3 axes")
    strides = _per_axis("stride", stride, rank, least=1)
    rates = _per_axis("dilation", dilation, rank, least=1)
    if padding == "valid":
        return Window(kernel, strides, rates, (0,) * rank, (0,) * rank)
    if padding == "same":
        if any(s != 1 for s in strides):
            raise ValueError(f"padding='same' does not go with stride {strides}; give numbers")
        totals = [d * (k - 1) for k, d in zip(kernel, rates)]
        return Window(kernel, strides, rates, tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals))
    if isinstance(padding, str):
        raise ValueError(f"padding={padding!r} is unknown; give 'same', 'valid' or numbers")
    lo, hi = _sides(padding, rank)
    return Window(kernel, strides, rates, lo, hi)


def _sides(padding: int | Sequence[int] | Pairs, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The low and the high padding of each axis."""
    entries: Any = padding
    if not isinstance(entries, (tuple, list)) or not any(isinstance(e, (tuple, list)) for e in entries):
        both = _per_axis("padding", entries, rank, least=0)
        return both, both
    if len(entries) != rank or any(not isinstance(e, (tuple, list)) or len(e) != 2 for e in entries):
        raise ValueError(f"padding={padding!r}: give {rank} (lo, hi) pairs, one per axis")
    lo, hi = ([entry[side] for entry in entries] for side in (0, 1))
    return _per_axis("padding", lo, rank, least=0), _per_axis("padding", hi, rank, least=0)


def _per_axis(name: str, value: int | Sequence[int], rank: int, *, least: int) -> tuple[int, ...]:
    """One integer per axis, from one for all or a sequence."""
    values: tuple[int, ...] = tuple(value) if isinstance(value, (tuple, list)) else (cast(int, value),)
    values = values * rank if len(values) == 1 else values
    if len(values) != rank:
        raise ValueError(f"{name}={value!r} has {len(values)} entries for {rank} axes; give 1 or {rank}")
    if any(v < least for v in values):
        fix = "crop the input beforehand" if name == "padding" else "give positive numbers"
        raise ValueError(f"{name}={value!r} must be at least {least}; {fix}")
    return values


def check_scale(scale: str) -> None:
    """ValueError unless ``scale`` is one of `SCALES`."""
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r} is unknown; choose one of {', '.join(map(repr, SCALES))}")


def check_outer(outer: Pairs | None, rank: int) -> None:
    """ValueError unless ``outer`` holds a pair per axis. The values may be symbolic and are not looked at."""
    if outer is not None and (len(outer) != rank or any(len(pair) != 2 for pair in outer)):
        raise ValueError(f"outer={outer!r}: give {rank} (lo, hi) pairs, one per axis")


def check_mask(mask: Tensor, x: Tensor, rank: int) -> None:
    """ValueError unless ``mask`` is ``x`` with one channel, and as many samples or one."""
    batched = x.dim() == rank + 2
    samples = not batched or mask.shape[0] == 1 or mask.shape[0] == x.shape[0]
    if samples and mask.dim() == x.dim() and mask.shape[-rank - 1] == 1 and mask.shape[-rank:] == x.shape[-rank:]:
        return
    wanted = (*x.shape[: -rank - 1], 1, *x.shape[-rank:])
    raise ValueError(
        f"mask has shape {tuple(mask.shape)} for x of shape {tuple(x.shape)}; give {wanted}, one channel for "
        "all (reduce a mask per channel first: mask.amax(1, keepdim=True))"
    )


def check_channels(x: Tensor, weight: Tensor, groups: int) -> None:
    """ValueError unless ``weight`` has as many axes and channels as ``x`` and ``groups`` ask for."""
    rank, (out, each) = weight.dim() - 2, weight.shape[:2]
    if x.dim() not in (rank + 1, rank + 2):
        raise ValueError(f"x has shape {tuple(x.shape)}; give {rank} spatial axes, as weight {tuple(weight.shape)} has")
    if groups < 1 or out % groups:
        raise ValueError(f"groups={groups} does not divide the {out} output channels of weight {tuple(weight.shape)}")
    if x.shape[-rank - 1] != each * groups:
        raise ValueError(
            f"x has {x.shape[-rank - 1]} channels, but weight {tuple(weight.shape)} with groups={groups} reads "
            f"{each} x {groups}; weight is (out, in / groups, *kernel)"
        )
