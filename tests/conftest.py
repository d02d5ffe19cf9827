"""Settings of the whole suite: hypothesis profiles, random numbers, threads, what a machine cannot run."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, register_random, settings

_SLOW_IS_FINE = [HealthCheck.too_slow]

settings.register_profile(
    "ci", derandomize=True, database=None, deadline=None, max_examples=30, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "nightly", deadline=None, max_examples=1000, print_blob=True, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile("dev", deadline=None, max_examples=10, suppress_health_check=_SLOW_IS_FINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


class _TorchRandom:
    """torch's generator as hypothesis sees it: seeded before each example, so that failures replay."""

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def getstate(self) -> torch.Tensor:
        return torch.get_rng_state()

    def setstate(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)


# hypothesis holds what it is given weakly.
_TORCH_RANDOM = _TorchRandom()
register_random(_TORCH_RANDOM)

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores already.
    torch.set_num_threads(1)


def _missing_for_compile() -> str | None:
    """What Inductor's CPU kernels are built with and this machine lacks."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        return "a C++ compiler"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "the Python headers"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="no CUDA device: torch.cuda.is_available() is false")
    missing = _missing_for_compile()
    no_compile = pytest.mark.skip(reason=f"torch.compile needs {missing}")
    gpu = torch.cuda.is_available()
    for item in items:
        if "gpu" in item.keywords and not gpu:
            item.add_marker(no_gpu)
        if "compile" in item.keywords and missing:
            item.add_marker(no_compile)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _clean_dynamo(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiled code outlives a test in Dynamo's caches, and would count as the next one's recompiles."""
    yield
    if request.node.get_closest_marker("compile"):
        torch._dynamo.reset()
