"""Choosing sites by name: globs, regular expressions, and a predicate on the site."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, cast

from padrewrite.errors import SelectorError
from padrewrite.graph import Site

Names = str | Sequence[str] | None
Where = Callable[[Site], Any] | None


def select(
    sites: Sequence[Site], include: Names, exclude: Names, where: Where, asked_by: str
) -> frozenset[str]:
    """Ids of the chosen sites.

    A name matches a site by its id, its module's name, or the name of a module around it.

    Raises:
        SelectorError: a selector matches no site, or nothing is left.
    """
    _check(include, exclude, where, asked_by)
    chosen = [s for s in sites if include is None]
    for pattern in _listed(include):
        chosen += matching(sites, pattern, "include", asked_by)
    dropped = {s.id for pattern in _listed(exclude) for s in matching(sites, pattern, "exclude", asked_by)}
    left = [s for s in chosen if s.id not in dropped]
    if where is not None:
        left = [s for s in left if where(s)]
        if not left:
            raise SelectorError(
                f"{asked_by} where=... selected 0 of {len(sites)} convolutions. Nothing was changed."
            )
    if not left and sites:
        raise SelectorError(
            f"{asked_by} include and exclude together leave 0 of {len(sites)} convolutions. Nothing was changed."
        )
    return frozenset(s.id for s in left)


def closest(name: str, names: Iterable[str]) -> list[str]:
    """The names most like ``name``, at most five."""
    known = list(dict.fromkeys(names))
    return get_close_matches(name, known, n=5, cutoff=0.3) or sorted(known)[:3]


def _listed(names: Names) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _check(include: Any, exclude: Any, where: Any, asked_by: str) -> None:
    """SelectorError unless the selectors are of the types that ``select`` takes."""
    for selector, names in (("include", include), ("exclude", exclude)):
        listed = names is None or isinstance(names, (str, list, tuple, set, frozenset))
        if not listed or any(not isinstance(n, str) for n in _listed(cast(Any, names))):
            raise SelectorError(f"{asked_by} {selector}={names!r} is not a name or a list of names.")
    if where is not None and not callable(where):
        raise SelectorError(f"{asked_by} where={where!r} is not a predicate, as in lambda s: s.op.kernel == (2, 2).")


def matching(sites: Sequence[Site], pattern: str, selector: str, asked_by: str) -> list[Site]:
    """The sites that one glob or ``re:`` expression names.

    Raises:
        SelectorError: it names none; the message has the closest ids.
    """
    try:
        found = [s for s in sites if any(_fits(pattern, name) for name in _names(s))]
    except re.error as error:
        raise SelectorError(
            f"{asked_by} {selector}={pattern!r} is not a regular expression: {error}."
        ) from error
    if not found:
        near = ", ".join(closest(pattern.removeprefix("re:"), (s.id for s in sites)))
        raise SelectorError(
            f"{asked_by} {selector}={pattern!r} matched 0 of {len(sites)} convolutions. "
            f"Closest: {near or 'none, the model has no convolution'}. Nothing was changed."
        )
    return found


def _fits(pattern: str, name: str) -> bool:
    return bool(re.fullmatch(pattern[3:], name)) if pattern.startswith("re:") else fnmatchcase(name, pattern)


def _names(site: Site) -> list[str]:
    parts = site.fqn.split(".")
    return [site.id, *(".".join(parts[:n]) for n in range(1, len(parts) + 1))]
