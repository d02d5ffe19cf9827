"""What a model computes once chosen convolutions are partial, said a second time and without the engine.

The original model runs in float64 while a mode swaps the chosen convolution calls for the naive partial
convolution. From the engine come only numbers: which calls, in execution order, and the padding of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from padrewrite.checks.naive import naive_conv

Pairs = Sequence[tuple[int, int]]

_PLAIN = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_FULL = ("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
_SLOTS = {
    **{f"conv{rank}d": _PLAIN for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _PLAIN for rank in (1, 2, 3)},
    "convolution": _FULL,
}


class NaivePartial(TorchFunctionMode):
    """Context manager. The n-th convolution call is partial if ``paddings[n]`` is not None.

    Args:
        paddings: one entry per convolution call: None, or (lo, hi) per axis, explicit zero pads included.
    """

    def __init__(self, paddings: Sequence[Pairs | None]) -> None:
        super().__init__()
        self.paddings = paddings
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        slots = _SLOTS.get(str(getattr(func, "__name__", "")).split(".")[0])
        if slots is None:
            return func(*args, **kwargs)
        total = self.paddings[self.calls] if self.calls < len(self.paddings) else None
        self.calls += 1
        if total is None:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return _partial({**dict(zip(slots, args)), **kwargs}, total)


def _partial(call: dict[str, Any], total: Pairs) -> Tensor:
    x, weight, bias = call["input"], call["weight"], call.get("bias")
    rank = weight.dim() - 2
    dilation, stride = _each(call.get("dilation", 1), rank), _each(call.get("stride", 1), rank)
    own = _own(call.get("padding", 0), weight.shape[2:], dilation)
    ring = [(t[0] - o[0], t[1] - o[1]) for t, o in zip(total, own)]
    inner = F.pad(x, [-side for pair in reversed(ring) for side in pair])
    assert torch.equal(F.pad(inner, [side for pair in reversed(ring) for side in pair]), x), (
        "what the engine took for explicit zero padding is not zero"
    )
    batched = inner if inner.dim() == rank + 2 else inner[None]
    out = naive_conv(
        batched, weight, bias, stride=stride, dilation=dilation, padding=total, groups=call.get("groups", 1),
        partial="mean",
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return (out if inner.dim() == rank + 2 else out[0]).to(x.dtype)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * rank if len(values) == 1 else values


def _own(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """The padding of the call itself, (lo, hi) per axis."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return [(t // 2, t - t // 2) for t in totals]
    return [(p, p) for p in _each(padding, len(kernel))]
