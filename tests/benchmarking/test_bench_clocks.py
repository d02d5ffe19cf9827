"""The order of what a clock does, and the devices that have one."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from padrewrite.benchmarking.clocks import CudaClock, clock_for, time_on_cpu
from padrewrite.errors import InputsError


class _Output:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def __del__(self) -> None:
        self._log.append("freed")


def test_the_cpu_clock_stops_before_the_output_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    readings = iter([1_000, 3_500])

    def read() -> int:
        log.append("read")
        return next(readings)

    monkeypatch.setattr("time.perf_counter_ns", read)
    assert time_on_cpu(lambda: _Output(log)) == pytest.approx(2.5e-6)
    assert log == ["read", "read", "freed"]


def test_the_cpu_clock_never_reads_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter_ns", lambda: 5)
    assert time_on_cpu(lambda: None) == pytest.approx(1e-9)


@pytest.mark.parametrize(("milliseconds", "seconds"), [(4.0, 4e-3), (0.0, 0.5e-6)])
def test_the_cuda_clock_times_between_events_on_an_idle_device(
    monkeypatch: pytest.MonkeyPatch, milliseconds: float, seconds: float
) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("record")

        def elapsed_time(self, end: Event) -> float:
            assert end is not self
            return milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronize"))
    clock = CudaClock(torch.device("cuda", 0))
    assert clock(lambda: log.append("call")) == pytest.approx(seconds)
    assert log == ["synchronize", "record", "call", "record", "synchronize"]


def test_devices_without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputsError, match="cannot time device 'meta'"):
        clock_for(torch.device("meta"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputsError, match=r"'cuda:0', but CUDA is not available"):
        clock_for(torch.device("cuda", 0))


@pytest.mark.gpu
def test_the_cuda_clock_waits_for_the_device() -> None:
    """A launch returns long before its work is done; the reading covers the work."""
    device = torch.device("cuda", 0)
    cycles = 200_000_000  # at most a tenth of a second at 2 GHz, at least 1/20
    assert clock_for(device)(lambda: torch.cuda._sleep(cycles)) > 0.02
