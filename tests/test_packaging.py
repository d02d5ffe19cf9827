"""The wheel holds what it should, its entry points lead somewhere, and CI's environment is pinned."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import zipfile
from email import message_from_string
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# In the wheel -> in the source tree. `passes` itself is no package.
PACKAGES = {"padrewrite": ROOT / "padrewrite", "padrewrite_passes": ROOT / "passes" / "padrewrite_passes"}
PASSES = sorted(p.stem for p in PACKAGES["padrewrite_passes"].glob("*.py") if not p.name.startswith("_"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree, built by the installed hatchling: nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


def member(wheel: Path, name: str) -> str:
    """The text of ``<distribution>.dist-info/<name>``."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def entry_points(wheel: Path) -> list[EntryPoint]:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(member(wheel, "entry_points.txt"))
    return [EntryPoint(name, value, group) for group in parser for name, value in parser[group].items()]


def pins(environment: dict[str, str] | None = None) -> dict[str, str]:
    """constraints.txt as name -> version, for this interpreter or another environment."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if text := line.split("#")[0].strip():
            pin = Requirement(text)
            (spec,) = pin.specifier
            assert spec.operator == "==", line
            assert "*" not in spec.version, line
            assert "+" not in spec.version, f"{line}: a local build exists on one index only"
            if pin.marker is None or pin.marker.evaluate(environment):
                name = canonicalize_name(pin.name)
                assert name not in found, f"{name} is pinned twice"
                found[name] = spec.version
    return found


def test_wheel_holds_both_packages_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert {"padrewrite/py.typed", "padrewrite/__init__.py", "padrewrite_passes/__init__.py"} <= names


def test_wheel_runs_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = "import padrewrite, padrewrite_passes as p; print(padrewrite.__file__); print(p.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [str(tmp_path / name / "__init__.py") for name in PACKAGES]


def test_wheel_carries_the_licence(wheel: Path) -> None:
    metadata = message_from_string(member(wheel, "METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in member(wheel, "licenses/LICENSE")


def test_changelog_begins_with_the_version(wheel: Path) -> None:
    version = message_from_string(member(wheel, "METADATA"))["Version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == version


def test_entry_points_are_the_documented_ones(wheel: Path) -> None:
    found = {(entry.group, entry.name): entry.value for entry in entry_points(wheel)}
    assert found["console_scripts", "padrewrite"] == "padrewrite.cli:main"
    assert found["torch_dynamo_backends", "padrewrite"] == "padrewrite.emitting.backend:backend"
    assert ("padrewrite.passes", "partial-padding") in found
    assert ("padrewrite.passes", "padding-mode") in found


def test_entry_points_resolve(wheel: Path) -> None:
    broken: list[str] = []
    for entry in entry_points(wheel):
        try:
            loaded = entry.load()
        except (ImportError, AttributeError) as error:
            broken.append(f"{entry.group}: {entry.name} = {entry.value}: {error}")
        else:
            assert callable(loaded), entry
    assert not broken, "\n".join(broken)


def test_every_pass_file_is_registered(wheel: Path) -> None:
    """A pass is found through the entry point alone: a file without one is dead code."""
    registered = {e.name: e.module for e in entry_points(wheel) if e.group == "padrewrite.passes"}
    assert registered == {stem.replace("_", "-"): f"padrewrite_passes.{stem}" for stem in PASSES}


def test_torch_is_pinned_exactly() -> None:
    """An unpinned torch moves with its index, and its numbers with it."""
    assert re.fullmatch(r"2\.13\.0", pins()["torch"])


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_requirement_is_pinned_within_its_range(wheel: Path, version: str) -> None:
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    pinned = pins(environment)
    metadata = message_from_string(member(wheel, "METADATA"))
    required = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert len(required) > 10
    for requirement in required:
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} has no pin for Python {version}"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} against {pinned[name]}"


def test_networks_of_the_zoo_are_pinned() -> None:
    """They are installed by name with --no-deps, so no metadata of ours mentions them."""
    line = re.search(r"^NETS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None
    assert {canonicalize_name(name) for name in line[1].split()} <= pins().keys()
