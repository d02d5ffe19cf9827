"""Compiling a model from cold, and counting what the compiler made of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import metrics
from torch._inductor.utils import fresh_cache

from padrewrite.errors import InputsError


class CountingBackend:
    """A Dynamo backend that counts the graphs it is given and hands them on.

    One instance per variant also keeps the variants' cache entries apart: a rewritten model may share its
    forward's code object with the original.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self._compile = cast("Callable[..., Callable[..., Any]]", torch._dynamo.lookup_backend(backend))
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return self._compile(graph, example_inputs)


class Compiled:
    """A model compiled by torch.compile's default compiler, with counts.

    Graphs, breaks and kernels are those of the code that ran inside `cold`; `recompiles` are graphs made
    afterwards.
    """

    def __init__(self, model: nn.Module) -> None:
        self._backend = CountingBackend()
        self.forward = cast("Callable[..., object]", torch.compile(model, backend=self._backend))
        self.graphs = 0
        self.graph_breaks = 0
        self.kernels = 0

    @property
    def recompiles(self) -> int:
        return self._backend.graphs - self.graphs

    @contextmanager
    def cold(self) -> Generator[None, None, None]:
        """For the first call: compile caches are empty, so that no variant profits from another one's."""
        kernels, breaks = metrics.generated_kernel_count, count_graph_breaks()
        with _empty_caches():
            yield
        self.graphs = self._backend.graphs
        self.kernels = metrics.generated_kernel_count - kernels
        self.graph_breaks = count_graph_breaks() - breaks


def count_graph_breaks() -> int:
    """Graph breaks of this process so far."""
    return sum(counters["graph_break"].values())


def warm_compiler(device: torch.device) -> None:
    """Compile something tiny, both ways: the first compile in a process pays imports and tool start-up.

    Raises:
        InputsError: torch.compile does not work here at all, e.g. for want of a C++ compiler.
    """
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).to(device)
    try:
        with _empty_caches():
            forward = cast("Callable[..., torch.Tensor]", torch.compile(net))
            torch.autograd.backward(forward(torch.ones(2, 1, 8, 8, device=device)).sum())
    except Exception as error:
        raise InputsError(
            f"bench: torch.compile fails here ({type(error).__name__}: {error}); try modes=('eager',)."
        ) from error
    finally:
        torch._dynamo.reset()


@contextmanager
def _empty_caches() -> Generator[None, None, None]:
    # fresh_cache alone leaves its folder behind when something fails in it.
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, fresh_cache(dir=folder):
        yield
