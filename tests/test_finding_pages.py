"""docs/findings: a page and a row for every code, and examples that are found to be what the page says."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import padrewrite as pr
from padrewrite.analyses.findings import CODES

PAGES = Path(__file__).parent.parent / "docs" / "findings"
SECTIONS = ["How it is computed", "When it is harmless", "What cures it"]


def page(code: str) -> str:
    return (PAGES / f"{code}.md").read_text(encoding="utf-8")


def test_every_code_has_its_page_and_no_page_is_without_a_code() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*CODES, "README"}


def test_every_code_has_its_row() -> None:
    rows = re.findall(
        r"^\| \[`(.+?)`\]\((.+?)\) \| (\w+) \| (.+?) \| (.+?) \|$", (PAGES / "README.md").read_text(), re.M
    )
    assert [(code, severity, meaning) for code, _, severity, meaning, _ in rows] == [
        (code, severity, meaning) for code, (severity, meaning) in CODES.items()
    ]
    assert all(target == f"{code}.md" for code, target, *_ in rows)


@pytest.mark.parametrize("code", CODES)
def test_a_page_has_its_parts(code: str) -> None:
    text = page(code)
    assert text.startswith(f"# {code}\n")
    assert f"\nSeverity: {CODES[code][0]}.\n" in text
    assert re.findall(r"^## (.+)$", text, re.M) == SECTIONS
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (PAGES / target).exists(), target


def blocks(code: str) -> tuple[str, str]:
    """The example and what it shows."""
    (first, source), (second, shown) = re.findall(r"^```(\w*)\n(.*?)^```$", page(code), re.M | re.S)
    assert (first, second) == ("python", "")
    return source, shown


@cache
def example(code: str) -> tuple[pr.Finding, ...]:
    """What is found in the page's example."""
    names: dict[str, Any] = {}
    exec(compile(blocks(code)[0], f"{code}.md", "exec", dont_inherit=True), names)
    return pr.analyze(names["model"], example_inputs=names["x"]).of(code)


@pytest.mark.parametrize("code", CODES)
def test_the_example_is_found(code: str) -> None:
    found, shown = example(code), blocks(code)[1]
    assert found
    assert " ".join(f"{one.site}: {one.message}" for one in found) == " ".join(shown.split())


@pytest.mark.parametrize("code", CODES)
def test_the_named_cure_is_explained(code: str) -> None:
    """What a finding offers as a cure is in its page's last section."""
    last = page(code).partition("## What cures it")[2]
    for one in example(code):
        assert one.cure is None or f"`{one.cure.partition('{')[0]}`" in last
        assert one.cure is not None or "No pass cures this" in last or "Nothing to cure" in last
