"""``padrewrite fuzz``: what it prints, its exit codes, and the line that reproduces a failure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import padrewrite as pr
from padrewrite import registry
from padrewrite.cli import fuzzing, main
from padrewrite.errors import RecordError
from padrewrite.fuzzing import networks
from padrewrite.fuzzing.drawing import seeded_network
from padrewrite.registry import known_passes

from .broken import Restless

Run = Callable[..., tuple[int, str, str]]
ONE = ("-p", "partial-padding")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line: (exit code, standard output, standard error)."""

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(["fuzz", *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that breaks its promise is installed beside the others."""
    everything = {**known_passes(), "restless": Restless}
    monkeypatch.setattr(registry, "known_passes", lambda: everything)


def padded_seed() -> int:
    """The first seed whose network has a convolution that the broken pass rewrites."""
    return next(s for s in range(100) if is_rewritten(s))


def is_rewritten(seed: int) -> bool:
    spec = seeded_network(seed)
    plan = pr.plan(spec.build(), [Restless()], example_inputs=spec.draw_input(), allow_no_effect=True)
    return any(decision.status == "rewritten" for decision in plan.decisions)


def specification(out: str) -> Any:
    found = re.search(r"^NetSpec\(\n.*?^\)$", out, re.MULTILINE | re.DOTALL)
    assert found is not None
    return eval(found[0], vars(networks))


def test_one_seed_is_printed_with_what_was_checked(run: Run) -> None:
    code, out, err = run("--seed", "7", *ONE)
    assert (code, err) == (0, "")
    assert out.startswith("seed 7: ")
    assert specification(out) == seeded_network(7)
    lines = [line.split(maxsplit=1) for line in out[out.index("\n)") :].splitlines() if line.startswith("held")]
    assert [line[1].split("  ")[0] for line in lines if "analysis" not in line[1]] == [
        "recording",
        "other sizes",
        *(f"partial-padding: {check}" for check in ("contract", "one decision each", "second run", "revert")),
        "the original is untouched",
    ]


def test_many_seeds_are_counted(run: Run) -> None:
    code, out, err = run("--count", "2", "--start", "27", *ONE)
    assert (code, err) == (0, "")
    assert out.startswith("2 networks (seeds 27 to 28), ")
    rows = dict(re.findall(r"^(\S.*?)\s{2,}(\d+\s+\d+\s+\d+)$", out, re.MULTILINE))
    assert rows["recording"].split() == ["2", "0", "0"]
    assert rows["partial-padding: revert"].split() == ["2", "0", "0"]
    assert all(len(line) <= 100 for line in out.splitlines())


def test_json_is_the_same_with_any_number_of_jobs(run: Run) -> None:
    pytest.importorskip("joblib")
    alone = run("--count", "2", "--start", "27", "--json", *ONE)
    shared = run("--count", "2", "--start", "27", "--json", *ONE, "-j", "2")
    assert alone == shared
    code, out, _ = alone
    content = json.loads(out)
    assert code == 0
    assert content["schema"] == "padrewrite.fuzz/1"
    assert content["passes"] == ["partial-padding"]
    assert [network["seed"] for network in content["networks"]] == [27, 28]
    assert eval(content["networks"][1]["spec"], vars(networks)) == seeded_network(28)
    assert (content["failed"], content["refused_by_torch"]) == ([], [])


def test_without_joblib_one_network_follows_the_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "can_share_out", lambda: False)
    monkeypatch.setattr("padrewrite.fuzzing.sweeping.can_share_out", lambda: False)
    code, out, err = run("--count", "1", "-j", "4", *ONE)
    assert code == 0
    assert out.startswith("1 networks")
    assert err == "joblib is not installed (pip install 'padrewrite[sweep]'): one network after the other.\n"


@pytest.mark.usefixtures("restless")
def test_a_broken_pass_is_caught_and_the_printed_line_reproduces_it(run: Run) -> None:
    seed = padded_seed()
    code, out, _ = run("--count", "1", "--start", str(seed), "-p", "restless", *ONE)
    assert code == 3
    assert specification(out) == seeded_network(seed)
    wrong = f"FAILED seed {seed}, restless: second run\nrewritten again: "
    assert wrong in out
    (line,) = re.findall(r"^again: (.+)$", out, re.MULTILINE)
    assert line == f"padrewrite fuzz --seed {seed} -p 'restless' -p 'partial-padding'"
    again_code, again_out, _ = run(*shlex.split(line)[2:])
    assert again_code == 3
    assert wrong in again_out
    assert failures(again_out) == failures(out)


def failures(out: str) -> list[str]:
    return re.findall(r"^FAILED .*\n.*$", out, re.MULTILINE)


@pytest.mark.usefixtures("restless")
def test_json_of_a_failure_stays_json(run: Run) -> None:
    seed = padded_seed()
    code, out, err = run("--seed", str(seed), "-p", "restless", "--json")
    assert code == 3
    assert json.loads(out)["failed"] == [seed]
    assert f"again: padrewrite fuzz --seed {seed} -p 'restless'" in err


@pytest.mark.usefixtures("restless")
def test_a_failure_can_be_made_small(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pr, "analyze", raising=False)  # it has no part in this, and takes its time
    seed = next(s for s in range(100) if len(seeded_network(s).steps) < 4 and is_rewritten(s))
    code, out, _ = run("--seed", str(seed), "-p", "restless", "--shrink")
    assert code == 3
    small = specification(out[out.index("smallest network") :])
    assert len(small.steps) == 1
    assert small.batch == 1


def fail_to_record(*args: Any, **kwargs: Any) -> Any:
    raise RecordError("nothing could be followed")


def test_a_failed_recording_has_its_own_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pr, "record", fail_to_record)
    code, out, _ = run("--seed", "1")
    assert code == 4
    assert "FAILED seed 1, recording" in out
    assert "RecordError: nothing could be followed" in out
    assert out.rstrip().endswith("again: padrewrite fuzz --seed 1")
    code, out, _ = run("--seed", "1", "--traceback")
    assert "Traceback (most recent call last)" in out


def test_a_network_that_torch_refuses_is_named_and_no_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = networks.NetSpec((1, 4), (), (networks.Pool((0,), "max", kernel=(2,), padding=(2,)),))
    monkeypatch.setattr("padrewrite.fuzzing.checking.seeded_network", lambda seed: spec)
    code, out, _ = run("--seed", "9")
    assert code == 0
    assert "torch refuses it, so there is nothing to check: RuntimeError" in out
    code, out, _ = run("--count", "2")
    assert code == 0
    assert "refused by torch itself: seeds 0, 1" in out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("-p", "partial-pading"), "unknown pass 'partial-pading'. Closest: partial-padding"),
        (("--seed", "1", "--count", "2"), "not allowed with argument"),
        (("--count", "0"), "'0' is not an integer of at least 1"),
        (("--seed", "-1"), "not an integer of at least 0"),
    ],
)
def test_errors_of_usage(run: Run, argv: tuple[str, ...], says: str) -> None:
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert says in err


def test_the_documented_code_runs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "fuzzing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "fuzzing.md", "exec", dont_inherit=True), {})
