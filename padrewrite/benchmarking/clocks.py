"""How long one call takes, per kind of device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from padrewrite.errors import InputsError

Clock = Callable[[Callable[[], object]], float]
"""Runs a callable once and returns the seconds it took, device work included."""


def time_on_cpu(call: Callable[[], object]) -> float:
    """Seconds of wall time."""
    start = time.perf_counter_ns()
    result = call()
    elapsed = time.perf_counter_ns() - start
    # Freed only now, so that a large output's release is not timed for one variant and not for another.
    del result
    return max(elapsed, 1) * 1e-9


class CudaClock:
    """Seconds between two events on the current stream of ``device``; the device is idle before and after."""

    resolution = 0.5e-6
    """Seconds; CUDA's documented event resolution. A shorter reading is reported as this."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, call: Callable[[], object]) -> float:
        with torch.cuda.device(self.device):
            start = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            result = call()
            end.record()
            torch.cuda.synchronize()
            del result
            return max(start.elapsed_time(end) * 1e-3, self.resolution)


def read_device(device: str | torch.device) -> torch.device:
    """The device of a name such as ``cuda:0``.

    Raises:
        InputsError: not a device's name.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputsError(f"bench does not know device {device!r}; give 'cpu' or 'cuda'.") from error


def clock_for(device: torch.device) -> Clock:
    """The clock of a device.

    Raises:
        InputsError: not a CPU or CUDA device, or CUDA is not available.
    """
    if device.type == "cpu":
        return time_on_cpu
    if device.type != "cuda":
        raise InputsError(f"bench cannot time device '{device}': it has clocks for cpu and cuda only.")
    if not torch.cuda.is_available():
        raise InputsError(f"bench was asked for device '{device}', but CUDA is not available; give device='cpu'.")
    return CudaClock(device)
