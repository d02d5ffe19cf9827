"""``padrewrite passes`` shows everything that a user can set or be told."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest
from rich.cells import cell_len

from padrewrite.cli import main
from padrewrite.cli.catalogue import cards, field_docs
from padrewrite.registry import known_passes


@pytest.fixture
def listing(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["passes"]) == 0
    return capsys.readouterr().out


def test_every_pass_option_and_code_is_listed(listing: str) -> None:
    words = " ".join(listing.split())
    assert known_passes()
    for name, cls in known_passes().items():
        assert name in words
        assert f"contract {cls.contract}" in words
        assert all(f"{field.name}: {field.type} = {field.default}" in words for field in fields(cls))
        assert all(f"{code} {meaning}" in words for code, meaning in cls.codes.items())
    assert max(map(cell_len, listing.splitlines())) <= 100


def test_every_option_of_every_pass_is_documented() -> None:
    assert [(card.name, option.name) for card in cards() for option in card.options if not option.doc] == []
    assert [card.name for card in cards() if not card.summary] == []


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", "partial-padding", "--json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    (card,) = data["passes"]
    assert card["name"] == "partial-padding"
    assert card["codes"] == dict(known_passes()["partial-padding"].codes)
    (option,) = card["options"]
    assert (option["name"], option["type"], option["default"]) == ("scale", "str", "mean")
    assert "keeps its variance" in option["doc"]
    assert "selector-cuts-match" in data["codes_of_every_pass"]


def test_one_pass_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes", "padding-mode"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("padding-mode")
    assert "keeps its variance" not in out


@dataclass
class Documented:
    kind: ClassVar[str] = "x"
    """Not an option, but documented."""
    one: int = 1
    """In one
    sentence."""
    two: int = 2
    three: int = 3


def test_the_string_under_a_field_is_its_doc() -> None:
    assert field_docs(Documented) == {"kind": "Not an option, but documented.", "one": "In one sentence."}


def test_a_class_without_source_has_no_docs() -> None:
    assert field_docs(type("Made", (), {})) == {}
