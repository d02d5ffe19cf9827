"""One rewritten site on its own: random inputs in float64 against the naive reference, and its contract's interior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from padrewrite.checks.compare import Comparison
from padrewrite.checks.naive import naive_conv, naive_pool, naive_symmetric
from padrewrite.contracts import Evidence
from padrewrite.edits import REDIRECT, Edit
from padrewrite.ops.conv import Conv, emit_conv
from padrewrite.ops.pool import Pool, emit_pool
from padrewrite.ops.realise import ExplicitPad


def check_site(
    model: nn.Module, edit: Edit, rounds: int, generator: torch.Generator, tolerance: float
) -> list[Evidence]:
    """Evidence that the site computes its new op, and that it equals the old one where no window touches padding."""
    if isinstance(edit.after, Pool):
        return [_check_pool(edit.site.id, edit.after, rounds, generator, tolerance)]
    matches, interior = Comparison(tolerance), Comparison(tolerance)
    weight, bias = _weights(model, edit, generator)
    for trial in range(rounds):
        x = _input(edit, weight.shape[1] * edit.conv.groups, trial, generator, weight.device)
        got = _run(model, edit, x, weight, bias)
        got = _some_groups(got, edit.conv.groups, 1)
        matches.add(got, _naive_in_some_groups(edit.conv, x, weight, bias))
        if edit.keeps_interior:
            inside = _inside(edit.old, x)
            interior.add(got[inside], _naive_in_some_groups(edit.old, x, weight, bias)[inside])
    kind = "interior" if edit.keeps_interior else "shape"
    found = [matches.evidence(edit.site.id, "reference")]
    return found + ([interior.evidence(edit.site.id, kind)] if kind == "interior" else [])


def _check_pool(site: str, op: Pool, rounds: int, generator: torch.Generator, tolerance: float) -> Evidence:
    """What a redirected pool emits, against the naive one."""
    matches = Comparison(tolerance)
    w = op.window
    for trial in range(rounds):
        sizes = [max(span, lo + 1, hi + 1) + a + trial % 3 for a, (span, lo, hi) in enumerate(zip(w.span, w.lo, w.hi))]
        x = torch.randn(1, 2, *sizes, generator=generator, dtype=torch.float64)
        matches.add(emit_pool(x, op), reference_pool(op, x))
    return matches.evidence(site, "reference")


def reference_pool(op: Pool, x: Tensor) -> Tensor:
    """The reference for any ``Pool``, from its fields alone."""
    w = op.window
    padding, counted = w.padding, op.counted
    if op.ceil and not any(map(any, padding)):
        # A last window that hangs over the end reads nothing there.
        padding, counted = tuple((0, s - 1) for s in w.stride), False
    numbers: Any = {"kernel": w.kernel, "stride": w.stride, "dilation": w.dilation, "padding": padding}
    return naive_pool(x, **numbers, average=op.average, counted=counted)


def naive(op: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    """The reference for any ``Conv``, from its fields alone."""
    w = op.window
    numbers: Any = {"stride": w.stride, "dilation": w.dilation, "padding": w.padding, "groups": op.groups}
    numbers |= {"modes": op.modes, "partial": op.partial}
    if op.symmetric is not None:
        return naive_symmetric(x, weight, bias, axes=op.symmetric.axes, order=op.symmetric.order, **numbers)
    return naive_conv(x, weight, bias, **numbers)


def _naive_in_some_groups(op: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    few = replace(op, groups=min(op.groups, _SOME_GROUPS))
    bias = None if bias is None else _some_groups(bias, op.groups, 0)
    return naive(few, _some_groups(x, op.groups, 1), _some_groups(weight, op.groups, 0), bias)


def _some_groups(values: Tensor, groups: int, dim: int) -> Tensor:
    """The channels along ``dim`` of some groups, from the first to the last: groups do not see each other."""
    if groups <= _SOME_GROUPS:
        return values
    chosen = [i * (groups - 1) // (_SOME_GROUPS - 1) for i in range(_SOME_GROUPS)]
    by_group = values.unflatten(dim, (groups, -1))
    return by_group.index_select(dim, torch.tensor(chosen, device=values.device)).flatten(dim, dim + 1)


def _weights(model: nn.Module, edit: Edit, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """A few channels of each group, in float64: of the site's own weights where its module holds them, else random.

    Padding treats all channels alike, so a few tell as much as all, but where it is symmetric.
    """
    module, op = model.get_submodule(edit.site.fqn), edit.conv
    per_group = (op.out_channels // op.groups, op.in_channels // op.groups)
    shape = (op.out_channels, per_group[1], *op.kernel)
    weight: Any = getattr(module, "weight", None)
    if hasattr(weight, "full_tensor"):  # sharded by fully_shard
        weight = weight.full_tensor()
    if not isinstance(weight, Tensor) or tuple(weight.shape) != shape or weight.is_meta:
        weight = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    # Which side a channel is read from depends on how many there are.
    few_out, few_in = min(per_group[0], _FEW), per_group[1] if op.symmetric else min(per_group[1], 2 * _FEW)
    grouped = weight.detach().reshape(op.groups, *per_group, *op.kernel)[:, :few_out, :few_in]
    weight = grouped.reshape(op.groups * few_out, few_in, *op.kernel).double()
    if not op.bias:
        return weight, None
    bias = torch.randn(weight.shape[0], generator=generator, dtype=torch.float64, device="cpu")
    return weight, bias.to(weight.device)


_FEW = 4
"""Output channels per group that are checked; of the input channels twice as many."""

_SOME_GROUPS = 32
"""Groups that are checked of a convolution with many, as depthwise ones have."""


def _input(edit: Edit, channels: int, trial: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """A random input with an interior on every axis, of a size that differs per axis and trial."""
    w = edit.after.reach
    sizes = [
        max(span, lo + 1, hi + 1) + axis + trial % 3 + stride
        for axis, (span, stride, lo, hi) in enumerate(zip(w.span, w.stride, w.lo, w.hi))
    ]
    return torch.randn(1, channels, *sizes, generator=generator, dtype=torch.float64, device="cpu").to(device)


def _run(model: nn.Module, edit: Edit, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What the written module computes; for a redirected call, what the redirection emits."""
    real = edit.change
    if not real.bypass:
        for pad in reversed(edit.explicit):
            x = explicitly_padded(x, pad)
    if edit.way == REDIRECT:
        return emit_conv(x, weight, bias, real.own, real.outer)
    module: Any = model.get_submodule(edit.owner)
    return type(module)._conv_forward(module, x, weight, bias)


def explicitly_padded(x: Tensor, pad: ExplicitPad) -> Tensor:
    """``x`` after an explicit pad of the model: a naive convolution with the one-pixel identity kernel."""
    channels, rank = x.shape[1], len(pad.amounts)
    identity = torch.ones(channels, 1, *(1,) * rank, dtype=x.dtype, device=x.device)
    ones, modes = (1,) * rank, (pad.mode,) * rank
    numbers: Any = {"stride": ones, "dilation": ones, "padding": pad.amounts, "groups": channels, "modes": modes}
    out: Any = naive_conv(x, identity, None, **numbers)
    return out


def _inside(op: Conv, x: Tensor) -> Any:
    ranges = op.reach.rect(tuple(x.shape[2:]))
    return (slice(None), slice(None), *(slice(a, b) for a, b in ranges))
