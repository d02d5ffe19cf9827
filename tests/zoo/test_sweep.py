"""The sweep itself: results are kept and reused, what fails is a row, and the pages are a function of the rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import padrewrite
from padrewrite.registry import known_passes

from . import sweep as sweeping_program
from .awkward import AWKWARD
from .catalogue import ENTRIES, LATE, Entry
from .counting import ConvolutionCall
from .networks import NETWORKS, Network, noise, seeded
from .sweep import main, sweep, write_pages
from .sweeping import cache, measuring, worker
from .sweeping.cache import Cache, state_of_sources
from .sweeping.coverage import bound, coverage_page
from .sweeping.findings_page import findings_page
from .sweeping.measuring import Steps, measure, scrubbed
from .sweeping.rows import Analysed, Failure, Finding, PassRow, Refusal, Row

PASS = "partial-padding"
ONE = Row(
    "one", "monai", "1x3x8x8", 5, "symbolic", (), 0.0,
    Analysed(5, 1, (Finding("gridding", "a", "holes", "warning", ("a", "c")),
                    Finding("gridding", "c", "holes", "warning")), {"stopped at reshape": 2}, ("sizes unknown",)),
    (PassRow(PASS, 2, 1, 2, 3, {"unpadded": 1}, (Refusal("c", "cropping", "padding | crops"),
             Refusal("d", "cropping", "padding crops")), "full", 3e-14, 1, (), True),),
    (), {"build": 1.5},
)  # fmt: skip
TWO = Row(
    "two", "monai", "2x1x9", 7, "real inputs", ("sizes were read",), 3e-3, Analysed(1, 0, ()),
    (PassRow(PASS, 1, 6, 0, 0, {"same": 1, "unpadded": 5}, (), "quick", 0.5, 0,
             ("end to end was not checked",), False),),
    (Failure("equal to eager", "different", "off"), Failure("verify partial-padding", "contract", "a differs")),
)  # fmt: skip
THREE = Row("three", "pytorchcv", failures=(Failure("process", "timed out", "not done after 1 s"),))
ROWS = [ONE, TWO, THREE]

COVERAGE = """\
## Totals

* 3 networks, 12 convolution calls
* 2 recorded (1 real inputs, 1 symbolic), 1 equal to eager
* 2 analysed
* `partial-padding`: 1 networks without a failure, 1 end to end; rewritten / kept / refused: 3 / 7 / 2 convolutions
* 2 networks with a failure

## Networks

| network | package | input | convs | recorded | equal | findings | partial-padding | failed |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| one | monai | 1x3x8x8 | 5 | symbolic | yes | 2 | 2 / 1 / 2 + 3 1e-13 full |  |
| two | monai | 2x1x9 | 7 | real inputs | no | 0 | 1 / 6 / 0 1e0 | equal to eager, verify partial-padding |
| three | pytorchcv |  |  |  |  |  |  | process |

## Kept, by code

| pass | code | convolutions | networks |
| --- | --- | --- | --- |
| `partial-padding` | `same` | 1 | 1 |
| `partial-padding` | `unpadded` | 6 | 2 |

## Refused

| pass | code | convolutions | for example | networks |
| --- | --- | --- | --- | --- |
| `partial-padding` | `cropping` | 2 | one `c`: padding \\| crops | one (2) |

## Failed

| network | step | error | message |
| --- | --- | --- | --- |
| two | equal to eager | different | off |
| two | verify partial-padding | contract | a differs |
| three | process | timed out | not done after 1 s |

## Recorded with a note

| note | networks |
| --- | --- |
| sizes were read | two |

## Not verified in full

| note | networks |
| --- | --- |
| `partial-padding`: end to end was not checked | two |

## Where spatial reasoning ended

| note | networks |
| --- | --- |
| sizes unknown | one |
| stopped at reshape | one (2) |
"""

FINDINGS = """\
2 of 3 networks were analysed.

| finding | severity | networks | sites |
| --- | --- | --- | --- |
| `gridding` | warning | 1 | 2 |

## `gridding`

For example one `a`: holes

one (2)

## Without any finding

two

## Not analysed

