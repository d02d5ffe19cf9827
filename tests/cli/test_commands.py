"""Each command on a small model: what it prints, what it writes, and its exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import padrewrite as pr
from padrewrite.checks.verification import Verification
from padrewrite.cli import main
from padrewrite.contracts import Evidence
from padrewrite.errors import ContractViolation, PadrewriteError, SiteMismatch, WriteError

from .nets import Net

NETS = Net.__module__
NET = f"{NETS}:Net"
PARTIAL = ("-p", "partial-padding")
INPUT = ("--input", "1x3x33x41")
PADDED = ["stem", "body.0", "#conv2d.0"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line: (exit code, standard output, standard error)."""

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def rewritten(decisions: list[dict[str, Any]]) -> list[str]:
    return [d["site"] for d in decisions if d["status"] == "rewritten"]


def test_plan_prints_the_table(run: Run) -> None:
    code, out, err = run("plan", NET, *PARTIAL, *INPUT)
    assert (code, err) == (0, "")
    assert "input 1x3x33x41" in out
    assert out.rstrip("\n") == str(pr.plan(model(), ["partial-padding"], example_inputs=torch.zeros(1, 3, 33, 41)))


def model() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def test_plan_saves_and_prints_the_same_json(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    code, out, _ = run("plan", NET, *PARTIAL, *INPUT, "--json", "-o", str(file))
    assert code == 0
    assert json.loads(out) == json.loads(file.read_text())
    assert rewritten(json.loads(out)["decisions"]) == PADDED


def test_selectors_and_options_reach_the_pass(run: Run) -> None:
    out = run(
        "plan", NET, "-p", "partial-padding{scale=sqrt}", *INPUT, "--include", "body", "--exclude", "re:.*2", "--json"
    )[1]
    plan = json.loads(out)
    assert rewritten(plan["decisions"]) == ["body.0"]
    assert plan["passes"][0]["spec"] == "partial-padding{scale=sqrt}"


def test_passes_run_in_the_order_given(run: Run) -> None:
    passes = ("-p", "padding-mode{mode=circular,axes=[-1]}", *PARTIAL)
    plan = json.loads(run("plan", NET, *passes, *INPUT, "--json")[1])
    assert [s["name"] for s in plan["passes"]] == ["padding-mode", "partial-padding"]


def test_kwargs_and_seed_reach_the_model(run: Run) -> None:
    arguments = ("--kwargs", '{"width": 6, "upsample": false}', "--seed", "5")
    plan = json.loads(run("plan", NET, *arguments, *PARTIAL, *INPUT, "--json")[1])
    assert plan["decisions"][0]["after"]["out_channels"] == 6
    assert len(plan["decisions"]) == 4


def test_inputs_have_types(run: Run) -> None:
    code, out, _ = run("plan", f"{NETS}:Words", *PARTIAL, "--input", "2x9:int64", "--json")
    assert code == 0
    assert json.loads(out)["inputs"]["args"] == [{"tensor": [2, 9], "dtype": "int64"}]


def test_without_inputs_the_tree_is_read(run: Run) -> None:
    code, out, _ = run("plan", NET, *PARTIAL)
    assert code == 0
    assert "module tree only" in out


def test_full_lists_every_site(run: Run) -> None:
    out = run("plan", NET, *PARTIAL, *INPUT, "--full")[1]
    assert [line.split()[0] for line in out.splitlines()[4:]] == ["stem", "body.0", "body.2", "#conv2d.0", "up"]


def test_apply_saves_a_model_that_loads(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new.pt"
    code, out, err = run("apply", NET, *PARTIAL, *INPUT, "-o", str(file))
    assert code == 0
    assert "checks held" in out
    assert "weights_only=False" in err
    new = torch.load(file, weights_only=False)
    original = model()
    assert isinstance(new, Net)
    assert not new.training
    new.load_state_dict(original.state_dict(), strict=True)
    x = torch.randn(1, 3, 33, 41)
    wanted = pr.transform(original, ["partial-padding"], example_inputs=x)(x)
    assert torch.equal(new(x), wanted)
    assert not torch.equal(new(x), original(x))
    assert rewritten(json.loads(pr.report(new).to_json())["decisions"]) == PADDED


def test_apply_replays_a_saved_plan(run: Run, tmp_path: Path) -> None:
    plan, file = str(tmp_path / "plan.json"), str(tmp_path / "new.pt")
    assert run("plan", NET, *PARTIAL, *INPUT, "-o", plan)[0] == 0
    code, out, _ = run("apply", NET, "--plan", plan, "-o", file, "--verify", "full", "--json")
    assert code == 0
    report = json.loads(out)
    assert rewritten(report["decisions"]) == PADDED
    assert "end to end" in {e["site"] for e in report["verification"]["evidence"]}
    assert isinstance(torch.load(file, weights_only=False), Net)


def test_apply_without_output_says_that_nothing_was_saved(run: Run) -> None:
    code, _, err = run("apply", NET, *PARTIAL, *INPUT, "--verify", "off")
    assert code == 0
    assert "Nothing was saved" in err


def test_checkpoint_is_loaded_first(run: Run, tmp_path: Path) -> None:
    checkpoint, file = str(tmp_path / "weights.pt"), str(tmp_path / "new.pt")
    torch.manual_seed(7)
    trained = Net()
    torch.save(trained.state_dict(), checkpoint)
    assert run("apply", NET, *PARTIAL, *INPUT, "--checkpoint", checkpoint, "-o", file)[0] == 0
    assert torch.equal(torch.load(file, weights_only=False).stem.weight, trained.stem.weight)


def test_verify_prints_the_evidence(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    code, out, _ = run("verify", NET, *PARTIAL, *INPUT, "--trials", "2", "-o", str(file))
    assert code == 0
    assert "8 checks held, float64" in out
    report = json.loads(file.read_text())
    assert report["schema"] == "padrewrite.report/1"
    assert report["verification"]["ok"] is True
    assert json.loads(run("verify", NET, *PARTIAL, *INPUT, "--trials", "2", "--json")[1]) == report


def test_explain_shows_window_and_decision(run: Run) -> None:
    code, out, _ = run("explain", NET, "stem", *PARTIAL, *INPUT)
    assert code == 0
    assert "source    nets.py:" in out
    assert "0     7       2       1         3 before, 3 after  zeros  33     17      2 to 14" in out
    assert "stem.weight" in out
    assert "rewritten by partial-padding" in out
    assert "rebind" in out


def test_explain_has_no_line_where_no_line_of_the_model_makes_the_call(run: Run) -> None:
    kwargs = ("--kwargs", '{"in_channels": 3, "out_channels": 4, "kernel_size": 3}')
    recorded = run("explain", "torch.nn:Conv2d", "(root)", *kwargs, *INPUT)[1]
    assert "source    none (layers of torch alone make the call)" in recorded
    assert "source    unknown (needs example inputs)" in run("explain", "torch.nn:Conv2d", "(root)", *kwargs)[1]


def test_explain_needs_no_pass(run: Run) -> None:
    out = run("explain", NET, "up", *INPUT)[1]
    assert "transposed k4 s2 p1 d1" in out
    size = Net().eval()(torch.zeros(1, 3, 33, 41)).shape  # 17x21 is what it reads
    rows = [line.split() for line in out.splitlines() if "1 before, 1 after" in line]
    assert [row[-2] for row in rows] == [str(n) for n in size[2:]]
    assert "partial-padding" not in out


def test_explain_as_json(run: Run) -> None:
    record = json.loads(run("explain", NET, "#conv2d.0", *PARTIAL, *INPUT, "--json")[1])
    assert record["op"]["padding"] == [[1, 1], [1, 1]]
    assert record["input_shape"] == [1, 4, 17, 21]
    assert record["handle"]["weight"] == "body.0.weight"
    assert [d["code"] for d in record["decisions"]] == ["rewritten"]


def test_bench_measures_both(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    quick = ("--mode", "eager", "--phase", "eval", "--rounds", "2", "--warmup", "0")
    code, out, _ = run("bench", NET, *PARTIAL, *INPUT, *quick, "-o", str(file))
    assert code == 0
    assert "rewritten" in out
    (case,) = json.loads(file.read_text())["cases"]
    assert (case["mode"], case["phase"]) == ("eager", "eval")


def test_a_terminal_gets_colour_within_its_width(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    for argv in (("plan", NET, *PARTIAL, *INPUT), ("explain", NET, "stem", *INPUT), ("passes",)):
        out = run(*argv)[1]
        assert "\x1b[" in out
        assert max(map(len, re.sub(r"\x1b\[[\d;]*m", "", out).splitlines())) <= 80


def test_version_and_help(run: Run) -> None:
    assert run("--version")[:2] == (0, f"padrewrite {pr.__version__}\n")
    code, out, _ = run("--help")
    assert code == 0
    assert all(command in out for command in ("plan", "apply", "verify", "explain", "passes", "bench", "demo"))


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "padrewrite", "--version"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == f"padrewrite {pr.__version__}\n"


STRICT = [
    (("plan", NET, *PARTIAL, *INPUT), 1),
    (("plan", NET, *PARTIAL, *INPUT, "--kwargs", '{"upsample": false}'), 0),
    (("apply", NET, *PARTIAL, *INPUT), 1),
    (("apply", NET, *PARTIAL, *INPUT, "--kwargs", '{"upsample": false}'), 0),
    (("verify", NET, *PARTIAL, *INPUT, "--trials", "1"), 1),
    (("verify", NET, *PARTIAL, *INPUT, "--trials", "1", "--kwargs", '{"upsample": false}'), 0),
    (("verify", NET, *PARTIAL, "--input", "1x3x9x9", "--trials", "1", "--kwargs", '{"upsample": false}'), 1),
]


@pytest.mark.parametrize(("argv", "code"), STRICT)
def test_strict_turns_refusals_and_vacuous_checks_into_findings(argv: tuple[str, ...], code: int, run: Run) -> None:
    assert run(*argv, "--strict")[0] == code
    assert run(*argv)[0] == 0


USAGE = {
    "no command": ((), "required"),
    "unknown command": (("rewrite", NET), "invalid choice"),
    "no pass": (("plan", NET), "-p"),
    "no pass and no plan": (("apply", NET), "--plan"),
    "pass and plan": (("apply", NET, *PARTIAL, "--plan", "x"), "not allowed"),
    "selectors with a plan": (("apply", NET, "--plan", "x", "--include", "stem"), "PlanError: a saved plan has"),
    "unknown pass": (
        ("plan", NET, "-p", "partial-pading"),
        "PassError: unknown pass 'partial-pading'. Closest: partial-padding",
    ),
    "unknown option": (
        ("plan", NET, "-p", "partial-padding{size=3}"),
        "PassError: partial-padding has no option 'size'",
    ),
    "no match": (
        ("plan", NET, *PARTIAL, "--include", "layer5.*"),
        "SelectorError: partial-padding include='layer5.*' matched 0",
    ),
    "no effect": (
        ("plan", f"{NETS}:Pointwise", *PARTIAL),
        "NoEffectError: partial-padding would change nothing",
    ),
    "kwargs not JSON": (("plan", NET, *PARTIAL, "--kwargs", "{width: 3}"), "is not JSON"),
    "kwargs not an object": (("plan", NET, *PARTIAL, "--kwargs", "[3]"), "is not a JSON object"),
    "shape": (("plan", NET, *PARTIAL, "--input", "1,3,9,9"), "is not a shape"),
    "type": (("plan", NET, *PARTIAL, "--input", "1x3:float13"), "is not a type"),
    "no colon": (
        ("plan", f"{NETS}", *PARTIAL),
        f"ModelError: '{NETS}' is not a model; write package.module:callable",
    ),
    "no module": (("plan", "no_such_package:Net", *PARTIAL), "ModelError: no_such_package cannot be imported"),
    "no attribute": (
        ("plan", f"{NETS}:Nett", *PARTIAL),
        f"ModelError: {NETS} has no 'Nett'. Closest: Net",
    ),
    "wrong kwargs": (
        ("plan", NET, *PARTIAL, "--kwargs", '{"wdth": 3}'),
        f"ModelError: {NETS}:Net(wdth=3) failed: TypeError",
    ),
    "constructor fails": (
        ("plan", f"{NETS}:fails", *PARTIAL),
        f"ModelError: {NETS}:fails() failed: ValueError: no weights",
    ),
    "no module made": (("plan", f"{NETS}:number", *PARTIAL), f"ModelError: {NETS}:number returns a int"),
    "no callable": (
        ("plan", f"{NETS}:__doc__", *PARTIAL),
        f"ModelError: {NETS}:__doc__ is a str",
    ),
    "kwargs for an instance": (
        ("plan", f"{NETS}:READY", *PARTIAL, "--kwargs", "{}", "--kwargs", '{"a": 1}'),
        "is a model already",
    ),
    "input does not fit": (("plan", NET, *PARTIAL, "--input", "1x4x9x9"), "InputsError: Net.forward failed"),
    "no plan file": (("apply", NET, "--plan", "missing.json"), "PlanError: missing.json cannot be read"),
    "no checkpoint": (
        ("apply", NET, *PARTIAL, "--checkpoint", "missing.pt"),
        "ModelError: the checkpoint missing.pt cannot be read",
    ),
    "unknown site": (
        ("explain", NET, "body.1", *PARTIAL),
        "SelectorError: 'body.1' is none of the 4 convolutions. Closest: body.2",
    ),
    "unknown card": (("passes", "partial"), "PassError: unknown pass 'partial'. Closest: partial-padding"),
    "bench without inputs": (("bench", NET, *PARTIAL), "InputsError: bench runs the model: give --input"),
    "bench rounds": (("bench", NET, *PARTIAL, *INPUT, "--rounds", "0"), "is not an integer of at least 1"),
    "output folder": (("plan", NET, *PARTIAL, "-o", "no/such/folder/plan.json"), "was not written"),
    "demo size": (("demo", "--size", "big"), "is not a size; write HxW"),
    "bench case": (("bench", "--symmetric", "foo"), "'foo' is not CHANNELSxSIZE; write CxN, as in 64x56"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_errors_are_named_and_exit_with_2(
    case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    monkeypatch.chdir(tmp_path)
    argv, words = USAGE[case]
    code, out, err = run(*argv)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert out == ""


def test_what_a_module_imports_is_not_offered(run: Run) -> None:
    """Nor is a traceback that a package puts into its error."""
    assert "Closest: torch" not in run("plan", f"{NETS}:torhc", *PARTIAL)[2]
    err = run("plan", f"{NETS}:loudly", *PARTIAL)[2]
    assert "failed: ImportError: it needs another package" in err
    assert "Traceback" not in err


def test_a_model_that_cannot_be_pickled_leaves_no_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new.pt"
    file.write_text("what was there before")
    code, _, err = run("apply", f"{NETS}:Unpicklable", *PARTIAL, "-o", str(file))
    assert code == 2
    assert f"ModelError: {file} was not written" in err
    assert [p.name for p in tmp_path.iterdir()] == ["new.pt"]
    assert file.read_text() == "what was there before"


def test_another_models_plan_is_refused(run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "plan.json")
    assert run("plan", NET, *PARTIAL, *INPUT, "-o", file)[0] == 0
    code, _, err = run("apply", f"{NETS}:Pointwise", "--plan", file)
    assert code == 2
    assert "PlanError: the plan was made for a Net" in err


@pytest.mark.parametrize(("content", "words"), [({"epoch": 3}, "it holds the keys epoch"), ([1], "it holds list")])
def test_a_checkpoint_must_be_a_state_dict(content: object, words: str, run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "weights.pt")
    torch.save(content, file)
    code, _, err = run("apply", NET, *PARTIAL, "--checkpoint", file)
    assert code == 2
    assert words in err


def test_a_checkpoint_loads_strictly(run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "weights.pt")
    torch.save({**model().state_dict(), "extra": torch.zeros(1)}, file)
    code, _, err = run("apply", NET, *PARTIAL, "--checkpoint", file)
    assert code == 2
    assert "is not of this Net" in err
    assert "extra" in err


class Pickled:
    """Runs code when it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("should-not-exist",)


def test_a_checkpoint_cannot_run_code(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    monkeypatch.chdir(tmp_path)
    torch.save(Pickled(), "weights.pt")
    code, _, err = run("apply", NET, *PARTIAL, "--checkpoint", "weights.pt")
    assert code == 2
    assert "cannot be read" in err
    assert not Path("should-not-exist").exists()


def test_a_failed_recording_exits_with_4(run: Run) -> None:
    code, _, err = run("plan", f"{NETS}:Opaque", *PARTIAL, *INPUT)
    assert code == 4
    assert err.startswith("RecordError: Opaque could not be recorded")


@pytest.mark.parametrize("error", [ContractViolation, WriteError, SiteMismatch])
def test_a_broken_promise_exits_with_3(error: type[PadrewriteError], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise error("layer3 promised grid(2)")

    monkeypatch.setattr(pr, "transform", broken)
    for command in ("apply", "verify"):
        code, _, err = run(command, NET, *PARTIAL, *INPUT)
        assert code == 3
        assert err == f"{error.__name__}: layer3 promised grid(2)\n"


def test_failed_evidence_exits_with_3_and_saves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Verification((Evidence("stem", "interior", 0.5, False, False, "differs at [0, 1]", 9),))
    plan, file = str(tmp_path / "plan.json"), tmp_path / "new.pt"
    assert run("plan", NET, *PARTIAL, *INPUT, "-o", plan)[0] == 0
    monkeypatch.setattr(pr, "verify", lambda *args, **kwargs: failed)
    code, out, _ = run("verify", NET, *PARTIAL, *INPUT)
    assert code == 3
    assert "FAILED: 1 of 1 check" in out
    code, _, err = run("apply", NET, "--plan", plan, "-o", str(file))
    assert code == 3
    assert "Nothing was saved" in err
    assert not file.exists()


def test_traceback_on_request(run: Run) -> None:
    code, _, err = run("plan", NET, "-p", "nothing", "--traceback")
    assert code == 2
    assert err.startswith("Traceback")
    assert "unknown pass" in err.splitlines()[-1]


def test_an_internal_error_does_not_look_like_findings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python exits with 1 for what nobody catches, and 1 says that ``--strict`` found something."""

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(pr, "analyze", broken)
    code, out, err = run("analyze", NET, *INPUT, "--strict")
    assert (code, out) == (70, "")
    assert err.startswith("Traceback")
    assert err.splitlines()[-1] == "internal error, please report it: ZeroDivisionError: of ours"


def test_console_module_and_a_closed_pipe(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = f"{sys.executable} -m padrewrite.cli passes | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("boundary-refinement")
    assert done.stderr == ""


def test_models_are_found_in_the_working_directory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Conv2d(1, 1, 3, padding=1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, out, _ = run("plan", "found_here:make", *PARTIAL, "-i", "1x1x5x5")
    assert code == 0
    assert "(root)" in out
