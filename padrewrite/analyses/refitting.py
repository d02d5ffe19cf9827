"""One window on a finer grid: its stride, rate and padding there, and when it cannot be there at all.

A pool that rounds its size up has windows that hang over its end. Padding does the same, for any size: with the rate
f of what it reads and its old stride s, f(s - 1) pixels more at the end, if no window would begin past the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from padrewrite.analyses.fineness import AxisState
from padrewrite.errors import RegionBlocked
from padrewrite.graph import PoolSite, Site
from padrewrite.ops.axis import Slide
from padrewrite.ops.conv import Conv
from padrewrite.ops.pool import Pool
from padrewrite.ops.window import Ints, Window


@dataclass(frozen=True)
class Refit:
    """What becomes of one axis of a window."""

    stride: int
    reads: AxisState
    longer: int = 0
    """Outputs that it gets at its end, so as to be as long as what it is merged with."""

    @property
    def factor(self) -> int:
        """How much finer the axis that it reads is."""
        return self.reads.factor or 1

    def changes(self, stride: int) -> bool:
        return self.stride != stride or self.factor != 1 or self.longer > 0

    def size(self, axis: Slide) -> int | None:
        """Number of outputs of what was ``axis``."""
        if self.reads.size is None:
            return None
        if not self.changes(axis.stride):
            return axis.size(self.reads.size)
        hanging = axis.stride - 1 if axis.ceil else 0
        room = self.reads.size + self.factor * (axis.lo + axis.hi + hanging - axis.reach) - 1
        return room // self.stride + 1 + self.longer


def refit(site: Site | PoolSite, axes: Sequence[Refit | None]) -> Conv | Pool:
    """The op of ``site`` on the finer grid; None for an axis that is not followed, and stays.

    Raises:
        RegionBlocked: there is none.
    """
    op: Any = site.op
    w: Window = op.window
    before = tuple(1 if a is None else a.factor for a in axes)
    sizes = [None if a is None else a.reads.size for a in axes]
    _check_border(site, before, sizes)
    ceil = isinstance(op, Pool) and op.ceil and max(w.stride) > 1
    if ceil:
        _check_rounding(site)
    longer = [0 if a is None else a.longer * a.stride for a in axes]
    hanging = [f * (s - 1) if ceil else 0 for f, s in zip(before, w.stride)]
    window = replace(
        w,
        stride=tuple(s if a is None else a.stride for a, s in zip(axes, w.stride)),
        dilation=tuple(d * f if k > 1 else d for k, d, f in zip(w.kernel, w.dilation, before)),
        lo=tuple(p * f for p, f in zip(w.lo, before)),
        hi=tuple(p * f + more + over for p, f, more, over in zip(w.hi, before, longer, hanging)),
    )
    _check_sight(site, window, sizes)
    if isinstance(op, Pool):
        # Of a window that hangs over the end an average counts what is there.
        return replace(op, window=window, ceil=False, counted=op.counted and not ceil)
    return replace(op, window=window)


def _check_border(site: Site | PoolSite, before: Ints, sizes: Sequence[int | None]) -> None:
    op = site.op
    if not isinstance(op, Conv) or all(f == 1 for f in before):
        return
    if not site.handle.pads_fixed:
        raise RegionBlocked("size-dependent-padding", f"the padding of {site.id} is computed from its input's size")
    for a in op.padded_axes:
        mode, f, n = op.modes[a], before[a], sizes[a]
        fits = mode == "zeros" or f == 1 or (n is not None and (n if mode == "circular" else n - 1) % f == 0)
        if not fits:
            rule = "its size" if mode == "circular" else "its size less 1"
            raise RegionBlocked("border-mode", f"{site.id} pads by {mode}: {rule} ({n}) must be a multiple of {f}")


def _check_rounding(site: Site | PoolSite) -> None:
    op, w = site.op, site.op.window
    if isinstance(op, Pool) and op.average and op.counted and any(map(any, w.padding)):
        told = f"{site.id} rounds its size up, and counts the padding under its last window but not what is past it"
        raise RegionBlocked("ceil-mode", told)
    if any(span <= lo + s - 1 for span, lo, s in zip(w.span, w.lo, w.stride)):
        told = f"{site.id} rounds its size up, which at some sizes it does not: a window would begin past its input"
        raise RegionBlocked("ceil-mode", told)


def _check_sight(site: Site | PoolSite, window: Window, sizes: Sequence[int | None]) -> None:
    op = site.op
    if not isinstance(op, Pool):
        return
    blind = [n for a, n in enumerate(sizes) if n is not None and 0 in window.counts(a, n)]
    if blind and not (op.average and op.counted):
        told = f"between the old positions of {site.id} a window would see nothing but padding at size {blind[0]}"
        raise RegionBlocked("blind-window", told)
