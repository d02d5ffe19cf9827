"""Redirecting the n-th convolution inside a module's forward, for calls that no layer's class can reach.

The forward stays the user's: it runs under a TorchFunctionMode that counts calls of a family and answers the chosen
ones. What a call turned out to be is checked against the plan each time; a difference raises ``SiteMismatch``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from padrewrite.errors import SiteMismatch
from padrewrite.nn.deriving import derived_class
from padrewrite.ops.conv import Pairs, convolve, is_our_conv, per_axis
from padrewrite.ops.directions import Symmetry
from padrewrite.ops.pad import PadCall, read_pad
from padrewrite.ops.pool import Pool, emit_pool, pool_family, read_pool
from padrewrite.ops.realise import split_total
from padrewrite.ops.window import Ints

_CONVS: dict[str, Any] = {"conv1d": F.conv1d, "conv2d": F.conv2d, "conv3d": F.conv3d}
_SLOTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


_ANSWERS: ContextVar[dict[str, list[Tensor]]] = ContextVar("answers")


@contextmanager
def pool_answers() -> Iterator[dict[str, list[Tensor]]]:
    """By site, what redirected pools compute meanwhile: in a recording they may be other calls than pools."""
    token = _ANSWERS.set({})
    try:
        yield _ANSWERS.get()
    finally:
        _ANSWERS.reset(token)


@dataclass(frozen=True)
class ConvChange:
    """The ``ordinal``-th convolution of ``family`` computes these numbers instead."""

    site: str
    family: str
    ordinal: int
    shape: Ints
    """Of the weight: part of what the call must be."""
    stride: Ints
    dilation: Ints
    weight: str | None
    """Name of the weight below the redirected module, if it is a parameter there."""
    bypass: bool
    """Read what the explicit pads before the call read, and pad for them."""
    padding: Pairs
    """What the call applies itself. With ``bypass``: what the pads' amounts are added to; it may be negative."""
    modes: tuple[str, ...]
    partial: str | None
    symmetric: Symmetry | None
    groups: int
    explicit: int
    """How many explicit pads before the call belong to it."""
    total: int
    """How many calls of its family the forward made when it was recorded."""
    amounts: Pairs
    splits: tuple[str, ...]
    """What those pads add per axis, and how that follows from the input's size (``ops.realise.SPLITS``)."""
    reads_input: bool
    """They pad the first argument of the forward."""
    new_stride: Ints
    new_dilation: Ints


@dataclass(frozen=True)
class PoolChange:
    """The ``ordinal``-th pool of ``family`` computes ``after`` instead of ``before``."""

    site: str
    family: str
    ordinal: int
    total: int
    before: Pool
    after: Pool


