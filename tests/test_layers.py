"""The architecture, read off the source: who may import whom, and which file owns which kind of knowledge."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGINE = "padrewrite"
PLUGIN = "padrewrite_passes"

# A unit is a file or folder of padrewrite/; "__init__" is the package itself, where the public functions are.
# Units import their own row and the rows above.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__about__", "errors", "settings", "formulas", "codec", "source"),
    ("ops",),
    ("nn",),
    ("graph", "normal_form", "row_words", "weights", "editing", "assembling"),
    ("recording",),
    ("analyses",),
    ("rewriting", "plans", "planning", "contracts", "selecting", "registry", "feasibility", "replacing", "edits"),
    ("writing", "checks", "emitting", "predicting"),
    ("reporting",),
    ("pipeline", "__init__"),
    ("cli", "benchmarking", "fuzzing", "drawing", "__main__"),
)

# Imports of a higher row that are meant: (importing file, imported unit) -> why.
UPWARD: dict[tuple[str, str], str] = {
    ("padrewrite/plans.py", "reporting"): "str(plan) is the table that reporting draws",
    ("padrewrite/checks/verification.py", "reporting"): "str(verification) is, too",
    ("padrewrite/analyses/analysis.py", "reporting"): "and so is str(analysis)",
    ("padrewrite/analyses/analysis.py", "selecting"): "what is not there is told with the closest names, as everywhere",
}

PUBLIC_FUNCTIONS = (
    *("transform", "analyze", "plan", "apply", "verify"),
    *("revert", "report", "record", "compile"),
)

BY_LITERAL_NAME = ("import_module", "__import__")

# The one file that reads the environment, and the one that defines errors.
ENVIRONMENT_OWNER = "padrewrite/settings.py"
ERRORS_OWNER = "padrewrite/errors.py"


@dataclass(frozen=True)
class Import:
    """One imported module or name, as a dotted path, with the line that imports it."""

    target: str
    line: int


def sources(package: str) -> list[Path]:
    """Every Python file of one of the two packages, sorted."""
    folder = {ENGINE: ROOT / ENGINE, PLUGIN: ROOT / "passes" / PLUGIN}[package]
    return sorted(folder.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def unit_of(path: Path) -> str:
    """The unit of padrewrite/ that a file belongs to."""
    return path.relative_to(ROOT / ENGINE).parts[0].removesuffix(".py")


def package_of(path: Path) -> list[str]:
    """The package that relative imports in ``path`` start from."""
    base = ROOT if path.is_relative_to(ROOT / ENGINE) else ROOT / "passes"
    return list(path.relative_to(base).parent.parts)


def imports(tree: ast.Module, package: list[str]) -> Iterator[Import]:
    """All imports of a file: at the top, inside functions, under TYPE_CHECKING, and by literal name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            yield from (Import(f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in BY_LITERAL_NAME:
            literals = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
            yield from (Import(name, node.lineno) for name in literals if isinstance(name, str))


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for a chain of names, else ``""``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def imported_unit(target: str) -> str | None:
    """The unit of padrewrite/ that a dotted path leads to; None outside the engine."""
    first, *rest = target.split(".")
    if first != ENGINE:
        return None
    return rest[0] if rest and rest[0] in units() else "__init__"


@cache
def units() -> frozenset[str]:
    return frozenset(unit_of(path) for path in sources(ENGINE))


def layer_of(unit: str) -> int:
    rows = [i for i, row in enumerate(LAYERS) if unit in row]
    assert rows, f"{ENGINE}/{unit} has no place in LAYERS"
    return rows[0]


@cache
def edges() -> tuple[tuple[Path, int, str], ...]:
    """(file, line, imported unit) for each import of one unit of padrewrite by another."""
    found = [
        (path, entry.line, target)
        for path in sources(ENGINE)
        for entry in imports(tree_of(path), package_of(path))
        if (target := imported_unit(entry.target)) is not None and target != unit_of(path)
    ]
    return tuple(found)


def test_every_unit_has_one_layer() -> None:
    placed = [unit for row in LAYERS for unit in row]
    assert len(placed) == len(set(placed))
    assert units() <= set(placed), "new files and folders of padrewrite/ belong in LAYERS"


def test_units_import_downward() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {target}, a layer above"
        for path, line, target in edges()
        if layer_of(target) > layer_of(unit_of(path)) and (relative(path), target) not in UPWARD
    ]
    assert not wrong, "\n".join(wrong)


def test_upward_exceptions_are_still_needed() -> None:
    upward = {(relative(p), target) for p, _, target in edges() if layer_of(target) > layer_of(unit_of(p))}
    assert set(UPWARD) <= upward


def test_units_of_one_layer_have_no_cycle() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    for path, _, target in edges():
        if (relative(path), target) not in UPWARD:
            graph.add_edge(unit_of(path), target)
    cycles = [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]
    assert not cycles, f"units that import each other: {cycles}"


def test_engine_never_imports_the_passes() -> None:
    wrong = [
        f"{relative(path)}:{entry.line} imports {entry.target}"
        for path in sources(ENGINE)
        for entry in imports(tree_of(path), package_of(path))
        if entry.target.split(".")[0] in {PLUGIN, "passes"}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_bears_a_public_functions_name() -> None:
    """``import padrewrite.report`` would replace the function ``padrewrite.report`` by a module."""
    paths = [p for p in (ROOT / ENGINE).rglob("*") if "__pycache__" not in p.parts]
    assert not [relative(p) for p in paths if p.name.split(".")[0] in PUBLIC_FUNCTIONS]


@pytest.mark.parametrize("package", [ENGINE, PLUGIN])
def test_one_file_reads_the_environment(package: str) -> None:
    wrong = [
        f"{relative(path)}:{line} uses {name}"
        for path in sources(package)
        if relative(path) != ENVIRONMENT_OWNER
        for name, line in environment_uses(tree_of(path), package_of(path))
    ]
    assert not wrong, "\n".join(wrong)


def environment_uses(tree: ast.Module, package: list[str]) -> Iterator[tuple[str, int]]:
    """Where a file touches the process environment, under whatever name it imported os."""
    names = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"}
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "os"
    }
    yield from ((entry.target, entry.line) for entry in imports(tree, package) if entry.target in names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            name = f"os.{node.attr}"
            if name in names:
                yield name, node.lineno


@pytest.mark.parametrize("package", [ENGINE, PLUGIN])
def test_one_file_defines_the_errors(package: str) -> None:
    wrong = [
        f"{relative(path)}:{line} defines {name}"
        for path in sources(package)
        if relative(path) != ERRORS_OWNER
        for name, line in exception_classes(tree_of(path))
    ]
    assert not wrong, "\n".join(wrong)


def exception_classes(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Classes with a base that is an exception: a builtin, one of padrewrite's, or one named like one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {dotted(base).split(".")[-1] for base in node.bases}
            if any(is_exception_name(base) for base in bases):
                yield node.name, node.lineno


def is_exception_name(name: str) -> bool:
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, BaseException):
        return True
    return name in own_errors() or name.endswith(("Error", "Exception", "Warning"))


@cache
def own_errors() -> frozenset[str]:
    return frozenset(n.name for n in tree_of(ROOT / ERRORS_OWNER).body if isinstance(n, ast.ClassDef))


SAMPLE = """
from typing import TYPE_CHECKING
import os as system
from os import getenv
from .. import errors
from ..ops.conv import Conv
if TYPE_CHECKING:
    import padrewrite.reporting
def late():
    from padrewrite import report
    import_module("padrewrite_passes.partial_padding")
    return system.environ["HOME"]
class Odd(SiteMismatch): ...
class Plain(KeyError): ...
class Fine(dict): ...
"""


def test_the_reader_sees_every_form() -> None:
    """Rules that see no import pass on any tree: here each form is found."""
    tree = ast.parse(SAMPLE)
    targets = [entry.target for entry in imports(tree, [ENGINE, "writing"])]
    assert sorted(targets) == [
        "os",
        "os.getenv",
        "padrewrite.errors",
        "padrewrite.ops.conv.Conv",
        "padrewrite.report",
        "padrewrite.reporting",
        "padrewrite_passes.partial_padding",
        "typing.TYPE_CHECKING",
    ]
    assert [name for name, _ in environment_uses(tree, [])] == ["os.getenv", "os.environ"]
    assert [name for name, _ in exception_classes(tree)] == ["Odd", "Plain"]
    assert imported_unit("padrewrite.errors") == "errors"
    assert imported_unit("padrewrite.report") == "__init__"
    assert imported_unit("torch.nn") is None
    assert edges()
