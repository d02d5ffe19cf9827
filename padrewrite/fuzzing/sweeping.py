"""Checking many seeds, one after the other or in several processes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

from padrewrite.fuzzing.checking import Passes, check_network
from padrewrite.fuzzing.results import Result


def can_share_out() -> bool:
    """Whether joblib is there, which ``jobs`` above 1 need (the extra ``sweep``)."""
    return importlib.util.find_spec("joblib") is not None


def sweep(seeds: Sequence[int], passes: Passes | None = None, jobs: int = 1) -> Iterator[Result]:
    """One result per seed, in order, as they come. The results do not depend on ``jobs``."""
    if jobs == 1 or not can_share_out():
        yield from (check_network(seed, passes) for seed in seeds)
        return
    import joblib

    parallel: Any = joblib.Parallel(n_jobs=jobs, return_as="generator")
    yield from parallel(joblib.delayed(check_network)(seed, passes) for seed in seeds)
