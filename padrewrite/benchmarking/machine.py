"""What a benchmark ran on, by model names only: no host names, no users, no times."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """Hardware and software that the figures belong to."""

    processor: str
    accelerator: str | None
    """Model of the GPU, or None when the benchmark ran on the CPU."""
    system: str
    """Operating system and architecture, e.g. ``Linux x86_64``."""
    python: str
    torch: str
    threads: int
    """Intra-op threads of torch."""

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.accelerator or self.processor}, {threads}, torch {self.torch}"


def describe_machine(device: torch.device) -> Machine:
    """The machine as it is now, with torch's current thread count."""
    return Machine(
        processor=_processor_name(),
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
    )


def _processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model string of the CPU; the architecture where the system does not tell."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    elif platform.system() == "Darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine()
