"""Every known pass as data: its contract, its options with what they mean, the codes it reports."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from padrewrite.errors import PassError
from padrewrite.feasibility import CODES
from padrewrite.registry import known_passes
from padrewrite.reporting.layout import Cell, grid
from padrewrite.rewriting import Pass
from padrewrite.selecting import closest

SCHEMA = "padrewrite.passes/1"

ENGINE_CODES = {
    "rewritten": "every condition held",
    "no-match": "the pass has nothing to say about this convolution",
    "not-selected": "include, exclude or where left it out",
    "selector-cuts-match": "a selector took a part of what is only rewritten as a whole",
    **CODES,
}
"""Codes that every pass can report."""


@dataclass(frozen=True)
class Option:
    """One field of a pass."""

    name: str
    type: str
    default: str
    doc: str


@dataclass(frozen=True)
class Card:
    """What a user can know about a pass without reading it."""

    name: str
    summary: str
    contract: str
    needs: str
    options: tuple[Option, ...]
    codes: dict[str, str]


def cards(names: Iterable[str] = ()) -> list[Card]:
    """The cards of the named passes, or of all.

    Raises:
        PassError: a name is not a pass.
    """
    known = known_passes()
    for name in names:
        if name not in known:
            near = closest(name, known)
            raise PassError(f"unknown pass {name!r}. Closest: {near[0] if near else 'none'}.")
    return [_card(known[name]) for name in (names or sorted(known))]


def _card(cls: type[Pass]) -> Card:
    docs = field_docs(cls)
    options = tuple(Option(f.name, str(f.type), _default(f), docs.get(f.name, "")) for f in fields(cls))
    summary = (inspect.getdoc(cls) or "").partition("\n")[0]
    return Card(cls.name, summary, cls.contract, cls.needs, options, dict(cls.codes))


def field_docs(cls: type) -> dict[str, str]:
    """The string under each field in the class's source; empty if the source cannot be read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    assert isinstance(tree.body[0], ast.ClassDef)
    body = tree.body[0].body
    docs: dict[str, str] = {}
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            value = below.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs[field.target.id] = inspect.cleandoc(value.value).replace("\n", " ")
    return docs


def _default(field: Field[Any]) -> str:
    return "required" if field.default is MISSING else str(field.default)


def catalogue_json(found: Iterable[Card]) -> dict[str, Any]:
    return {"schema": SCHEMA, "passes": [asdict(card) for card in found], "codes_of_every_pass": ENGINE_CODES}


def catalogue_parts(found: Iterable[Card], width: int) -> Iterator[RenderableType]:
    """A block per pass, then the codes they share."""
    for card in found:
        yield grid([(Text(card.name, style="bold"), card.summary)], width, least=(0, 30), fold=(1,))
        facts: list[tuple[Cell, ...]] = [("contract", card.contract), ("needs", _needs(card))]
        yield grid(facts, width, least=(0, 30), fold=(1,), indent=2)
        yield from _titled("options", [(f"{o.name}: {o.type} = {o.default}", o.doc) for o in card.options], width)
        yield from _titled("codes", list(card.codes.items()), width)
        yield Text("")
    yield Text("codes of every pass", style="bold")
    yield grid(list(ENGINE_CODES.items()), width, least=(0, 30), fold=(1,), indent=4)


def _needs(card: Card) -> str:
    return "example inputs" if card.needs == "dataflow" else "nothing: works without example inputs too"


def _titled(title: str, rows: list[tuple[str, str]], width: int) -> Iterator[RenderableType]:
    if rows:
        yield grid([(title,)], width, least=(0,), indent=2)
        yield grid(rows, width, least=(16, 30), fold=(0, 1), indent=4)
