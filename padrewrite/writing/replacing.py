"""Putting a layer with other parameters in the place of a convolution, and the convolution back."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from padrewrite.edits import Edit
from padrewrite.errors import RevertError, WriteError
from padrewrite.nn.assembled import Assembled, PassedOn
from padrewrite.nn.large import layer_of
from padrewrite.ops.assembly import Assembly
from padrewrite.ops.carrying import Carried, carry_over
from padrewrite.ops.realise import behind_pads
from padrewrite.replacing import own_attributes, told

REPLACED = "_padrewrite_replaced"

_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
)


class Held:
    """The layer that another stands for. Copies of a model copy it too; stored in a file it is gone."""

    def __init__(self, module: nn.Module | None = None) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> Held:
        return Held(copy.deepcopy(self.module, memo))

    def __reduce__(self) -> Any:
        return Held, ()


def put_layer(model: nn.Module, edit: Edit) -> Carried | None:
    """Puts the edit's layer into every parent of the old one; returns what carrying its weight over lost.

    On meta there is nothing to carry: a checkpoint that is loaded later is carried over then.

    Raises:
        WriteError: with this model's weights the loss is larger than ``max_error``.
    """
    old: Any = model.get_submodule(edit.owner)
    after = behind_pads(edit.after, edit.explicit)  # pyright: ignore[reportArgumentType]
    assert isinstance(after, Assembly)
    weight: Tensor = old.weight
    carried = None
    if after.carry is None or weight.is_meta:
        new = layer_of(after, edit.old, weight.device, weight.dtype)
    else:
        carried = _carried(edit, old)
        new = layer_of(after, edit.old, "meta", weight.dtype)
        _fill(new, carried.state)
    _inherit(new, old)
    _norms_as(new, [model.get_submodule(fqn) for fqn in after.drops])
    _swap_in(model, old, new)
    for fqn in after.drops:
        norm = model.get_submodule(fqn)
        if isinstance(norm, PassedOn):
            continue  # called behind several layers, all of which are replaced
        _swap_in(model, norm, PassedOn().train(norm.training))
    return carried


def _swap_in(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts ``new`` into every parent of ``old``, and has it remember that."""
    vars(new)[REPLACED] = Held(old)
    for name in _HOOKS:
        vars(new)[name] = vars(old)[name]
    _exchange(model, old, new)


def _exchange(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _carried(edit: Edit, old: Any) -> Carried:
    """As planned, if it was planned with these weights; otherwise anew, within what the plan allows."""
    known = edit.carried
    if known is not None and _equal(known.weight, old.weight) and _equal(known.bias, old.bias):
        return known
    assert edit.assembly is not None
    found = carry_over(edit.old, edit.assembly, old.weight, old.bias)
    limit = edit.assembly.carry.max_error if edit.assembly.carry is not None else None
    if limit is not None and found.bound > limit:
        raise WriteError(f"{edit.site.id}: with these weights {told(found)}; max_error is {limit:g}")
    return found


def _equal(known: Tensor | None, given: Tensor | None) -> bool:
    if known is None or given is None:
        return known is given
    return (known.dtype, known.device) == (given.dtype, given.device) and torch.equal(known, given)


def _fill(layer: nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in state.items():
        path, _, last = name.rpartition(".")
        layer.get_submodule(path)._parameters[last] = nn.Parameter(value.clone())


def _inherit(new: Assembled, old: Any) -> None:
    """Mode, memory format, what is trained, and attributes that a user has set. What begins anew is always trained."""
    new.train(old.training)
    last = old.weight.dim() == 4 and old.weight.is_contiguous(memory_format=torch.channels_last)
    if last and not old.weight.is_contiguous():
        new.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for name, parameter in new.named_parameters() if new.assembly.carry is not None else ():
        given = old.bias if name.endswith(".bias") and old.bias is not None else old.weight
        parameter.requires_grad_(given.requires_grad)
    for name in own_attributes(old):
        vars(new)[name] = vars(old)[name]


def _norms_as(new: Assembled, old: list[nn.Module]) -> None:
    """The batch norms inside get the mode of the one that goes."""
    norms = [m for m in new.modules() if isinstance(m, _BatchNorm)]
    for norm in norms if old else ():
        norm.train(old[0].training)


def put_back(model: nn.Module, original: nn.Module | None = None) -> int:
    """Puts every replaced layer back into its parents; returns how many there were.

    Raises:
        RevertError: a layer is gone, as after loading from a file, and there is no ``original`` to take it from.
    """
    replaced = {fqn: m for fqn, m in model.named_modules() if REPLACED in vars(m)}
    olds = {fqn: _old(fqn, module, original) for fqn, module in replaced.items()}
    for fqn, new in replaced.items():
        old = olds[fqn]
        like = _like(new, model)
        if like is not None:
            old.to(like.device, like.dtype)
        old.train(new.training)
        _exchange(model, new, old)
    return len(replaced)


def _like(new: nn.Module, model: nn.Module) -> Tensor | None:
    """A parameter that shows the type and device that a layer has by now."""
    found = (p for module in (new, model) for p in module.parameters() if p.is_floating_point())
    return next(found, None)


def held_layer(new: nn.Module, original: nn.Module | None, fqn: str) -> Any:
    """The layer that ``new`` stands for: in this process, or in the original; None if it is in neither."""
    held: Held | None = vars(new).get(REPLACED)
    if held is not None and held.module is not None:
        return held.module
    return None if original is None else original.get_submodule(fqn)


def _old(fqn: str, new: nn.Module, original: nn.Module | None) -> nn.Module:
    held: Held = vars(new)[REPLACED]
    found = held_layer(new, original, fqn)
    if found is None:
        raise RevertError(
            f"the parameters that {fqn} had are not in this process any more (the model was loaded from a file). "
            "Write revert(model, original=...) with the model before its rewrite."
        )
    return found if found is held.module else copy.deepcopy(found)
