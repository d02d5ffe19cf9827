"""What a benchmark found: plain records, their JSON and their text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult

from padrewrite.benchmarking.comparing import Comparison, Timing
from padrewrite.benchmarking.intervals import Estimate
from padrewrite.benchmarking.machine import Machine
from padrewrite.benchmarking.tables import markdown, plain_text, renderables

SCHEMA = "padrewrite.bench/1"


@dataclass(frozen=True)
class Structure:
    """Counts of one variant that no noise can touch. None: not measured in this case."""

    graphs: int | None = None
    """Graphs that Dynamo handed to the compiler on the first call."""
    graph_breaks: int | None = None
    recompiles: int | None = None
    """Graphs compiled after the first call, at unchanged sizes: should be 0."""
    kernels: int | None = None
    """Kernels that Inductor generated (library calls such as convolutions are not among them)."""
    compile_seconds: float | None = None
    """First call minus the median of the later ones; compile caches cold, compiler warm."""
    saved_bytes: int | None = None
    """Bytes that autograd kept for backward in an eager training step, parameters and inputs apart."""
    peak_bytes: int | None = None
    """CUDA: peak of allocated bytes during a step, above what was allocated before it."""


@dataclass(frozen=True)
class Case:
    """One mode and phase, measured on fresh copies of both models."""

    mode: str
    phase: str
    comparison: Comparison
    structures: Mapping[str, Structure]


@dataclass(frozen=True)
class BenchReport:
    """Original against rewritten model, one case per mode and phase."""

    machine: Machine
    device: str
    """``cpu`` or ``cuda``."""
    dtype: str
    """Floating point type of the parameters, e.g. ``float32``; several are joined by ``+``."""
    channels_last: bool
    sizes: tuple[tuple[int, ...], ...]
    """Shape of every input tensor."""
    rounds: int
    warmup: int
    cases: tuple[Case, ...]

    def case(self, mode: str, phase: str) -> Case:
        """The case of a mode and a phase.

        Raises:
            KeyError: it was not measured.
        """
        for case in self.cases:
            if (case.mode, case.phase) == (mode, phase):
                return case
        raise KeyError(f"no case ({mode}, {phase}); there are {[(c.mode, c.phase) for c in self.cases]}")

    def to_json(self, *, raw: bool = False) -> str:
        """JSON of schema ``padrewrite.bench/1``: times in seconds, memory in bytes, keys sorted.

        Args:
            raw: also every round's seconds, in the order they ran.
        """
        content = {
            "schema": SCHEMA,
            "machine": asdict(self.machine),
            "device": self.device,
            "dtype": self.dtype,
            "channels_last": self.channels_last,
            "sizes": self.sizes,
            "rounds": self.rounds,
            "warmup": self.warmup,
            "cases": [_case_json(case, raw) for case in self.cases],
        }
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False)

    def to_markdown(self) -> str:
        """The same tables as text, for documents."""
        return markdown(self)

    def __str__(self) -> str:
        return plain_text(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from renderables(self)


def _case_json(case: Case, raw: bool) -> dict[str, Any]:
    variants = [_timing_json(timing, case.structures[timing.name], raw) for timing in case.comparison.timings]
    return {"mode": case.mode, "phase": case.phase, "variants": variants}


def _timing_json(timing: Timing, structure: Structure, raw: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": timing.name,
        "seconds": _estimate_json(timing.median),
        "ratio": _estimate_json(timing.ratio),
        "first_iteration": {
            "seconds": _estimate_json(timing.first),
            "ratio": _estimate_json(timing.first_ratio),
            "pairs": timing.pairs,
        },
        "structure": asdict(structure),
    }
    if raw:
        content["rounds"] = list(timing.seconds)
    return content


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {
        "median": estimate.value,
        "interval": [estimate.low, estimate.high],
        "coverage": estimate.coverage,
    }
