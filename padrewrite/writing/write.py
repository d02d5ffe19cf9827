"""Writing a plan's edits into modules, all of them or none, and taking them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from padrewrite.edits import ATTACH, REBIND, REDIRECT, REPLACE, RETUNE, Edit
from padrewrite.errors import WriteError
from padrewrite.feasibility import feasible
from padrewrite.nn.large import layer_of
from padrewrite.nn.symmetric import SymmetricConvMixin
from padrewrite.ops.assembly import Attached
from padrewrite.ops.carrying import Carried
from padrewrite.ops.conv import Pairs, own_padding
from padrewrite.ops.pool import Pool
from padrewrite.ops.realise import Realisation
from padrewrite.writing.redirecting import ConvChange, PoolChange
from padrewrite.writing.replacing import REPLACED, put_back, put_layer
from padrewrite.writing.swapping import ORIGINAL, attach, restore, retune, swap


@torch.inference_mode(False)
def write(model: nn.Module, edits: Sequence[Edit]) -> dict[str, Carried]:
    """Applies every edit to ``model``; if one fails, those before it are taken back.

    New parameters can be trained, also those made within ``torch.inference_mode``.

    Returns:
        Per replaced site what carrying its weights over lost: the same for every call of a layer.

    Raises:
        WriteError: a module cannot be changed.
    """
    before = snapshot(model)
    carried: dict[str, Carried | None] = {}
    try:
        # Layers first: what else is edited may be a part of them.
        done: set[str] = set()
        for edit in edits:
            if edit.way in (REPLACE, ATTACH) and edit.owner not in done:
                done.add(edit.owner)
                carried[edit.owner] = put_layer(model, edit) if edit.way == REPLACE else _attach(model, edit)
        _clear(model, edits)
        for edit in edits:
            if edit.way != REDIRECT and edit.owner not in done:
                done.add(edit.owner)
                _write_layer(model.get_submodule(edit.owner), edit)
        redirects: dict[str, list[Edit]] = {}
        for edit in edits:
            if edit.way == REDIRECT:
                redirects.setdefault(edit.owner, []).append(edit)
        for owner, chosen in redirects.items():
            _write_redirects(model.get_submodule(owner), owner, chosen)
    except Exception as error:
        undo(before)
        raise WriteError(f"the rewrite could not be written ({error}); the model is as it was.") from error
    return {edit.site.id: found for edit in edits if (found := carried.get(edit.owner)) is not None}


def _attach(model: nn.Module, edit: Edit) -> None:
    """Gives a layer its new numbers, if it gets any, and a child behind it."""
    module: Any = model.get_submodule(edit.owner)
    after = edit.after
    assert isinstance(after, Attached)
    if after.op != edit.before:
        inner = feasible(model, edit.site, after.op)
        assert isinstance(inner, Edit)
        _write_layer(module, inner)
    weight = module.weight
    if after.name not in module._modules:
        child = layer_of(after.assembly, None, weight.device, weight.dtype).train(module.training)
        attach(module, after.name, child)


def _clear(model: nn.Module, edits: Sequence[Edit]) -> None:
    """Takes back what earlier rewrites put at the edited sites, where the new way is another module's."""
    sites = {edit.site.id: edit for edit in edits}
    for edit in edits:
        layer = edit.site.handle.call.owner_kind in ("conv", "pool")
        if edit.way == REDIRECT and edit.owner != edit.site.fqn and layer:
            restore(model.get_submodule(edit.site.fqn))
    for module in list(model.modules()):
        changes: Any = vars(module).get("_padrewrite_changes", ())
        left = tuple(c for c in changes if c.site not in sites)
        if changes and not left:
            restore(module)
        elif len(left) < len(changes):
            vars(module)["_padrewrite_changes"] = left


@dataclass(frozen=True)
class Before:
    """What a module was: its class, its attributes, and what its registries held."""

    module: nn.Module
    cls: type
    attributes: dict[str, Any]
    registries: dict[str, dict[str, Any]]


_REGISTRIES = ("_modules", "_parameters", "_buffers")


def snapshot(model: nn.Module) -> list[Before]:
    """Class, attributes and registries of every module, for ``undo``."""
    return [
        Before(m, type(m), dict(vars(m)), {name: dict(vars(m)[name]) for name in _REGISTRIES}) for m in model.modules()
    ]


def undo(before: list[Before]) -> None:
    """Puts every module of a snapshot back."""
    for one in before:
        one.module.__class__ = one.cls
        current = vars(one.module)
        current.clear()
        current.update(one.attributes)
        for name, held in one.registries.items():
            current[name].clear()
            current[name].update(held)


@torch.inference_mode(False)
def take_back(model: nn.Module, original: nn.Module | None = None) -> int:
    """Reverts every rewritten module; returns how many there were.

    Raises:
        RevertError: replaced parameters are gone; nothing was changed.
    """
    return put_back(model, original) + sum(restore(module) for module in model.modules())


def is_written(model: nn.Module) -> bool:
    """True if some module of ``model`` carries a rewrite."""
    return any(ORIGINAL in vars(module) or REPLACED in vars(module) for module in model.modules())


