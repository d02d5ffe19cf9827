"""Results on disk: one JSON file a network, believed only while what made it is unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..catalogue import Entry
from .rows import Row

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".zoo-cache"

_ENGINE = ("padrewrite", "passes/padrewrite_passes")
_MEASURE = ("networks.py", "counting.py", "test_networks.py", "sweeping/measuring.py", "sweeping/rows.py")
_PACKAGES = ("torch", "pytorchcv", "monai", "efficientnet_pytorch")


def state_of_sources(root: Path = ROOT) -> str:
    """A hash of everything but the catalogue that a result depends on: engine, passes, measurement, packages."""
    digest = hashlib.sha256()
    files = [path for folder in _ENGINE for path in sorted((root / folder).rglob("*.py"))]
    files += [root / "tests" / "zoo" / name for name in _MEASURE]
    for path in files:
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for package in _PACKAGES:
        digest.update(f"{package} {_version(package)}\0".encode())
    digest.update(".".join(platform.python_version_tuple()[:2]).encode())
    return digest.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


class Cache:
    """The results of one state of the sources. Files of another state count as absent and are overwritten."""

    def __init__(self, folder: Path = FOLDER, state: str | None = None) -> None:
        self.folder = folder
        self.state = state or state_of_sources()

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def load(self, entry: Entry) -> Row | None:
        """The kept row, or None if there is none for this state and this way of building the network."""
        try:
            data = json.loads(self.path(entry.name).read_text(encoding="utf-8"))
            if data["state"] == self.state and data["spec"] == entry.spec:
                return Row.from_json(data["row"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # a missing or damaged file is measured again
        return None

    def store(self, entry: Entry, row: Row) -> None:
        """Keeps a row; a reader never meets half a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = {"state": self.state, "spec": entry.spec, "row": row.to_json()}
        beside = self.path(entry.name).with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps(data, indent=1, sort_keys=True), encoding="utf-8")
        beside.replace(self.path(entry.name))

    def missing(self, entries: Iterable[Entry]) -> list[Entry]:
        """The entries that have no result."""
        return [entry for entry in entries if self.load(entry) is None]