class Redirect(TorchFunctionMode):
    """Active during one forward of ``owner``."""

    def __init__(self, owner: Any, changes: tuple[ConvChange | PoolChange, ...], source: Any) -> None:
        super().__init__()
        self.owner = owner
        self.source = source
        self.changes = tuple(change for change in changes if isinstance(change, ConvChange))
        self.pooled = tuple(change for change in changes if isinstance(change, PoolChange))
        self.seen: dict[str, int] = {"conv1d": 0, "conv2d": 0, "conv3d": 0}
        self.grad = torch.is_grad_enabled()
        self.explicit = any(change.explicit for change in self.changes)
        self.pads: list[tuple[Tensor, PadCall]] = []
        """Explicit pads by their results: what they padded, and by how much this time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        pad = read_pad(func, args, kwargs)
        if pad is not None:
            result = func(*args, **kwargs)
            if self.explicit:
                self.pads.append((result, pad))
            return result
        if is_our_conv(func):
            self.seen[f"conv{args[1].dim() - 2}d"] += 1
        for family, target in _CONVS.items():
            if func is target:
                ordinal = self.seen[family]
                self.seen[family] = ordinal + 1
                for change in self.changes:
                    if change.family == family and change.ordinal == ordinal:
                        return self._conv(change, args, kwargs)
                    if change.family == family and ordinal >= change.total:
                        self._check_extra(change, args, kwargs)
        family = pool_family(func) if self.pooled else None
        return func(*args, **kwargs) if family is None else self._pool(family, func, args, kwargs)

    def _pool(self, family: str, func: Any, args: Any, kwargs: Any) -> Any:
        ordinal = self.seen.get(family, 0)
        self.seen[family] = ordinal + 1
        for change in self.pooled:
            if (change.family, change.ordinal) == (family, ordinal):
                found = read_pool(func, args, kwargs)
                if found is None or found.op != change.before:
                    numbers = "other numbers" if found is None else str(found.op.spec())
                    raise SiteMismatch(_mismatch(change.site, numbers, str(change.before.spec())))
                self._check_rerun(change)
                result = emit_pool(found.x, change.after)
                if not torch.compiler.is_dynamo_compiling():
                    _ANSWERS.get({}).setdefault(change.site, []).append(result)
                return result
        return func(*args, **kwargs)

    def _check_extra(self, change: ConvChange, args: Any, kwargs: Any) -> None:
        """A call beyond those recorded must not be one more with a weight that was decided about."""
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        if change.weight is not None and self._weight(change.weight) is weight:
            raise SiteMismatch(_mismatch(change.site, "one call more of its weight", f"{change.total} calls"))

    def _weight(self, path: str) -> Any:
        """The parameter of that name below the owner; None once it is parametrized."""
        module: Any = self.owner
        *parts, name = path.split(".")
        for part in parts:
            module = getattr(module, part)
        return module._parameters.get(name)

    def check_end(self) -> None:
        """After the forward: where only a count tells a call from another, the counts must be as recorded."""
        for change in self.pooled:
            if self.seen.get(change.family, 0) != change.total:
                found = f"{self.seen.get(change.family, 0)} calls of {change.family}"
                raise SiteMismatch(_mismatch(change.site, found, f"{change.total}"))
        for change in self.changes:
            if change.weight is None and self.seen[change.family] != change.total:
                found = f"{self.seen[change.family]} calls of {change.family}"
                raise SiteMismatch(_mismatch(change.site, found, f"{change.total}"))

    def _conv(self, change: ConvChange, args: Any, kwargs: Any) -> Any:
        slots = dict(zip(_SLOTS, args))
        slots.update(kwargs)
        self._check(change, slots)
        self._check_rerun(change)
        rank = len(change.stride)
        source, amounts = self._before_pads(slots["input"], rank, change)
        padding, outer = change.padding, None
        if change.bypass:
            padding = tuple((own[0] + a[0], own[1] + a[1]) for own, a in zip(padding, amounts))
        elif change.partial is not None:
            outer = tuple(a if m == "zeros" else (0, 0) for a, m in zip(amounts, change.modes))
        return convolve(
            source if change.bypass else slots["input"],
            slots["weight"],
            slots.get("bias"),
            change.new_stride,
            padding,
            change.new_dilation,
            change.groups,
            change.modes,
            change.partial,
            outer if change.explicit else None,
            change.symmetric,
        )

    def _check_rerun(self, change: ConvChange | PoolChange) -> None:
        """Without gradients inside a forward that has them, the call may be run again in backward, outside the mode."""
        if self.grad and not torch.is_grad_enabled() and not torch.compiler.is_dynamo_compiling():
            _refuse_checkpoint(change)

    def _before_pads(self, x: Any, rank: int, change: ConvChange) -> tuple[Any, Any]:
        """What the explicit pads right before the call padded, and the (lo, hi) they added per spatial axis."""
        if torch.compiler.is_dynamo_compiling():
            return self._pads_by_rule(x, change)
        amounts: Any = ((0, 0),) * rank
        for _ in range(change.explicit):
            for result, pad in self.pads:
                if result is x:
                    added = (((0, 0),) * rank + tuple(pad.amounts))[-rank:]
                    amounts = tuple((a[0] + b[0], a[1] + b[1]) for a, b in zip(amounts, added))
                    x = pad.x
                    break
        return x, amounts

    def _pads_by_rule(self, x: Any, change: ConvChange) -> tuple[Any, Any]:
        """The same where torch.compile traces, which shows a mode no ``F.pad``: by the rule that was proved."""
        rank, amounts = len(change.stride), []
        for axis in range(rank):
            split = change.splits[axis] if change.splits else "fixed"
            if split == "fixed":
                amounts.append(change.amounts[axis])
                continue
            if split == "unknown" or not change.reads_input:
                raise SiteMismatch(
                    f"{change.site}: an explicit pad before it follows the input's size in a way that torch.compile "
                    "does not show. Compile the original with backend='padrewrite' instead."
                )
            dim = axis - rank
            amounts.append(split_total(x.shape[dim] - self.source.shape[dim], split))
        if change.bypass and change.explicit:
            for axis in range(rank):
                lo, hi = amounts[axis]
                x = x.narrow(axis - rank, lo, x.shape[axis - rank] - lo - hi)
        return x, tuple(amounts)

    def _check(self, change: ConvChange, slots: Any) -> None:
        weight, rank = slots["weight"], len(change.stride)
        stride, dilation = per_axis(slots.get("stride", 1), rank), per_axis(slots.get("dilation", 1), rank)
        found = (tuple(weight.shape), tuple(stride), tuple(dilation))
        if found != (change.shape, change.stride, change.dilation):
            wanted = f"weight {change.shape}, stride {change.stride}, dilation {change.dilation}"
            raise SiteMismatch(
                _mismatch(change.site, f"weight {found[0]}, stride {found[1]}, dilation {found[2]}", wanted)
            )
        if change.weight is not None:
            own = self._weight(change.weight)
            if own is not None and own is not weight:
                raise SiteMismatch(_mismatch(change.site, "another weight", change.weight))


def _mismatch(site: str, found: str, wanted: str) -> str:
    return (
        f"{site}: this forward makes its call with {found}, the plan was made for {wanted}. The forward took another "
        "path than when it was recorded (another mode or another input?); plan again with inputs of this kind."
    )


def _refuse_checkpoint(change: ConvChange | PoolChange) -> None:
    """Reentrant checkpointing runs the call again later, outside this forward, where nothing redirects it."""
    frame = sys._getframe(3)
    while frame is not None and frame.f_code is not RedirectedMixin.forward.__code__:
        if frame.f_code.co_filename.endswith(_CHECKPOINT):
            raise SiteMismatch(
                f"{change.site}: torch.utils.checkpoint would run this call again outside the forward that redirects "
                "it, with other numbers. Checkpoint the whole module instead, or use use_reentrant=False and revert."
            )
        frame = frame.f_back


_CHECKPOINT = os.path.join("torch", "utils", "checkpoint.py")


class RedirectedMixin:
    """A module whose forward runs under ``Redirect``."""

    _padrewrite_changes: tuple[ConvChange | PoolChange, ...] = ()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        redirect = Redirect(self, self._padrewrite_changes, args[0] if args else None)
        with redirect:
            output = super().forward(*args, **kwargs)  # pyright: ignore
            redirect.check_end()
        return output


def redirected_class(base: type) -> type:
    """``base`` with a redirected forward, of the signature it had."""
    made = derived_class(RedirectedMixin, base, "Redirected")

    @wraps(base.forward)  # pyright: ignore
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return RedirectedMixin.forward(self, *args, **kwargs)

    made.forward = forward  # pyright: ignore
    return made