three
"""


def from_line(page: str, start: str) -> str:
    return page[page.index(f"\n{start}") + 1 :]


def entries(*names: str) -> list[Entry]:
    return [Entry(Network(name, nn.Identity, noise(1)), f"spec of {name}") for name in names]


def test_coverage_page() -> None:
    assert from_line(coverage_page(ROWS), "## Totals") == COVERAGE


def test_findings_page() -> None:
    assert from_line(findings_page(ROWS), "2 of 3") == FINDINGS
    assert findings_page([THREE]).endswith("\nNo network was analysed.\n")


def test_pages_do_not_depend_on_order_or_time() -> None:
    shuffled = [replace(row, seconds={"build": 99.0}) for row in ROWS]
    random.Random(0).shuffle(shuffled)
    assert coverage_page(shuffled) == coverage_page(ROWS)
    assert findings_page(shuffled) == findings_page(ROWS)


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, "nothing compared"), (0.0, "0"), (3e-14, "1e-13"), (1e-13, "1e-13"), (0.5, "1e0"), (2.0, "1e1")],
)
def test_bound(error: float | None, text: str) -> None:
    assert bound(error) == text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_survive_json(row: Row) -> None:
    again = Row.from_json(json.loads(json.dumps(row.to_json())))
    assert again == row


def counting_measure(measured: list[str]) -> Callable[[Entry, float], Row]:
    def one(entry: Entry, limit: float) -> Row:
        measured.append(entry.name)
        return Row(entry.name, "made up")

    return one


def test_second_run_does_nothing(tmp_path: Path) -> None:
    measured: list[str] = []
    three, cache, one = entries("a", "b", "c"), Cache(tmp_path, "s"), counting_measure(measured)
    assert sorted(sweep(three[:2], cache, measure=one)) == ["a", "b"]
    assert sweep(three, cache, measure=one, jobs=2) == ["c"]
    assert sweep(three, Cache(tmp_path, "s"), measure=one) == []
    assert measured == ["a", "b", "c"]
    assert sweep(three[:1], cache, measure=one, fresh=True) == ["a"]
    assert sorted(sweep(three, Cache(tmp_path, "other sources"), measure=one)) == ["a", "b", "c"]


def test_what_is_damaged_or_built_otherwise_is_measured_again(tmp_path: Path) -> None:
    cache, (a, b, c, d) = Cache(tmp_path, "s"), entries("a", "b", "c", "d")
    for entry in (a, b, c, d):
        cache.store(entry, Row(entry.name, "made up"))
    cache.path("b").write_text(cache.path("b").read_text(encoding="utf-8")[:40], encoding="utf-8")
    damaged = json.loads(cache.path("c").read_text(encoding="utf-8"))
    del damaged["row"]["passes"]
    cache.path("c").write_text(json.dumps(damaged), encoding="utf-8")
    again = cache.missing([a, b, c, replace(d, spec="another spec")])
    assert [entry.name for entry in again] == ["b", "c", "d"]
    assert not list(tmp_path.glob("*.tmp"))


def test_interrupted_networks_are_not_kept(tmp_path: Path) -> None:
    def interrupted(entry: Entry, limit: float) -> Row:
        raise worker.Interrupted(entry.name)

    cache, listed = Cache(tmp_path, "s"), entries("a")
    assert sweep(listed, cache, measure=interrupted) == []
    assert cache.missing(listed) == listed


def test_pages_say_what_they_lack(tmp_path: Path) -> None:
    cache, listed = Cache(tmp_path / "cache", "s"), entries("one", "two", "three")
    assert write_pages(listed, cache, tmp_path) == ["one", "three", "two"]
    assert not list(tmp_path.glob("*.md"))
    for entry, row in zip(listed[:2], ROWS, strict=False):
        cache.store(entry, row)
    assert write_pages(listed, cache, tmp_path) == ["three"]
    page = (tmp_path / "coverage.md").read_text(encoding="utf-8")
    assert page == coverage_page(ROWS[:2], ["three"], "s")
    assert page.endswith(
        "## Not measured\n\nThis page has no row for 1 of the catalogue's 3 networks: "
        "the run that wrote it ended before them.\n\nthree\n"
    )
    cache.store(listed[2], THREE)
    assert write_pages(listed, cache, tmp_path) == []
    page = (tmp_path / "coverage.md").read_text(encoding="utf-8")
    assert page == coverage_page(ROWS, state="s")
    assert "sources of hash `s`" in page
    assert "Not measured" not in page
    assert (tmp_path / "zoo-findings.md").read_text(encoding="utf-8") == findings_page(ROWS)


def test_nothing_is_begun_after_the_time(tmp_path: Path) -> None:
    measured: list[str] = []
    three, cache, one = entries("a", "b", "c"), Cache(tmp_path, "s"), counting_measure(measured)
    assert sweep(three, cache, measure=one, minutes=0) == []
    assert sweep(three, cache, measure=one, minutes=60) == ["a", "b", "c"]


def test_unknown_name_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "no-such-network"]) == 2
    assert "no-such-network" in capsys.readouterr().out


def test_no_pages_from_sources_that_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = entries("one", "two", "three")
    monkeypatch.setattr(sweeping_program, "ENTRIES", listed)
    monkeypatch.setattr(cache, "state_of_sources", lambda: "these")
    for entry, row in zip(listed, ROWS, strict=True):
        Cache(tmp_path).store(entry, row)
    arguments = ["--cache", str(tmp_path), "--docs", str(tmp_path)]
    monkeypatch.setattr(sweeping_program, "state_of_sources", lambda: "newer")
    assert main(arguments) == 1
    assert "The sources changed meanwhile" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.md"))
    monkeypatch.setattr(sweeping_program, "state_of_sources", lambda: "these")
    assert main(arguments) == 0
    assert (tmp_path / "coverage.md").read_text(encoding="utf-8") == coverage_page(ROWS, state="these")


def test_state_follows_the_sources(tmp_path: Path) -> None:
    def write(name: str, text: str) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return state_of_sources(tmp_path)

    for name in ("networks", "counting", "test_networks", "sweeping/measuring", "sweeping/rows"):
        (tmp_path / "tests/zoo/sweeping").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"tests/zoo/{name}.py").touch()
    states = [
        write("padrewrite/a.py", ""),
        write("padrewrite/a.py", "x = 1"),
        write("padrewrite/ops/a.py", "x = 1"),
        write("passes/padrewrite_passes/p.py", ""),
        write("tests/zoo/networks.py", "x = 1"),
    ]
    assert len(set(states)) == len(states)
    assert write("docs/coverage.md", "# Coverage") == states[-1]


def small(make: Callable[[], nn.Module], name: str = "small") -> Network:
    return Network(name, seeded(lambda: make().eval()), noise(1, 3, 9, 11), package="made up")


def two_convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))


def test_one_network_through_every_step() -> None:
    row = measure(small(two_convolutions))
    assert row.failures == ()
    assert (row.convolutions, row.how, row.difference, row.input) == (2, "symbolic", 0.0, "1x3x9x11")
    assert {p.name for p in row.passes} >= {"partial-padding", "padding-mode"}
    for found in row.passes:
        assert found.rewritten + found.kept + found.refused == 2
        assert found.done
    partial = next(p for p in row.passes if p.name == PASS)
    assert (partial.rewritten, partial.kept_codes, partial.level) == (1, {"unpadded": 1}, "full")
    assert partial.worst is not None
    assert partial.worst < 1e-10


def test_passes_that_do_nothing_by_their_bare_name_have_options() -> None:
    row = measure(small(lambda: nn.Sequential(two_convolutions(), nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 2, 2))))
    assert row.failures == ()
    found = {p.name: p for p in row.passes}
    assert {name.partition("{")[0] for name in found} == set(known_passes())
    refined = found["boundary-refinement{at=...}"]
    assert (refined.rewritten, refined.kept_codes, refined.level) == (1, {"not-named": 3}, "full")
    assert [found[f"symmetric-even{options}"].rewritten for options in ("", "{from_odd=True}")] == [0, 1]


def test_pools_rewritten_alone_are_verified_too() -> None:
    halved = [nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)) for _ in range(5)]
    row = measure(replace(small(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), *halved)), inputs=noise(1, 3, 64, 96)))
    found = next(p for p in row.passes if p.name == "output-stride")
    assert row.failures == ()
    assert (found.rewritten, found.others) == (0, 1)
    assert found.level


def broken() -> nn.Module:
    raise RuntimeError("the package is missing\nat /some/folder/file.py")


class Fails(nn.Module):
    """A forward that raises."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("sizes do not fit")


