"""Subclasses made on demand: a user's class with one behaviour of ours in front of it."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary, WeakValueDictionary

_derived: WeakKeyDictionary[type, WeakValueDictionary[type, type]] = WeakKeyDictionary()


def derived_class(mixin: type, base: type, prefix: str, stock: Mapping[type, type] | None = None) -> type:
    """``base`` with ``mixin`` in front: the same class at every call, and the one in ``stock`` where there is one.

    A class made by ``torch.nn.utils.parametrize`` stays outermost, with its properties in its own namespace:
    ``remove_parametrizations`` deletes them from the module's class and then restores that class's first base.
    """
    if stock is not None and base in stock:
        return stock[base]
    if issubclass(base, mixin):
        return base
    known = _derived.setdefault(mixin, WeakValueDictionary())
    made = known.get(base)
    if made is None:
        made = known[base] = _derive(mixin, base, prefix, stock)
    return made


def _derive(mixin: type, base: type, prefix: str, stock: Mapping[type, type] | None) -> type:
    if is_parametrized(base):
        inner = derived_class(mixin, base.__bases__[0], prefix, stock)
        members = {key: value for key, value in vars(base).items() if key not in ("__dict__", "__weakref__")}
        return type(f"Parametrized{inner.__name__}", (inner,), members)
    # In front of a subclass of a stock layer stands our form of that layer, so that isinstance finds it.
    front = next((ours for plain, ours in (stock or {}).items() if issubclass(base, plain)), mixin)
    return type(prefix + base.__name__, (front, base), {"__module__": base.__module__})


def is_parametrized(cls: type) -> bool:
    """Whether torch.nn.utils.parametrize made this class (it marks it by nothing but its methods)."""
    return getattr(vars(cls).get("__getstate__"), "__module__", None) == "torch.nn.utils.parametrize"
