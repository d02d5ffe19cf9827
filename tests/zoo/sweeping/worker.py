"""One network in a process of its own: its memory goes when it ends, and one that takes too long is killed."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..catalogue import ENTRIES, Entry
from .rows import Failure, Row

_PROCESSES = multiprocessing.get_context("forkserver")
# Each network's process is forked from one that has imported all this, which takes longer than most networks do.
_PROCESSES.set_forkserver_preload(
    ["zoo.sweeping.measuring", "torch._dynamo", "torch._refs", "monai.networks.nets", "joblib", "rich.progress"]
)

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
        return _row_of(entry, _measure, (entry.name, out, limit), out, PATIENCE * limit)


def _measure(name: str, out: Path, limit: float) -> None:
    """What the process of one network does."""
    limit_processor_time(limit)
    import torch

    from .measuring import measure

    torch.set_num_threads(1)
    row = measure(next(entry for entry in ENTRIES if entry.name == name).network)
    out.write_text(json.dumps(row.to_json()), encoding="utf-8")


def limit_processor_time(seconds: float) -> None:
    """Has the system end this process once it has used so much."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))


def _row_of(entry: Entry, target: Callable[..., object], args: tuple[Any, ...], out: Path, limit: float) -> Row:
    """The row that ``target`` leaves in ``out``, run apart, or a row that says how its process ended instead."""
    errors = out.with_suffix(".errors")
    process = _PROCESSES.Process(target=_quietly, args=(errors, target, args), daemon=True)
    process.start()
    process.join(limit)
    if process.exitcode is None:
        process.kill()
        process.join()
        return _failed(entry, "timed out", f"not done after {limit:g} s")
    code = process.exitcode
    process.close()
    if code in ENDED_FROM_OUTSIDE:
        raise Interrupted(entry.name)
    if out.exists():
        return Row.from_json(json.loads(out.read_text(encoding="utf-8")))
    if code == -signal.SIGXCPU:
        return _failed(entry, "timed out", "it used up its processor time")
    if code < 0:
        return _failed(entry, "killed", f"by signal {signal.Signals(-code).name}")
    last = (errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    return _failed(entry, "ended early", f"exit status {code}: {last[:200]}")


def _quietly(errors: Path, target: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Runs ``target`` with what it prints thrown away, and what it complains of in a file."""
    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    with errors.open("w") as stream:
        os.dup2(stream.fileno(), 2)
        target(*args)


def _failed(entry: Entry, error: str, message: str) -> Row:
    return Row(
        entry.name, entry.network.package or "", failures=(Failure("process", error, message),), seconds={}
    )
