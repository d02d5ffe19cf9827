"""One network in a process of its own: its memory goes when it ends, and one that takes too long is killed."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ..catalogue import Entry
from .rows import Failure, Row

TESTS = Path(__file__).resolve().parents[2]
PATIENCE = 4
"""Times its limit that a process may take in all, on a machine that is busy with others."""
ENDED_FROM_OUTSIDE = (-signal.SIGINT, -signal.SIGTERM)


class Interrupted(Exception):
    """The process was ended from outside; that says nothing about the network."""


def run_apart(entry: Entry, limit: float) -> Row:
    """The row of ``entry``, measured in a new process of at most ``limit`` seconds of processor time.

    Raises:
        Interrupted.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "zoo.sweep", "--measure", entry.name, "--out", str(out)]
        return _row_of(entry, [*command, "--limit", str(limit)], out, PATIENCE * limit)


def limit_processor_time(seconds: float) -> None:
    """Has the system end this process once it has used so much."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))


def _row_of(entry: Entry, command: list[str], out: Path, limit: float) -> Row:
    """The row that ``command`` leaves in ``out``, or a row that says how it ended instead."""
    silent, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(
        command, env=_environment(), stdin=silent, stdout=silent, stderr=pipe, text=True, errors="replace"
    ) as process:
        try:
            _, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return _failed(entry, "timed out", f"not done after {limit:g} s")
        finally:
            process.kill()
    if process.returncode in ENDED_FROM_OUTSIDE:
        raise Interrupted(entry.name)
    if out.exists():
        return Row.from_json(json.loads(out.read_text(encoding="utf-8")))
    if process.returncode == -signal.SIGXCPU:
        return _failed(entry, "timed out", "it used up its processor time")
    if process.returncode < 0:
        return _failed(entry, "killed", f"by signal {signal.Signals(-process.returncode).name}")
    last = (errors.strip().splitlines() or ["it said nothing"])[-1]
    return _failed(entry, "ended early", f"exit status {process.returncode}: {last[:200]}")


def _failed(entry: Entry, error: str, message: str) -> Row:
    return Row(
        entry.name, entry.network.package or "", failures=(Failure("process", error, message),), seconds={}
    )


def _environment() -> dict[str, str]:
    """One thread, warnings silenced, and the tests folder on the path."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": path}