class Overflows(nn.Module):
    """Outputs that cannot be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) / 0


@pytest.mark.parametrize(
    ("make", "step", "error", "message"),
    [
        (broken, "build", "RuntimeError", "the package is missing at file.py"),
        (Fails, "count", "ValueError", "sizes do not fit"),
        (Overflows, "equal to eager", "not finite", "an output has values"),
    ],
)
def test_failing_network_is_a_row(
    make: Callable[[], nn.Module], step: str, error: str, message: str
) -> None:
    failure = measure(small(make)).failures[0]
    assert (failure.step, failure.error) == (step, error)
    assert message in failure.message


def test_network_that_cannot_be_recorded_is_a_row() -> None:
    row = measure(AWKWARD["VmapInside"])
    assert [f.step for f in row.failures] == ["record"]
    assert (row.how, row.passes, row.convolutions) == ("", (), 1)


@pytest.mark.parametrize("broken_step", ["plan", "apply", "verify", "revert"])
def test_failing_step_of_a_pass_is_a_row(broken_step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("broken on purpose")

    monkeypatch.setattr(*((measuring, "plan_recorded") if broken_step == "plan" else (padrewrite, broken_step)), fail)
    monkeypatch.setattr(measuring, "default_passes", lambda _: [PASS])
    row = measure(small(two_convolutions))
    assert [(f.step, f.error) for f in row.failures] == [(f"{broken_step} {PASS}", "AssertionError")]
    assert not row.passes[0].done


def test_an_undecided_convolution_is_a_failure() -> None:
    model, x = two_convolutions(), torch.randn(1, 3, 9, 11)
    plan = padrewrite.plan(model, [PASS], example_inputs=x)
    first, second = (
        ConvolutionCall("aten::convolution", shape, (1, 3, 9, 11)) for shape in ((4, 3, 3, 3), (4, 4, 1, 1))
    )
    for calls, error in (
        ([first, second], []),
        ([first, second, second], ["count"]),
        ([second, first], ["order"]),
    ):
        steps = Steps()
        measuring._check_decisions(PASS, plan, calls, steps)
        assert [f.error for f in steps.failures] == error


def test_a_wrong_revert_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padrewrite, "revert", lambda new: new)
    monkeypatch.setattr(measuring, "default_passes", lambda _: [PASS])
    errors = [f.error for f in measure(small(two_convolutions)).failures]
    assert errors == ["classes", "different"]


@pytest.mark.parametrize(
    ("program", "limit", "error", "message"),
    [
        ("import time; time.sleep(60)", 0.3, "timed out", "not done after 0.3 s"),
        (
            "from zoo.sweeping.worker import limit_processor_time as limit\nlimit(1)\nwhile True: pass",
            60,
            "timed out",
            "it used up its processor time",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 60, "killed", "by signal SIGKILL"),
        ("raise MemoryError('no room')", 60, "ended early", "exit status 1: MemoryError: no room"),
    ],
)
def test_process_that_gives_no_row(
    program: str, limit: float, error: str, message: str, tmp_path: Path
) -> None:
    row = worker._row_of(entries("a")[0], exec, (program, {}), tmp_path / "row.json", limit)
    assert row.failures == (Failure("process", error, message),)


def test_process_ended_from_outside_is_no_row(tmp_path: Path) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    with pytest.raises(worker.Interrupted):
        worker._row_of(entries("a")[0], exec, (program, {}), tmp_path / "row.json", 60)


def test_catalogue_is_broad() -> None:
    names = [entry.name for entry in ENTRIES]
    assert len(names) == len(set(names)) >= 200
    assert set(NETWORKS) <= set(names)
    assert all(name.replace("_", "").isalnum() for name in names), "names are file names"
    assert {entry.network.package for entry in ENTRIES} == {"pytorchcv", "monai", "efficientnet_pytorch"}
    late = set(LATE.split())
    assert late < set(names)
    assert list(ENTRIES) == sorted(ENTRIES, key=lambda e: (e.name in late, e.network.package or "", e.name))


def test_scrubbed() -> None:
    text = "File /home/someone/site-packages/net.py:88 failed\n  <object at 0x7f00aa00bb00>\n3/4 done"
    assert scrubbed(text) == "File net.py:88 failed <object at 0x...> 3/4 done"
