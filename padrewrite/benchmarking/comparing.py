"""Interleaved timing of several callables: every round runs each once, in an order that rotates from round to
round.

Blocks of one variant after the other would charge a change of clock rate or load to whichever variant ran
then.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from padrewrite.benchmarking.clocks import Clock, clock_for
from padrewrite.benchmarking.intervals import Estimate, estimate_median, paired_ratios
from padrewrite.errors import InputsError, ModelError, PadrewriteError

Variants = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Timing:
    """The times of one variant, in seconds."""

    name: str
    first: Estimate
    """The very first call."""
    seconds: tuple[float, ...]
    """One entry per round, in the order they ran; warm-up excluded."""
    median: Estimate
    ratio: Estimate
    """Median over the rounds of (this variant / baseline in the same round)."""
    first_ratio: Estimate
    """First call over the baseline's first call of the same pair; of a single pair the coverage is 0."""
    pairs: int = 1
    """How many pairs of first calls there were."""


@dataclass(frozen=True)
class Comparison:
    """Timings of all variants; the first is the baseline."""

    timings: tuple[Timing, ...]
    rounds: int
    warmup: int

    @property
    def baseline(self) -> Timing:
        return self.timings[0]

    def __getitem__(self, name: str) -> Timing:
        for timing in self.timings:
            if timing.name == name:
                return timing
        raise KeyError(f"no variant '{name}'; there are {', '.join(t.name for t in self.timings)}")


def _uncontexted(name: str) -> AbstractContextManager[object]:
    return nullcontext()


def compare(
    variants: Variants,
    *,
    rounds: int,
    warmup: int,
    device: torch.device,
    clock: Clock | None = None,
    around_first: Callable[[str], AbstractContextManager[object]] = _uncontexted,
    label: str = "compare",
) -> Comparison:
    """Time callables against each other.

    Args:
        variants: name to callable; the first is the baseline of the ratios. What a callable returns is
            dropped.
        rounds: timed rounds; at least 6 for intervals of 95 %.
        warmup: untimed rounds after the first call of each variant, which is always made and timed apart.
        device: where the callables work; decides the clock (events on CUDA, wall time on CPU).
        clock: replaces the device's clock.
        around_first: gives the context in which a variant's first call runs.
        label: what is being compared, for error messages.

    Raises:
        InputsError: no variants, or rounds or warmup out of range.
        ModelError: a variant raised; names the variant and the round.
    """
    if not variants or rounds < 1 or warmup < 0:
        raise InputsError(
            f"{label}: wants at least one variant, rounds >= 1 and warmup >= 0; "
            f"got {len(variants)} variants, rounds={rounds}, warmup={warmup}."
        )
    read = clock or clock_for(device)
    times: dict[str, list[float]] = {name: [] for name in variants}
    first: dict[str, float] = {}
    with _collector_paused():
        for name in variants:
            with _named(label, name, "in its first call"), around_first(name):
                first[name] = read(variants[name])
        for turn in range(warmup + rounds):
            for name in rotated(list(variants), turn):
                with _named(label, name, _stage(turn, warmup)):
                    elapsed = read(variants[name])
                if turn >= warmup:
                    times[name].append(elapsed)
    return summarize(first, times, warmup=warmup)


def refine_first(
    comparison: Comparison,
    makers: Mapping[str, Callable[[], Callable[[], object]]],
    *,
    pairs: int,
    device: torch.device,
    clock: Clock | None = None,
    label: str = "compare",
) -> Comparison:
    """Replace a comparison's single first calls by the median over several pairs of them.

    Whichever variant is called first touches memory that the next one finds ready: so the order rotates.

    Args:
        comparison: the same variants, already timed.
        makers: name to a function that makes a callable which has never been called; making it is not timed.
        pairs: how many callables of each variant to make; one exists at a time.
        device, clock, label: as for `compare`.

    Raises:
        ModelError: a variant raised.
    """
    read = clock or clock_for(device)
    first: dict[str, list[float]] = {timing.name: [] for timing in comparison.timings}
    with _collector_paused():
        for turn in range(pairs):
            for name in rotated(list(first), turn):
                with _named(label, name, f"in the first call of copy {turn + 1}"):
                    first[name].append(read(makers[name]()))
    base = first[comparison.baseline.name]
    timings = tuple(
        replace(
            timing,
            first=estimate_median(first[timing.name]),
            first_ratio=estimate_median(paired_ratios(first[timing.name], base)),
            pairs=pairs,
        )
        for timing in comparison.timings
    )
    return replace(comparison, timings=timings)


def summarize(first: Mapping[str, float], times: Mapping[str, list[float]], *, warmup: int) -> Comparison:
    """Turn raw seconds per variant into a Comparison; the first variant is the baseline."""
    base = next(iter(times))
    timings = tuple(
        Timing(
            name=name,
            first=estimate_median([first[name]]),
            seconds=tuple(seconds),
            median=estimate_median(seconds),
            ratio=estimate_median(paired_ratios(seconds, times[base])),
            first_ratio=estimate_median([first[name] / first[base]]),
        )
        for name, seconds in times.items()
    )
    return Comparison(timings, rounds=len(times[base]), warmup=warmup)


def rotated(names: list[str], turn: int) -> list[str]:
    """The order of round ``turn``: each name comes first equally often over ``len(names)`` rounds."""
    shift = turn % len(names)
    return names[shift:] + names[:shift]


def _stage(turn: int, warmup: int) -> str:
    return f"in warm-up round {turn + 1}" if turn < warmup else f"in round {turn - warmup + 1}"


@contextmanager
def _named(label: str, name: str, stage: str) -> Generator[None, None, None]:
    try:
        yield
    except PadrewriteError:
        raise
    except Exception as error:
        raise ModelError(f"{label}: '{name}' failed {stage}: {type(error).__name__}: {error}") from error


@contextmanager
def _collector_paused() -> Generator[None, None, None]:
    """Garbage collection strikes whichever variant is running, so it waits until the end."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
