"""How often a model is compiled when its input size keeps changing."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch._dynamo
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text
from torch import nn
from torch._dynamo import config

from padrewrite.benchmarking.clocks import read_device
from padrewrite.benchmarking.compiled import CountingBackend, count_graph_breaks
from padrewrite.benchmarking.steps import Setting, private_copy
from padrewrite.benchmarking.tables import grid, render
from padrewrite.errors import InputsError, ModelError

SCHEMA = "padrewrite.bench-sizes/1"

Forward = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class SizeCounts:
    """Compiled graphs of one variant."""

    per_size: tuple[int, ...]
    """Graphs compiled at each size, in the order given. With automatic dynamic shapes a healthy model of one
    graph compiles at the first size, once more at the second, and never again."""
    repeats: int
    """Graphs compiled in a second pass over the same sizes: should be 0."""
    graph_breaks: int

    @property
    def compiles(self) -> int:
        return sum(self.per_size) + self.repeats


@dataclass(frozen=True)
class SizeSweep:
    """Compile counts of the original and the rewritten model over the same sizes."""

    sizes: tuple[tuple[int, ...], ...]
    backend: str
    dynamic: bool | None
    counts: Mapping[str, SizeCounts]

    @property
    def compiles(self) -> dict[str, int]:
        """Graphs compiled in all, by variant."""
        return {name: count.compiles for name, count in self.counts.items()}

    def to_json(self) -> str:
        """JSON of schema ``padrewrite.bench-sizes/1``, keys sorted."""
        variants = [
            {
                "name": name,
                "compiles": count.compiles,
                "per_size": count.per_size,
                "repeats": count.repeats,
                "graph_breaks": count.graph_breaks,
            }
            for name, count in self.counts.items()
        ]
        content = {
            "schema": SCHEMA,
            "sizes": self.sizes,
            "backend": self.backend,
            "dynamic": self.dynamic,
            "variants": variants,
        }
        return json.dumps(content, indent=2, sort_keys=True)

    def __str__(self) -> str:
        return render(self._parts())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._parts()

    def _parts(self) -> Iterator[RenderableType]:
        yield Text(f"{len(self.sizes)} input sizes, backend {self.backend}, dynamic={self.dynamic}", style="bold")
        columns = ("variant", "at the first size", "at the second", "later", "repeated sizes", "graph breaks")
        rows = [(name, *_cells(count)) for name, count in self.counts.items()]
        yield grid(columns, rows, words=1)


def _cells(count: SizeCounts) -> tuple[str, ...]:
    first, second = count.per_size[:2]
    return tuple(map(str, (first, second, sum(count.per_size[2:]), count.repeats, count.graph_breaks)))


def bench_size_sweep(
    model: nn.Module,
    rewritten: nn.Module,
    sizes: Sequence[Sequence[int]],
    *,
    backend: str = "inductor",
    dynamic: bool | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SizeSweep:
    """Count the compiles of both models while the input takes each of ``sizes``, then each of them again.

    Inference without grad, on private copies. Dynamo's recompile limit is lifted meanwhile, so that the
    counts do not stop at it.

    Args:
        model: the original, with one tensor as input.
        rewritten: its rewritten form.
        sizes: full input shapes, e.g. ``[(1, 3, 224, 224), (1, 3, 256, 256)]``; at least two.
        backend: name of a Dynamo backend. ``"inductor"`` counts what users meet; ``"eager"`` is quick and
            sees Dynamo's guards but not those that lowering adds.
        dynamic: as for torch.compile; None is its default, static at first and dynamic from the second size
            on.
        device: where to run.
        dtype: of the input, and of the copies' parameters.

    Raises:
        InputsError: fewer than two sizes, or the original does not take one of them.
        ModelError: the rewritten model does not take one of them.
    """
    shapes = tuple(tuple(int(n) for n in size) for size in sizes)
    if len(shapes) < 2:
        raise InputsError(f"bench_size_sweep wants at least two sizes, got {len(shapes)}.")
    setting = Setting(read_device(device), dtype)
    counts: dict[str, SizeCounts] = {}
    for name, given in (("original", model), ("rewritten", rewritten)):
        twin = private_copy(name, given, setting).eval()
        with _without_recompile_limit():
            counts[name] = _count(name, twin, shapes, backend, dynamic, setting)
    return SizeSweep(shapes, backend, dynamic, counts)


def _count(
    name: str,
    twin: nn.Module,
    shapes: tuple[tuple[int, ...], ...],
    backend: str,
    dynamic: bool | None,
    setting: Setting,
) -> SizeCounts:
    # Eagerly first: a size that the model does not take is then told in few words.
    for shape in shapes:
        _run(name, twin, shape, setting)
    torch._dynamo.reset()
    counting = CountingBackend(backend)
    compiled = cast("Forward", torch.compile(twin, backend=counting, dynamic=dynamic))
    breaks = count_graph_breaks()
    totals: list[int] = [0]
    for shape in (*shapes, *shapes):
        _run(name, compiled, shape, setting)
        totals.append(counting.graphs)
    steps = tuple(after - before for before, after in pairwise(totals))
    return SizeCounts(
        per_size=steps[: len(shapes)],
        repeats=sum(steps[len(shapes) :]),
        graph_breaks=count_graph_breaks() - breaks,
    )


def _run(name: str, forward: Forward, shape: tuple[int, ...], setting: Setting) -> None:
    try:
        with torch.no_grad():
            forward(torch.zeros(shape, device=setting.device, dtype=setting.dtype))
    except Exception as error:
        kind = InputsError if name == "original" else ModelError
        raise kind(f"bench sizes: '{name}' failed at {shape}: {type(error).__name__}: {error}") from error


@contextmanager
def _without_recompile_limit() -> Generator[None, None, None]:
    unlimited = 1_000_000
    with config.patch(recompile_limit=unlimited, accumulated_recompile_limit=unlimited):
        yield
