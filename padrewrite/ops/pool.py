"""Max and average pools: the torch calls they are read from, their fields, and the torch calls they are emitted as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from padrewrite.ops.conv import hint, per_axis
from padrewrite.ops.op import Op
from padrewrite.ops.window import Ints, Window

_MAX = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVERAGE = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAXIMA: dict[int, Any] = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}
_MEANS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_KNOWN: tuple[tuple[Any, int, bool], ...] = (
    *((target, rank, False) for rank, target in _MAXIMA.items()),
    *((target, rank, False) for rank, target in ((1, F.max_pool1d), (2, F.max_pool2d), (3, F.max_pool3d))),
    *((target, rank, True) for rank, target in _MEANS.items()),
)


@dataclass(frozen=True)
class Pool(Op):
    """A pool of rank 1 to 3. Padding is -inf to a maximum and 0 to an average."""

    kind: ClassVar[str] = "pool"
    window: Window
    average: bool
    counted: bool = True
    """An average divides by the whole window, padding included (count_include_pad)."""
    ceil: bool = False

    @property
    def kernel(self) -> Ints:
        return self.window.kernel

    @property
    def reach(self) -> Window:
        """As for a ``Conv``."""
        return self.window

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        return self.window.padding

    @property
    def family(self) -> str:
        """The name under which its calls are counted."""
        return f"{'avg' if self.average else 'max'}_pool{self.window.rank}d"

    def macs(self, sizes: Sequence[int]) -> int:
        """Pools multiply nothing."""
        return 0

    def spec(self) -> dict[str, Any]:
        w = self.window
        return {
            "kernel_size": w.kernel,
            "stride": w.stride,
            "dilation": w.dilation,
            "padding": w.padding,
            "pool": "avg" if self.average else "max",
            "transposed": False,
        }


@dataclass(frozen=True)
class PoolCall:
    """One pool call: what it reads, and its numbers."""

    x: Any
    op: Pool


def pool_family(target: Any) -> str | None:
    """The name under which calls of a pool are counted; None if ``target`` is no pool that is read."""
    for known, rank, average in _KNOWN:
        if target is known:
            return f"{'avg' if average else 'max'}_pool{rank}d"
    return None


def read_pool(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PoolCall | None:
    """The pool in ``target(*args, **kwargs)``, or None if it is none (or returns indices, or has its own divisor)."""
    found = next(((rank, average) for known, rank, average in _KNOWN if target is known), None)
    if found is None:
        return None
    rank, average = found
    slots: dict[str, Any] = {**dict(zip(_AVERAGE if average else _MAX, args)), **kwargs}
    if slots.get("return_indices") or slots.get("divisor_override"):
        return None

    def ints(name: str, default: Any) -> Ints:
        return tuple(int(hint(v)) for v in per_axis(slots.get(name, default), rank))

    kernel = ints("kernel_size", 1)
    stride = ints("stride", kernel) if slots.get("stride") not in (None, (), []) else kernel
    pads = ints("padding", 0)
    window = Window(kernel, stride, ints("dilation", 1), pads, pads)
    counted = average and bool(slots.get("count_include_pad", True))
    return PoolCall(slots["input"], Pool(window, average, counted, bool(slots.get("ceil_mode", False))))


def emit_pool(x: Any, op: Pool) -> Any:
    """The torch calls of ``op`` on a tensor or fx proxy of shape (N, C, *spatial)."""
    w = op.window
    native = all(lo == hi for lo, hi in w.padding) and all(lo <= k // 2 for lo, k in zip(w.lo, w.kernel))
    if op.average:
        if native and set(w.dilation) == {1}:
            return _MEANS[w.rank](x, w.kernel, w.stride, w.lo, op.ceil, op.counted)
        return _average(x, op)
    if not native:
        x = F.pad(x, _flat(op), value=float("-inf"))
    pads = w.lo if native else (0,) * w.rank
    return _MAXIMA[w.rank](x, w.kernel, w.stride, pads, w.dilation, op.ceil)


def _flat(op: Pool) -> list[int]:
    return [v for pair in reversed(op.padding) for v in pair]


def _average(x: Any, op: Pool) -> Any:
    """A dilated average, which torch has not: a mean of slices along each axis in turn."""
    total = _sum(x, op)
    if op.counted or not any(map(any, op.padding)):
        return total * (1 / torch.Size(op.kernel).numel())
    return torch.div(total, _sum(torch.ones_like(x), op))


def _sum(x: Any, op: Pool) -> Any:
    w = op.window
    if any(map(any, op.padding)):
        x = F.pad(x, _flat(op))
    for axis in range(w.rank):
        reach = w.dilation[axis] * (w.kernel[axis] - 1)
        after = (slice(None),) * (w.rank - 1 - axis)
        taps = range(0, reach + 1, w.dilation[axis])
        parts = [x[(..., slice(t, t - reach or None, w.stride[axis]), *after)] for t in taps]
        x = parts[0]
        for part in parts[1:]:
            x = x + part
    return x
