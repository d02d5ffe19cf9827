"""The report of a model: decisions, reasons, and JSON that is the same in every process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

import padrewrite as pr
from padrewrite.checks.verification import Verification
from padrewrite.reporting import Report

from .plans import decide, make_plan, show

ONE = make_plan([decide("a"), decide("b", "kept", "unpadded", "it has no padding")])
TWO = make_plan([decide("a", "refused", "partial", "it is partial"), decide("c")], specs=["padding-mode"])


def test_decisions_are_those_of_every_plan_in_order() -> None:
    assert Report((ONE, TWO)).decisions == ONE.decisions + TWO.decisions
    assert Report(()).decisions == ()


def test_why_not_tells_what_every_plan_decided() -> None:
    told = Report((ONE, TWO)).why_not("a")
    assert "rewritten by partial-padding" in told
    assert "it is partial" in told
    assert Report((ONE, TWO)).why_not("b").count("\n") <= 1


def test_why_not_of_an_unknown_site_lists_the_closest() -> None:
    assert "no such convolution. Nearest: b" in Report((make_plan([decide("b")]),)).why_not("bb")
    assert "Nearest: none" in Report(()).why_not("a")


def test_json_holds_everything() -> None:
    found = Verification((show("a", error=1e-14), show("b", error=math.inf, ok=False), show("c", error=math.nan)))
    data = json.loads(Report((ONE, TWO), found).to_json())
    assert data["schema"] == "padrewrite.report/1"
    assert [(d["plan"], d["site"], d["status"], d["code"]) for d in data["decisions"]] == [
        (0, "a", "rewritten", "rewritten"),
        (0, "b", "kept", "unpadded"),
        (1, "a", "refused", "partial"),
        (1, "c", "rewritten", "rewritten"),
    ]
    assert data["decisions"][0]["before"]["padding"] == [[1, 1], [1, 1]]
    assert [plan["passes"][0]["spec"] for plan in data["plans"]] == ["partial-padding", "padding-mode"]
    assert [e["max_abs_error"] for e in data["verification"]["evidence"]] == [1e-14, "inf", "nan"]
    assert data["verification"]["ok"] is False
    assert json.loads(Report((ONE,)).to_json())["verification"] is None


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def test_report_of_a_rewritten_model() -> None:
    new = pr.transform(net(), ["partial-padding"], example_inputs=torch.randn(1, 3, 9, 11))
    report = pr.report(new)
    assert [(d.site, d.status) for d in report.decisions] == [("0", "rewritten"), ("3", "kept")]
    assert report.verification is not None
    assert report.verification.ok
    assert "equal to eager  input 1x3x9x11" in str(report)
    assert "2 checks held" in str(report)


SCRIPT = """
import torch
from tests.reporting.test_report import net
import padrewrite as pr
x = torch.randn(1, 3, 9, 11, generator=torch.Generator().manual_seed(1))
new = pr.transform(net(), ["partial-padding", "padding-mode{mode=circular}"], example_inputs=x, allow_no_effect=True)
print(pr.report(new).to_json())
print(pr.plan(net(), ["partial-padding"], example_inputs=x).to_json())
print(pr.report(new).table(full=True))
"""


def test_output_is_the_same_in_every_process(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    outputs: list[str] = []
    for seed, folder in (("1", root), ("2", tmp_path)):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-c", SCRIPT]
        outputs.append(subprocess.run(command, env=env, cwd=folder, check=True, capture_output=True, text=True).stdout)
    assert outputs[0] == outputs[1]
    assert str(root) not in outputs[0]
    assert " at 0x" not in outputs[0]
    report = outputs[0][: outputs[0].index("\n}\n") + 2]
    assert report == json.dumps(json.loads(report), indent=1, sort_keys=True)
