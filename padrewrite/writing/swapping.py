"""Class swaps: a module gets a subclass of its own class, keeps everything it holds, and can be copied and pickled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from padrewrite.nn.assembled import AttachedMixin, attached_class
from padrewrite.nn.axis_padding import AxisPaddedMixin, axis_padded_class
from padrewrite.nn.deriving import is_parametrized
from padrewrite.nn.partial import PartialConvMixin, partial_class
from padrewrite.nn.symmetric import SymmetricConvMixin, symmetric_class
from padrewrite.writing.redirecting import RedirectedMixin, redirected_class

_FACTORIES: dict[str, Callable[[type], type]] = {
    "partial": partial_class,
    "symmetric": symmetric_class,
    "axis-padded": axis_padded_class,
    "redirected": redirected_class,
    "attached": attached_class,
}
ATTACHED = "attached"
"""The kind of swap that stands on top of another: of ``partial+attached``, say."""
_made: dict[tuple[str, type], type] = {}
_MIXINS = (PartialConvMixin, AxisPaddedMixin, SymmetricConvMixin, RedirectedMixin, AttachedMixin)
ORIGINAL = "_padrewrite_original"


@dataclass(frozen=True)
class Original:
    """What a module was before its first rewrite."""

    cls: type
    kind: str | None = None
    """Of the class swap that was made, if one was."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Attributes that were changed, with the values they had."""
    added: tuple[str, ...] = ()
    """Attributes that were not there."""
    children: tuple[str, ...] = ()
    """Modules that were not there."""


class Swapped:
    """Pickles by naming the base class and the kind of swap, since the class itself cannot be imported."""

    _swap: tuple[str, type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(protocol)
        return (_rebuild, self._swap, *reduced[2:])


def _rebuild(kind: str, base: type) -> Any:
    cls: Any = swapped_class(kind, base)
    return cls.__new__(cls)


def swapped_class(kind: str, base: type) -> type:
    """``base`` with the behaviour of ``kind``: an importable class of padrewrite.nn where there is one."""
    made = _made.get((kind, base))
    if made is None:
        below, _, top = kind.rpartition("+")
        made = _FACTORIES[top](swapped_class(below, base) if below else base)
        if not _is_importable(made) and not is_parametrized(made):
            made = type(made.__name__, (Swapped, made), {"_swap": (kind, base), "__module__": base.__module__})
        _made[kind, base] = made
    return made


def _is_importable(cls: type) -> bool:
    return getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls


def swap(module: nn.Module, kind: str, **attributes: Any) -> None:
    """Gives ``module`` the class of ``kind`` over its original class, and sets attributes."""
    base = base_class(module)
    kind = _stacked(vars(module)[ORIGINAL].kind if ORIGINAL in vars(module) else None, kind)
    present = {name: vars(module)[name] for name in attributes if name in vars(module)}
    remember(module, present, tuple(attributes), kind)
    module.__class__ = swapped_class(kind, base)
    for name, value in attributes.items():
        setattr(module, name, value)


def _stacked(old: str | None, new: str) -> str:
    """The kind of a module that had ``old`` and gets ``new``: what is attached stays, of the others the last counts."""
    kinds = (old or "").split("+")
    below = kinds[0] if kinds[0] != ATTACHED else ""
    if new == ATTACHED:
        return "+".join(filter(None, (below, ATTACHED)))
    return f"{new}+{ATTACHED}" if ATTACHED in kinds else new


def attach(module: nn.Module, name: str, child: nn.Module) -> None:
    """Gives ``module`` a child behind it; one that is there already stays."""
    if name in module._modules:
        return
    swap(module, ATTACHED, attached=name)
    old: Original = vars(module)[ORIGINAL]
    vars(module)[ORIGINAL] = replace(old, children=(*old.children, name))
    module.add_module(name, child)


def retune(module: nn.Module, **attributes: Any) -> None:
    """Sets attributes of a stock layer, remembering what they were."""
    remember(module, attributes={name: getattr(module, name) for name in attributes})
    for name, value in attributes.items():
        setattr(module, name, value)


def base_class(module: nn.Module) -> type:
    """The class a module had before any swap of ours."""
    original: Original | None = vars(module).get(ORIGINAL)
    return original.cls if original is not None else type(module)


def remember(
    module: nn.Module, attributes: dict[str, Any] | None = None, added: tuple[str, ...] = (), kind: str | None = None
) -> None:
    """Notes what a module was; what was noted first stays."""
    old: Original = vars(module).get(ORIGINAL) or Original(type(module))
    kept = {**(attributes or {}), **old.attributes}
    kept = {name: value for name, value in kept.items() if name not in old.added}
    kind = kind or old.kind
    new = tuple(dict.fromkeys((*old.added, *(name for name in added if name not in vars(module)))))
    vars(module)[ORIGINAL] = Original(old.cls, kind, kept, new, old.children)


def restore(module: nn.Module) -> bool:
    """Puts a module's class and attributes back; True if there was something to put back.

    A class that somebody else stacked on top of ours (a parametrization, say) stays on top.
    """
    original: Original | None = vars(module).pop(ORIGINAL, None)
    if original is None:
        return False
    given = swapped_class(original.kind, original.cls) if original.kind is not None else original.cls
    parametrized = set(getattr(module, "parametrizations", ()))
    if type(module) is given and parametrized == _parametrized_names(original.cls):
        module.__class__ = original.cls
    else:
        module.__class__ = _without_ours(type(module), _unparametrized(original.cls))
    for name in original.added:
        vars(module).pop(name, None)
    for name in original.children:
        module._modules.pop(name, None)
    for name, value in original.attributes.items():
        setattr(module, name, value)
    return True


def _parametrized_names(cls: type) -> set[str]:
    """The tensors that a class made by torch.nn.utils.parametrize computes."""
    members = vars(cls).items() if is_parametrized(cls) else ()
    return {name for name, member in members if isinstance(member, property)}


def _unparametrized(cls: type) -> type:
    return _unparametrized(cls.__bases__[0]) if is_parametrized(cls) else cls


def _without_ours(current: type, plain: type) -> type:
    """``current`` with our class in its ancestry replaced by ``plain``; what others stacked on it stays on top."""
    if not issubclass(current, _MIXINS):
        return current
    if (
        "_swap" in vars(current)
        or current.__module__.startswith("padrewrite.nn")
        or set(_MIXINS) & set(current.__bases__)
    ):
        return plain
    bases = tuple(_without_ours(base, plain) for base in current.__bases__)
    names = {k: v for k, v in vars(current).items() if k not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{bases[0].__name__}" if is_parametrized(current) else current.__name__, bases, names)
