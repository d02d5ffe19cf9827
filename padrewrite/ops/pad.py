"""Explicit padding calls: ``torch.nn.functional.pad`` read as (lo, hi) per trailing axis, and emitted per axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

MODES = ("zeros", "reflect", "replicate", "circular")
_TORCH_MODE = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
_PAD_BELOW: Any = vars(torch._C)["_nn"].pad  # what Dynamo sees of F.pad, whose Python it looks into
_SLOTS = ("input", "pad", "mode", "value")


@dataclass(frozen=True)
class PadCall:
    """One ``F.pad`` call. ``amounts`` holds (lo, hi) for the trailing axes, FIRST of them first."""

    x: Any
    amounts: tuple[tuple[Any, Any], ...]
    mode: str
    """One of ``MODES``, or ``"constant"`` for a constant other than zero."""

    @property
    def rank(self) -> int:
        return len(self.amounts)


def read_pad(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PadCall | None:
    """The pad call in ``target(*args, **kwargs)``, or None if it is not one. Amounts may be symbolic."""
    if target is not F.pad and target is not _PAD_BELOW:
        return None
    slots: dict[str, Any] = {**dict(zip(_SLOTS, args)), **kwargs}
    flat: Sequence[Any] = slots["pad"]
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    mode = slots.get("mode", "constant")
    if mode == "constant":
        mode = "zeros" if slots.get("value") in (None, 0, 0.0, False) else "constant"
    return PadCall(slots["input"], tuple(reversed(pairs)), mode)


def pad_axes(x: Any, amounts: Sequence[tuple[Any, Any]], modes: Sequence[str]) -> Any:
    """Pads the trailing ``len(amounts)`` axes of ``x``, one ``F.pad`` per distinct mode.

    Index maps and zero fills act on one axis each, so the order of the calls does not matter.
    """
    for mode in MODES:
        chosen = [pair if m == mode else (0, 0) for pair, m in zip(amounts, modes)]
        if any(not _is_zero(v) for pair in chosen for v in pair):
            flat = [v for pair in reversed(chosen) for v in pair]
            x = F.pad(x, flat, mode=_TORCH_MODE[mode])
    return x


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and value == 0
