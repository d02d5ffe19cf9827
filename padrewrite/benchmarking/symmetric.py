"""Symmetric convolutions in training: each formulation against the plain even kernel and against 3x3.

The network is a chain of blocks, batch norm and ReLU and a convolution that keeps channels and size: compiled, one
training step, all variants in turn within each round.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from torch import Tensor, nn

from padrewrite.benchmarking.clocks import read_device
from padrewrite.benchmarking.comparing import Comparison, compare
from padrewrite.benchmarking.compiled import Compiled, warm_compiler
from padrewrite.benchmarking.intervals import Estimate, estimate_median, paired_ratios
from padrewrite.benchmarking.machine import Machine, describe_machine
from padrewrite.benchmarking.memory import saved_bytes
from padrewrite.benchmarking.steps import Call, Setting, make_step, private_copy
from padrewrite.benchmarking.tables import grid
from padrewrite.ops.formulations import FORMULATIONS, Row
from padrewrite.ops.symmetric import symmetric_conv

SCHEMA = "padrewrite.bench-symmetric/1"
PLAIN, ODD = "2x2 padded", "3x3"
Convolve = Callable[[Tensor, Tensor], Tensor]


def _plain(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight)


def _odd(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def _symmetric(formulation: str) -> Convolve:
    return lambda x, weight: symmetric_conv(x, weight, formulation=formulation)


VARIANTS: Mapping[str, tuple[int, Convolve]] = {
    PLAIN: (2, _plain),
    ODD: (3, _odd),
    **{name: (2, _symmetric(name)) for name in FORMULATIONS},
}
"""Kernel size and convolution by name; the first is what ratios are of."""


class Blocks(nn.Module):
    """Batch norm, ReLU and a convolution, ``depth`` times."""

    def __init__(self, variant: str, channels: int, depth: int) -> None:
        super().__init__()
        kernel, self._conv = VARIANTS[variant]
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(depth))
        scale = (2 / (channels * kernel**2)) ** 0.5
        shape = (channels, channels, kernel, kernel)
        self.weights = nn.ParameterList(nn.Parameter(scale * torch.randn(shape)) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for norm, weight in zip(self.norms, self.weights):
            x = self._conv(F.relu(norm(x)), weight)
        return x


@dataclass(frozen=True)
class SymmetricCase:
    """All variants at one number of channels and one size of map."""

    channels: int
    size: int
    comparison: Comparison
    kernels: Mapping[str, int]
    """Loop nests that Inductor generated."""
    saved: Mapping[str, int]
    """Bytes kept for backward by an eager step, parameters and inputs apart."""

    def to_odd(self, name: str) -> Estimate:
        """The ratio of a variant's time to that of 3x3 in the same round."""
        return estimate_median(paired_ratios(self.comparison[name].seconds, self.comparison[ODD].seconds))

    @property
    def fastest(self) -> str:
        return min(FORMULATIONS, key=lambda name: self.comparison[name].ratio.value)


@dataclass(frozen=True)
class SymmetricBench:
    """What was measured, on which machine."""

    machine: Machine
    device: str
    channels_last: bool
    batch: int
    depth: int
    cases: tuple[SymmetricCase, ...]

    def rows(self) -> tuple[Row, ...]:
        """The table of the fastest formulations, from 0 channels on."""
        layout = "channels_last" if self.channels_last else "contiguous"
        rows: list[Row] = []
        for case in sorted(self.cases, key=lambda case: case.channels):
            if not rows or rows[-1].formulation != case.fastest:
                rows.append(Row(self.device, layout, case.channels if rows else 0, case.fastest))
        return tuple(rows)

    def to_json(self) -> str:
        """JSON of schema ``padrewrite.bench-symmetric/1``; keys sorted."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, sort_keys=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        form = ", channels last" if self.channels_last else ""
        yield Text(
            f"{self.machine}, compiled training step of {self.depth} blocks, batch {self.batch}{form}",
            style="bold",
        )
        columns = ("channels", "map", "variant", "median ms", f"to {PLAIN}", "95 %", f"to {ODD}", "kernels", "saved MB")
        yield grid(columns, [row for case in self.cases for row in _rows(case)], words=3)


def _rows(case: SymmetricCase) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for timing in case.comparison.timings:
        ratio = timing.ratio
        found.append(
            (
                *(str(case.channels), f"{case.size}x{case.size}", timing.name, f"{timing.median.value * 1e3:.1f}"),
                *(f"{ratio.value:.3f}", f"{ratio.low:.3f}..{ratio.high:.3f}", f"{case.to_odd(timing.name).value:.3f}"),
                *(str(case.kernels[timing.name]), f"{case.saved[timing.name] / 1e6:.2f}"),
            )
        )
    return found


def bench_symmetric(
    sizes: Sequence[tuple[int, int]],
    *,
    batch: int = 8,
    depth: int = 2,
    rounds: int = 20,
    warmup: int = 3,
    device: str | torch.device = "cpu",
    channels_last: bool = False,
    threads: int | None = None,
    variants: Sequence[str] = tuple(VARIANTS),
) -> SymmetricBench:
    """Measures a compiled training step of every variant at each (channels, height = width) of ``sizes``.

    Raises:
        InputsError: a device that is not there, a number out of range, or no working compiler.
        ModelError: a variant failed.
    """
    setting = Setting(read_device(device), None, channels_last)
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        warm_compiler(setting.device)
        with torch.random.fork_rng(devices=[setting.device] if setting.device.type == "cuda" else []):
            cases = tuple(_case(c, n, batch, depth, rounds, warmup, setting, variants) for c, n in sizes)
        machine = describe_machine(setting.device)
    finally:
        torch.set_num_threads(before)
    return SymmetricBench(machine, setting.device.type, channels_last, batch, depth, cases)


def _case(
    channels: int,
    size: int,
    batch: int,
    depth: int,
    rounds: int,
    warmup: int,
    setting: Setting,
    variants: Sequence[str],
) -> SymmetricCase:
    torch._dynamo.reset()
    torch.manual_seed(0)
    x = torch.randn(batch, channels, size, size, device=setting.device)
    call = Call((x.contiguous(memory_format=torch.channels_last) if setting.channels_last else x,))
    models = {name: private_copy(name, Blocks(name, channels, depth), setting) for name in variants}
    saved = {name: _saved(name, model, call) for name, model in models.items()}
    compiled = {name: Compiled(model) for name, model in models.items()}
    steps = {name: make_step(name, models[name], call, "train", forward=one.forward) for name, one in compiled.items()}
    comparison = compare(
        steps,
        rounds=rounds,
        warmup=warmup,
        device=setting.device,
        around_first=lambda name: compiled[name].cold(),
        label=f"bench symmetric {channels}x{size}",
    )
    kernels = {name: one.kernels for name, one in compiled.items()}
    return SymmetricCase(channels, size, comparison, kernels, saved)


def _saved(name: str, model: nn.Module, call: Call) -> int:
    step: Any = make_step(name, model, call, "train")
    return saved_bytes(step, model, (call.args, call.kwargs))
