"""Every installed pass has what a pass must have: a small file, documented options, tests, a card, codes explained."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import padrewrite as pr
from padrewrite import feasibility
from padrewrite.registry import known_passes
from padrewrite.rewriting import Pass

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PASSES = sorted(known_passes().items())
IDS = [name for name, _ in PASSES]

# What planning itself reports, whatever the pass.
PLANNING = {"rewritten", "unchanged", "breaks-forward", "no-match", "not-selected", "selector-cuts-match"}

pytestmark = pytest.mark.filterwarnings("error")


def source_of(cls: type[Pass]) -> Path:
    return Path(inspect.getfile(cls))


def own_tests(name: str) -> Any:
    return importlib.import_module(f"test_{name.replace('-', '_')}")


@pytest.mark.parametrize(("name", "cls"), PASSES, ids=IDS)
def test_it_is_a_frozen_dataclass_with_a_contract(name: str, cls: type[Pass]) -> None:
    assert is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # pyright: ignore
    assert cls.name == name
    assert cls.contract in pr.contracts.KINDS
    assert cls.needs in ("module", "dataflow")
    assert cls.codes


@pytest.mark.parametrize(("name", "cls"), PASSES, ids=IDS)
def test_its_file_fits_on_a_screen_and_touches_no_tensor(name: str, cls: type[Pass]) -> None:
    source = source_of(cls)
    assert source.stem == name.replace("-", "_")
    text = source.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 141
    assert not re.search(r"^\s*(import|from) torch\b", text, re.MULTILINE)
    doc = ast.get_docstring(ast.parse(text)) or ""
    assert "=" in doc, "the module's docstring states the rewrite as an equation"


@pytest.mark.parametrize(("name", "cls"), PASSES, ids=IDS)
def test_every_option_has_a_docstring_and_a_default(name: str, cls: type[Pass]) -> None:
    assert cls()  # every option has a default
    documented = documented_fields(source_of(cls), cls.__name__)
    assert {field.name for field in fields(cls)} <= documented.keys()
    assert all(text.strip() for text in documented.values())


def documented_fields(source: Path, cls: str) -> dict[str, str]:
    """Annotated names of a class that are followed by a string."""
    classes = (n for n in ast.parse(source.read_text("utf-8")).body if isinstance(n, ast.ClassDef))
    body = next(c.body for c in classes if c.name == cls)
    return {
        a.target.id: b.value.value
        for a, b in pairwise(body)
        if isinstance(a, ast.AnnAssign)
        and isinstance(a.target, ast.Name)
        and isinstance(b, ast.Expr)
        and isinstance(b.value, ast.Constant)
        and isinstance(b.value.value, str)
    }


@pytest.mark.parametrize(("name", "cls"), PASSES, ids=IDS)
def test_every_code_has_a_row(name: str, cls: type[Pass]) -> None:
    """And the pass yields no code that it does not declare: the rows are run by its own tests."""
    rows = [row.code for row in own_tests(name).REFUSALS]
    assert sorted(rows) == sorted(cls.codes)
    written, passed_on = codes_in(source_of(cls))
    assert written <= set(cls.codes)
    assert passed_on or written == set(cls.codes)


def codes_in(source: Path) -> tuple[set[str], bool]:
    """Literal first arguments of ``Check(...)`` and ``Check.keep(...)`` in a file; whether there are others too."""
    calls = [n for n in ast.walk(ast.parse(source.read_text("utf-8"))) if isinstance(n, ast.Call)]
    codes = [c.args[0] for c in calls if ast.unparse(c.func) in ("Check", "Check.keep")]
    literal = [code for code in codes if isinstance(code, ast.Constant)]
    return {ast.literal_eval(code) for code in literal}, len(literal) < len(codes)


@pytest.mark.parametrize(("name", "cls"), PASSES, ids=IDS)
def test_it_has_a_card_and_a_line_in_the_catalogue(name: str, cls: type[Pass]) -> None:
    card = (DOCS / "passes" / f"{name}.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    named = set(re.findall(r"`([^`\n]+)`", card))
    assert set(cls.codes) <= named
    assert {field.name for field in fields(cls)} <= named
    assert f"`{cls.contract}" in card
    catalogue = (ROOT / "passes" / "README.md").read_text(encoding="utf-8")
    lines = [line for line in catalogue.splitlines() if line.startswith(f"| [`{name}`](../docs/passes/{name}.md) |")]
    assert len(lines) == 1
    assert f"| {cls.contract} |" in lines[0]


def test_the_list_of_codes_is_complete() -> None:
    """docs/codes.md explains every code that can be reported, and of the compiler's own the one about passes."""
    wanted = set(PLANNING) | set(feasibility.CODES) | {"new-parameters"}
    for _, cls in PASSES:
        wanted |= set(cls.codes)
    text = (DOCS / "codes.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(wanted)


def test_the_codes_of_planning_are_those_in_its_source() -> None:
    source = ROOT / "padrewrite" / "planning.py"
    assert codes_in(source)[0] | {"rewritten"} == PLANNING
    files = [ROOT / "padrewrite" / name for name in ("feasibility.py", "replacing.py")]
    assert set[str]().union(*(codes_in(file)[0] for file in files)) == set(feasibility.CODES)


@pytest.mark.parametrize("name", IDS)
def test_planning_is_deterministic_and_changes_nothing(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(2, 3, 8, 9)
    plans = [pr.plan(model, [name], example_inputs=x, allow_no_effect=True).to_json() for _ in range(2)]
    assert plans[0] == plans[1]
    assert model.training
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("name", IDS)
def test_a_plan_survives_json(name: str) -> None:
    plan = pr.plan(nn.Conv2d(3, 4, 3, padding=1), [name], example_inputs=torch.randn(2, 3, 8, 9), allow_no_effect=True)
    again = pr.Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