def _write_layer(module: nn.Module, edit: Edit) -> None:
    change = edit.change
    if edit.way == RETUNE:
        _retune_padding(module, change)
        return
    assert edit.way == REBIND
    attributes: dict[str, Any] = {"padding_mode": "zeros", **_padding_attribute(module, change)}
    own = {"stride": change.own.stride, "dilation": change.own.dilation}
    attributes |= {name: value for name, value in own.items() if tuple(getattr(module, name)) != value}
    if change.own.symmetric is not None:
        symmetric = change.own.symmetric
        modes = {"axis_modes": _mixed(change), "partial_scale": change.own.partial}
        swap(module, "symmetric", order=symmetric.order, symmetric_axes=symmetric.axes, **modes, **attributes)
    elif change.own.partial is None:
        swap(module, "axis-padded", axis_modes=change.own.modes, **attributes)
    else:
        swap(
            module,
            "partial",
            partial_scale=change.own.partial,
            outer=change.outer,
            axis_modes=_mixed(change),
            **attributes,
        )


def _padding_attribute(module: Any, change: Realisation) -> dict[str, Any]:
    """A new value for ``padding`` if what the layer says differs from what it is to apply."""
    own = change.own
    # The names mean something else in symmetric layers, before and after.
    named = isinstance(module.padding, str) and (own.symmetric is not None or isinstance(module, SymmetricConvMixin))
    if not named and own_padding(module.padding, own.kernel, own.dilation) == own.padding:
        return {}
    symmetric = all(lo == hi for lo, hi in own.padding)
    return {"padding": own.window.lo if symmetric else own.padding}


def _mixed(change: Realisation) -> tuple[str, ...] | None:
    return None if set(change.own.modes) == {"zeros"} else change.own.modes


def _retune_padding(module: Any, change: Realisation) -> None:
    """Sets the padding of a stock layer, and what torch derives from it when it is built."""
    own = change.own
    modes = {own.modes[a] for a in own.padded_axes} or {"zeros"}
    flat = [v for pair in reversed(own.padding) for v in pair]
    padding = _padding_attribute(module, change)
    retune(
        module,
        padding_mode=modes.pop(),
        dilation=own.dilation,
        stride=own.stride,
        _reversed_padding_repeated_twice=flat,
        **padding,
    )


def _write_redirects(owner: nn.Module, fqn: str, edits: Sequence[Edit]) -> None:
    changes: dict[tuple[str, int], ConvChange | PoolChange] = {}
    for change in getattr(owner, "_padrewrite_changes", ()):
        changes[change.family, change.ordinal] = change
    for edit in edits:
        change = _pool_change(edit, fqn) if isinstance(edit.after, Pool) else _conv_change(edit, fqn)
        changes[change.family, change.ordinal] = change
    swap(owner, "redirected", _padrewrite_changes=tuple(changes.values()))


def _pool_change(edit: Edit, owner: str) -> PoolChange:
    call = edit.site.handle.call
    assert isinstance(edit.before, Pool)
    assert isinstance(edit.after, Pool)
    total = next(t for f, t in zip(call.frames, edit.site.handle.totals) if f.fqn == owner)
    return PoolChange(edit.site.id, call.family, _ordinal(call, owner), total, edit.before, edit.after)


def _conv_change(edit: Edit, owner: str) -> ConvChange:
    call, before, real = edit.site.handle.call, edit.old, edit.change
    own = real.own
    prefix = f"{owner}." if owner else ""
    name = edit.site.handle.weight
    return ConvChange(
        site=edit.site.id,
        family=call.family,
        ordinal=_ordinal(call, owner),
        shape=(before.out_channels, before.in_channels // before.groups, *before.kernel),
        stride=before.stride,
        dilation=before.dilation,
        weight=name.removeprefix(prefix) if name is not None and name.startswith(prefix) else None,
        bypass=real.bypass,
        padding=_beside_pads(edit) if real.bypass else own.padding,
        modes=own.modes,
        partial=own.partial,
        symmetric=own.symmetric,
        groups=own.groups,
        explicit=len(edit.site.handle.pads),
        total=next(t for f, t in zip(call.frames, edit.site.handle.totals) if f.fqn == owner),
        amounts=tuple(
            (sum(p.amounts[a][0] for p in edit.explicit), sum(p.amounts[a][1] for p in edit.explicit))
            for a in range(before.window.rank)
        ),
        splits=edit.site.handle.splits,
        reads_input=edit.site.handle.reads_input and owner == edit.site.fqn,
        new_stride=own.stride,
        new_dilation=own.dilation,
    )


def _beside_pads(edit: Edit) -> Pairs:
    """The wanted padding less what the explicit pads added: negative where they pad by more than is wanted."""
    pads = edit.site.handle.amounts
    return tuple(
        (lo - sum(p.amounts[a][0] for p in pads), hi - sum(p.amounts[a][1] for p in pads))
        for a, (lo, hi) in enumerate(edit.change.own.padding)
    )


def _ordinal(call: Any, owner: str) -> int:
    return next(f.ordinal for f in call.frames if f.fqn == owner)
