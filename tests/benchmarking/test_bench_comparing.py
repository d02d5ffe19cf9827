"""Interleaving, seen by callables that log and a clock that is told what to read."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from padrewrite.benchmarking import compare
from padrewrite.benchmarking.comparing import refine_first
from padrewrite.errors import InputsError, ModelError

CPU = torch.device("cpu")


def _loggers(names: str, log: list[str]) -> dict[str, Callable[[], object]]:
    return {name: (lambda name=name: log.append(name)) for name in names}


@pytest.mark.parametrize(
    ("names", "warmup", "rounds", "order"),
    [
        ("AB", 0, 4, "AB  AB BA AB BA"),
        ("AB", 1, 3, "AB  AB  BA AB BA"),
        ("ABC", 0, 4, "ABC  ABC BCA CAB ABC"),
        ("A", 2, 2, "A  A A  A A"),
    ],
)
def test_every_round_runs_each_once_and_the_order_rotates(names: str, warmup: int, rounds: int, order: str) -> None:
    log: list[str] = []
    comparison = compare(_loggers(names, log), rounds=rounds, warmup=warmup, device=CPU)
    assert "".join(log) == order.replace(" ", "")
    assert [len(t.seconds) for t in comparison.timings] == [rounds] * len(names)
    assert [t.name for t in comparison.timings] == list(names)


class _ToldClock:
    """Runs the callable, then reads the next number of the variant that ran."""

    def __init__(self, log: list[str], readings: dict[str, list[float]]) -> None:
        self._log = log
        self._readings = {name: iter(values) for name, values in readings.items()}

    def __call__(self, call: Callable[[], object]) -> float:
        call()
        return next(self._readings[self._log[-1]])


def test_figures_follow_from_the_readings() -> None:
    log: list[str] = []
    # First call, one warm-up round, then five rounds. The machine slows down tenfold half way through.
    base = [7.0, 99.0, 1.0, 1.0, 10.0, 10.0, 10.0]
    other = [21.0, 1.0, 2.0, 2.5, 20.0, 20.0, 15.0]
    clock = _ToldClock(log, {"A": base, "B": other})
    comparison = compare(_loggers("AB", log), rounds=5, warmup=1, device=CPU, clock=clock)
    slower = comparison["B"]
    assert (comparison["A"].first.value, slower.first.value, slower.first_ratio.value) == (7.0, 21.0, 3.0)
    assert (slower.pairs, slower.first_ratio.coverage) == (1, 0.0)
    assert slower.seconds == (2.0, 2.5, 20.0, 20.0, 15.0)
    assert slower.median.value == 15.0
    assert (slower.ratio.value, slower.ratio.low, slower.ratio.high) == (2.0, 1.5, 2.5)
    assert slower.ratio.coverage == 0.9375
    assert comparison.baseline.name == "A"
    assert (comparison.baseline.ratio.low, comparison.baseline.ratio.high) == (1.0, 1.0)


def test_only_the_first_call_runs_in_its_context() -> None:
    log: list[str] = []

    @contextmanager
    def around(name: str) -> Iterator[None]:
        log.append(f"({name}")
        yield
        log.append(")")

    compare(_loggers("AB", log), rounds=2, warmup=0, device=CPU, around_first=around)
    assert " ".join(log) == "(A A ) (B B ) A B B A"


def test_first_calls_are_of_fresh_callables_in_rotating_order() -> None:
    log: list[str] = []
    made: list[str] = []

    def maker(name: str) -> Callable[[], Callable[[], object]]:
        def make() -> Callable[[], object]:
            made.append(name)
            return lambda: log.append(name)

        return make

    clock = _ToldClock(log, {"A": [9.0, 1.0, 1.0, 2.0, 4.0], "B": [9.0, 1.0, 3.0, 2.0, 20.0]})
    comparison = compare(_loggers("AB", log), rounds=1, warmup=0, device=CPU, clock=clock)
    log.clear()
    refined = refine_first(comparison, {"A": maker("A"), "B": maker("B")}, pairs=3, device=CPU, clock=clock)
    assert "".join(log) == "".join(made) == "ABBAAB"
    assert (refined["A"].first.value, refined["B"].first.value) == (2.0, 3.0)
    # 3/1, 2/2, 20/4
    assert (refined["B"].first_ratio.value, refined["B"].first_ratio.low) == (3.0, 1.0)
    assert refined["B"].pairs == 3
    assert refined["B"].seconds == comparison["B"].seconds
    with pytest.raises(ModelError, match="'B' failed in the first call of copy 1"):
        refine_first(comparison, {"A": maker("A"), "B": lambda: lambda: 1 / 0}, pairs=1, device=CPU)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_waits_and_comes_back_as_it_was(enabled: bool) -> None:
    seen: list[bool] = []
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        compare({"A": lambda: seen.append(gc.isenabled())}, rounds=1, warmup=0, device=CPU)
        assert gc.isenabled() is enabled
        with pytest.raises(ModelError):
            compare({"A": lambda: 1 / 0}, rounds=1, warmup=0, device=CPU)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
    assert seen == [False, False]


@pytest.mark.parametrize(
    ("fails_at", "stage"), [(1, "in its first call"), (2, "in warm-up round 1"), (4, "in round 2")]
)
def test_a_failing_variant_is_named_with_its_round(fails_at: int, stage: str) -> None:
    calls: list[int] = []

    def breaks() -> None:
        calls.append(1)
        if len(calls) == fails_at:
            raise ZeroDivisionError("by zero")

    with pytest.raises(ModelError, match=rf"^lab: 'broken' failed {stage}: ZeroDivisionError: by zero$"):
        compare({"fine": lambda: 0, "broken": breaks}, rounds=3, warmup=1, device=CPU, label="lab")


def test_an_error_of_padrewrite_keeps_its_class_and_words() -> None:
    def refuses() -> None:
        raise InputsError("as it was")

    with pytest.raises(InputsError, match=r"^as it was$"):
        compare({"A": refuses}, rounds=1, warmup=0, device=CPU)


@pytest.mark.parametrize(("count", "rounds", "warmup"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_arguments_out_of_range(count: int, rounds: int, warmup: int) -> None:
    with pytest.raises(InputsError, match="wants at least one variant"):
        compare(_loggers("A" * count, []), rounds=rounds, warmup=warmup, device=CPU)


def test_an_unknown_variant_lists_the_known() -> None:
    comparison = compare(_loggers("AB", []), rounds=1, warmup=0, device=CPU)
    with pytest.raises(KeyError, match="A, B"):
        comparison["C"]
