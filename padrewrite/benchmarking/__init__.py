"""An original model measured against its rewritten form: interleaved timing and structural counts."""

from __future__ import annotations

from padrewrite.benchmarking.comparing import Comparison, Timing, compare
from padrewrite.benchmarking.intervals import Estimate
from padrewrite.benchmarking.machine import Machine
from padrewrite.benchmarking.results import BenchReport, Case, Structure
from padrewrite.benchmarking.running import run_bench
from padrewrite.benchmarking.sizes import SizeSweep, bench_size_sweep

__all__ = [
    "BenchReport",
    "Case",
    "Comparison",
    "Estimate",
    "Machine",
    "SizeSweep",
    "Structure",
    "Timing",
    "bench_size_sweep",
    "compare",
    "run_bench",
]
