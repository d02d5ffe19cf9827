"""A machine is described by its models and by nothing that says whose it is."""

from __future__ import annotations

import getpass
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from padrewrite.benchmarking.machine import _processor_name, describe_machine


def test_the_model_string_is_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU 7 @ 2.0GHz\nmodel name\t: other\n")
    assert _processor_name(cpuinfo) == "Some CPU 7 @ 2.0GHz"


def test_without_a_model_string_the_architecture_stands_in(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 48.00\n")
    assert _processor_name(cpuinfo) == (platform.processor() or platform.machine())


def test_the_description_is_complete_and_impersonal() -> None:
    machine = describe_machine(torch.device("cpu"))
    assert machine.accelerator is None
    assert machine.torch == torch.__version__
    assert machine.threads == torch.get_num_threads()
    words = " ".join(map(str, asdict(machine).values())).split()
    assert platform.node() not in words
    assert getpass.getuser() not in words
