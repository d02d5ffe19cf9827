"""run_bench: original against rewritten model, eager and compiled, in inference and in training."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch._dynamo
from torch import nn

from padrewrite.benchmarking.clocks import clock_for, read_device
from padrewrite.benchmarking.comparing import Comparison, Timing, compare, refine_first
from padrewrite.benchmarking.compiled import Compiled, warm_compiler
from padrewrite.benchmarking.machine import describe_machine
from padrewrite.benchmarking.memory import peak_bytes, saved_bytes
from padrewrite.benchmarking.results import BenchReport, Case, Structure
from padrewrite.benchmarking.steps import Call, Phase, Setting, Step, make_step, prepare_inputs, private_copy
from padrewrite.errors import InputsError, ModelError, PadrewriteError

Mode = Literal["eager", "compiled"]

_FIRST_PAIRS = 6
"""The fewest pairs whose extremes cover the median at 95 %. Compiled models have one: each is a compile."""

_ORIGINAL, _REWRITTEN = "original", "rewritten"


@dataclass(frozen=True)
class _Bench:
    """What all cases of a run have in common."""

    models: dict[str, nn.Module]
    inputs: Call
    setting: Setting
    rounds: int
    warmup: int

    def fresh(self) -> dict[str, nn.Module]:
        return {name: private_copy(name, model, self.setting) for name, model in self.models.items()}


def run_bench(
    model: nn.Module,
    rewritten: nn.Module,
    inputs: object,
    *,
    modes: Sequence[Mode] = ("eager", "compiled"),
    phases: Sequence[Phase] = ("eval", "train"),
    rounds: int = 20,
    warmup: int = 3,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    threads: int | None = None,
) -> BenchReport:
    """Measure a rewritten model against the original it came from.

    Both run on private copies: the models given, the inputs, the random state and the thread count stay as
    they are. Every case (mode and phase) starts from fresh copies, in a process that has already run both
    models once, so the first iteration shows what a model's own first call costs. Compiled cases start with
    ``torch._dynamo.reset()``, which makes other compiled models in the process compile again.

    Args:
        model: the original, the baseline of all ratios.
        rewritten: its rewritten form.
        inputs: a tensor, a tuple of positional arguments or a dict of keyword arguments for both models.
        modes: ``"eager"``, ``"compiled"`` (torch.compile with its default backend) or both.
        phases: ``"eval"`` (forward without grad), ``"train"`` (forward, mean-square loss over every output,
            backward, SGD step with learning rate 0) or both.
        rounds: timed rounds; each runs both models. At least 6 for intervals of 95 %.
        warmup: untimed rounds before.
        device: ``"cpu"`` or ``"cuda"``.
        dtype: floating point type to convert copies and inputs to; default as they are.
        channels_last: convert 4-D and 5-D parameters and inputs to the channels-last memory format.
        threads: intra-op threads of torch; default as set.

    Raises:
        InputsError: an argument out of range, a device that is not there, or inputs that the original does
            not take.
        ModelError: a model is not usable here, or fails where the original works; names the model and the
            case.
    """
    setting = Setting(read_device(device), dtype, channels_last)
    _check_options(modes, phases, rounds, warmup, threads)
    clock_for(setting.device)
    call = prepare_inputs(inputs, setting)
    bench = _Bench({_ORIGINAL: model, _REWRITTEN: rewritten}, call, setting, rounds, warmup)
    devices = [setting.device] if setting.device.type == "cuda" else []
    with _threads(threads), torch.random.fork_rng(devices=devices):
        if "compiled" in modes:
            warm_compiler(setting.device)
        cases = tuple(_run_case(bench, mode, phase) for mode in modes for phase in phases)
        return BenchReport(
            machine=describe_machine(setting.device),
            device=setting.device.type,
            dtype=_dtype_name(model, dtype),
            channels_last=channels_last,
            sizes=call.sizes(),
            rounds=rounds,
            warmup=warmup,
            cases=cases,
        )


def _run_case(bench: _Bench, mode: Mode, phase: Phase) -> Case:
    label = f"bench {mode} {phase}"
    saved = {name: _trial(label, name, twin, bench.inputs, phase) for name, twin in bench.fresh().items()}
    twins = bench.fresh()
    compiled: dict[str, Compiled] = {}
    if mode == "compiled":
        torch._dynamo.reset()
        compiled = {name: Compiled(twin) for name, twin in twins.items()}
    steps = {
        name: make_step(name, twin, bench.inputs, phase, forward=compiled[name].forward if compiled else None)
        for name, twin in twins.items()
    }
    comparison = compare(
        steps,
        rounds=bench.rounds,
        warmup=bench.warmup,
        device=bench.setting.device,
        around_first=lambda name: compiled[name].cold() if compiled else nullcontext(),
        label=label,
    )
    if mode == "eager":
        comparison = _first_calls(bench, comparison, phase, label)
    peaks = {name: peak_bytes(step, bench.setting.device) for name, step in steps.items()}
    structures = {
        name: _compiled_structure(compiled[name], comparison[name], peaks[name])
        if compiled
        else Structure(saved_bytes=saved[name], peak_bytes=peaks[name])
        for name in steps
    }
    return Case(mode, phase, comparison, structures)


def _trial(label: str, name: str, twin: nn.Module, inputs: Call, phase: Phase) -> int | None:
    """Run a throwaway copy once: finds errors early, warms the process, counts what training saves."""
    step = make_step(name, twin, inputs, phase)
    try:
        if phase == "train":
            return saved_bytes(step, twin, (inputs.args, inputs.kwargs))
        step()
        return None
    except PadrewriteError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        fact = f"{label}: '{name}' failed on inputs of sizes {list(inputs.sizes())}: {cause}"
        if name == _ORIGINAL:
            raise InputsError(
                f"{fact}. The original itself does not run so: check inputs, dtype and device."
            ) from error
        raise ModelError(f"{fact}. The original ran.") from error


def _first_calls(bench: _Bench, comparison: Comparison, phase: Phase, label: str) -> Comparison:
    def maker(name: str) -> Callable[[], Step]:
        return lambda: make_step(name, private_copy(name, bench.models[name], bench.setting), bench.inputs, phase)

    return refine_first(
        comparison,
        {name: maker(name) for name in bench.models},
        pairs=min(bench.rounds, _FIRST_PAIRS),
        device=bench.setting.device,
        label=label,
    )


def _compiled_structure(compiled: Compiled, timing: Timing, peak: int | None) -> Structure:
    return Structure(
        graphs=compiled.graphs,
        graph_breaks=compiled.graph_breaks,
        recompiles=compiled.recompiles,
        kernels=compiled.kernels,
        compile_seconds=timing.first.value - timing.median.value,
        peak_bytes=peak,
    )


def _check_options(modes: Sequence[str], phases: Sequence[str], rounds: int, warmup: int, threads: int | None) -> None:
    for option, given, allowed in (("modes", modes, get_args(Mode)), ("phases", phases, get_args(Phase))):
        if isinstance(given, str) or not given or not set(given) <= set(allowed) or len(set(given)) < len(given):
            raise InputsError(f"bench: {option}={given!r} must be a sequence of one or more of {', '.join(allowed)}.")
    if rounds < 1 or warmup < 0 or (threads is not None and threads < 1):
        raise InputsError(
            f"bench wants rounds >= 1, warmup >= 0 and threads >= 1; "
            f"got rounds={rounds}, warmup={warmup}, threads={threads}."
        )


@contextmanager
def _threads(count: int | None) -> Generator[None, None, None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _dtype_name(model: nn.Module, dtype: torch.dtype | None) -> str:
    found = {p.dtype for p in model.parameters() if p.is_floating_point()} if dtype is None else {dtype}
    return "+".join(sorted(str(kind).removeprefix("torch.") for kind in found)) or "none"
