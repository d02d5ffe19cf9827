"""``padrewrite analyze``: what it prints, what it writes, and its exit code."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sarif_standard import check_log
from torch import nn

import padrewrite as pr
from padrewrite.cli import main

from .nets import Net

NET = f"{Net.__module__}:Net"
POINTWISE = f"{Net.__module__}:Pointwise"
INPUT = ("--input", "1x3x33x41")
SITES = ["stem", "body.0", "body.2", "#conv2d.0", "up"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``analyze`` with these arguments: (exit code, standard output, standard error)."""

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(["analyze", *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def analysis() -> pr.Analysis:
    torch.manual_seed(0)
    return pr.analyze(Net().eval(), example_inputs=torch.zeros(1, 3, 33, 41))


def test_it_prints_the_analysis(run: Run) -> None:
    code, out, err = run(NET, *INPUT)
    assert (code, err) == (0, "")
    assert out.rstrip("\n") == str(analysis())
    assert "input 1x3x33x41" in out
    assert "zero-border" in out


def test_full_has_every_convolution(run: Run) -> None:
    out = run(NET, *INPUT, "--full")[1]
    titles = [line.split("  ")[0] for line in out.splitlines() if "  k" in line or "  transposed k" in line]
    assert titles == SITES


def test_without_inputs_the_windows_are_read(run: Run) -> None:
    code, out, _ = run(NET)
    assert code == 0
    assert "module tree only" in out
    assert "example inputs" in out


def test_json_is_printed_and_saved(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "analysis.json"
    code, out, _ = run(NET, *INPUT, "--json", "-o", str(file))
    assert code == 0
    assert json.loads(out) == json.loads(file.read_text()) == json.loads(analysis().to_json())
    assert list(json.loads(out)["sites"]) == SITES


def test_sarif_is_saved_beside_the_table(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "findings.sarif"
    code, out, _ = run(NET, *INPUT, "--sarif", str(file))
    assert code == 0
    assert out.startswith("padrewrite")
    log = json.loads(file.read_text())
    assert log["version"] == "2.1.0"
    found = [result["ruleId"] for result in log["runs"][0]["results"]]
    assert found == [finding.code for finding in analysis().findings]
    assert "zero-border" in found


NETS = """\
from functools import partial
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 2, padding=1), nn.ReLU())

class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, padding=1)

    def forward(self, x):
        return self.conv(x)

part = partial(nn.Conv2d, 3, 4, 2, padding=1)
made = make()
"""


@pytest.mark.parametrize(
    ("name", "argv", "line"),
    [
        ("nets:Whole", ("--input", "1x3x8x8"), "        return self.conv(x)"),
        ("nets:Whole", (), "class Whole(nn.Module):"),
        ("nets:make", ("--input", "1x3x8x8"), "def make():"),
        ("nets:make", (), "def make():"),
        ("nets:part", ("--input", "1x3x8x8"), "from functools import partial"),
        ("nets:made", ("--input", "1x3x8x8"), "from functools import partial"),
        (
            *("torch.nn:Conv2d", ("--kwargs", '{"in_channels": 3, "out_channels": 4, "kernel_size": 2}')),
            "class Conv2d(_ConvNd):",
        ),
    ],
)
def test_every_result_in_sarif_has_a_line_of_a_file(
    name: str, argv: tuple[str, ...], line: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    assert run(name, *argv, "--sarif", "out.sarif")[0] == 0
    log = json.loads(Path("out.sarif").read_text())
    check_log(log)
    results = log["runs"][0]["results"]
    assert results
    for result in results:
        place = result["locations"][0]["physicalLocation"]
        artifact = place["artifactLocation"]
        ours = name.startswith("nets:")
        assert artifact == ({"uri": "nets.py", "uriBaseId": "%SRCROOT%"} if ours else {"uri": artifact["uri"]})
        file = tmp_path / "nets.py" if ours else Path(str(inspect.getsourcefile(nn.Conv2d)))
        assert file.read_text().splitlines()[place["region"]["startLine"] - 1] == line


@pytest.mark.parametrize("argv", [(), ("--json",), ("--full",)])
def test_nothing_but_sarif_names_a_folder(argv: tuple[str, ...], run: Run) -> None:
    out = run(NET, *INPUT, *argv)[1]
    assert "nets.py:" in out
    assert str(Path(__file__).parent) not in out


@pytest.mark.parametrize(
    ("name", "argv", "code"),
    [
        ("a warning", ("--kwargs", '{"kernel": 2}', "--input", "1x3x8x8"), 1),
        ("notes alone", ("--kwargs", '{"kernel": 3}', "--input", "1x3x8x8"), 0),
        ("without inputs too", ("--kwargs", '{"kernel": 2}'), 1),
    ],
)
def test_strict_fails_on_warnings_only(
    name: str, argv: tuple[str, ...], code: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one_layer.py").write_text(
        "from torch import nn\ndef make(kernel):\n    return nn.Conv2d(3, 4, kernel, padding=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run("one_layer:make", *argv)[0] == 0, name
    strict, out, _ = run("one_layer:make", *argv, "--strict")
    assert strict == code
    assert ("warning" in out.partition("---")[2]) == bool(code)


def test_nothing_found_is_said(run: Run) -> None:
    code, out, _ = run(POINTWISE, "--input", "1x3x8x8", "--strict")
    assert code == 0
    assert "No findings." in out


@pytest.mark.parametrize("option", ["-o", "--sarif"])
def test_a_file_that_cannot_be_written_is_an_error(option: str, run: Run, tmp_path: Path) -> None:
    code, _, err = run(NET, *INPUT, option, str(tmp_path / "no" / "folder" / "file"))
    assert code == 2
    assert "was not written" in err


def test_input_that_does_not_fit(run: Run) -> None:
    code, out, err = run(NET, "--input", "1x4x9x9")
    assert (code, out) == (2, "")
    assert err.startswith("InputsError: Net.forward failed")


def test_a_failed_recording_exits_with_4(run: Run) -> None:
    code, _, err = run(f"{Net.__module__}:Opaque", *INPUT)
    assert code == 4
    assert err.startswith("RecordError: Opaque could not be recorded")


def test_it_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "analyze" in capsys.readouterr().out
    assert main(["analyze", "--help"]) == 0
    assert "severity warning" in " ".join(capsys.readouterr().out.split())
