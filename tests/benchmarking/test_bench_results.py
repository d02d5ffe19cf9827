"""The report's JSON and text, from made-up readings."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from padrewrite.benchmarking.comparing import summarize
from padrewrite.benchmarking.machine import Machine
from padrewrite.benchmarking.results import BenchReport, Case, Structure

MACHINE = Machine("Some CPU 7", None, "Linux x86_64", "3.12.1", "2.13.0", 4)


def _case(mode: str, phase: str, scale: float = 1.0, rounds: int = 6) -> Case:
    times = {
        "original": [scale * (1 + 0.01 * i) for i in range(rounds)],
        "rewritten": [scale * 1.25 * (1 + 0.01 * i) for i in range(rounds)],
    }
    comparison = summarize({"original": 2 * scale, "rewritten": 5 * scale}, times, warmup=2)
    compiled = Structure(graphs=1, graph_breaks=0, recompiles=0, kernels=12, compile_seconds=3.5, peak_bytes=7)
    eager = Structure(saved_bytes=1_500_000 if phase == "train" else None)
    structures = dict.fromkeys(times, compiled if mode == "compiled" else eager)
    return Case(mode, phase, comparison, structures)


def _report(*cases: Case, rounds: int = 6, machine: Machine = MACHINE) -> BenchReport:
    return BenchReport(machine, "cpu", "float32", False, ((8, 3, 224, 224),), rounds, 2, cases)


FULL = _report(*(_case(mode, phase, 0.1234567) for mode in ("eager", "compiled") for phase in ("eval", "train")))

VARIANT_KEYS = {"name", "seconds", "ratio", "first_iteration", "structure"}
STRUCTURE_KEYS = {
    "graphs", "graph_breaks", "recompiles", "kernels", "compile_seconds", "saved_bytes", "peak_bytes",
}  # fmt: skip


def test_json_schema() -> None:
    content = json.loads(FULL.to_json())
    assert content["schema"] == "padrewrite.bench/1"
    assert set(content) == {
        "schema", "machine", "device", "dtype", "channels_last", "sizes", "rounds", "warmup", "cases",
    }  # fmt: skip
    assert set(content["machine"]) == {"processor", "accelerator", "system", "python", "torch", "threads"}
    assert content["sizes"] == [[8, 3, 224, 224]]
    assert [(case["mode"], case["phase"]) for case in content["cases"]] == [
        ("eager", "eval"), ("eager", "train"), ("compiled", "eval"), ("compiled", "train"),
    ]  # fmt: skip
    for case in content["cases"]:
        assert [variant["name"] for variant in case["variants"]] == ["original", "rewritten"]
        for variant in case["variants"]:
            assert set(variant) == VARIANT_KEYS
            assert set(variant["structure"]) == STRUCTURE_KEYS
            for figure in (variant["seconds"], variant["ratio"]):
                assert set(figure) == {"median", "interval", "coverage"}
                assert figure["interval"][0] <= figure["median"] <= figure["interval"][1]


def test_json_figures_and_raw_rounds() -> None:
    report = _report(_case("compiled", "train"))
    rewritten = json.loads(report.to_json(raw=True))["cases"][0]["variants"][1]
    assert rewritten["rounds"] == pytest.approx([1.25, 1.2625, 1.275, 1.2875, 1.3, 1.3125])
    assert rewritten["ratio"]["median"] == pytest.approx(1.25)
    assert rewritten["first_iteration"] == {
        "seconds": {"median": 5.0, "interval": [5.0, 5.0], "coverage": 0.0},
        "ratio": {"median": 2.5, "interval": [2.5, 2.5], "coverage": 0.0},
        "pairs": 1,
    }
    assert rewritten["structure"]["kernels"] == 12
    assert rewritten["structure"]["saved_bytes"] is None


def test_json_is_the_same_bytes_every_time() -> None:
    assert FULL.to_json(raw=True) == FULL.to_json(raw=True)
    assert list(json.loads(FULL.to_json())) == sorted(json.loads(FULL.to_json()))


@pytest.mark.parametrize("scale", [9.999e-5, 0.00999999, 0.99994, 999.0])
def test_text_is_plain_and_fits_100_columns(scale: float) -> None:
    cases = [_case(mode, "train", scale) for mode in ("eager", "compiled")]
    lengthy = Machine("Processor " * 20, None, "Linux x86_64", "3.12.1", "2.13.0", 4)
    lines = str(_report(*cases, machine=lengthy)).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("\x1b" in line for line in lines)
    rows = [line for line in lines if " train " in line]
    assert len(rows) == 8, "a row per variant in each of two tables, none wrapped"


def test_text_says_what_was_run_and_what_came_out() -> None:
    text = str(FULL)
    assert text.startswith("Some CPU 7, 4 threads, torch 2.13.0, float32, input 8x3x224x224, 6 rounds")
    row = next(line.split() for line in text.splitlines() if line.startswith("compiled") and "rewritten" in line)
    assert row[:3] == ["compiled", "eval", "rewritten"]
    assert row[3:5] == ["158.2", "ms"]
    assert row[8:] == ["1.250", "1.250", "..", "1.250", "617.3", "ms", "2.50"]
    assert "1.50 MB" in text
    assert "too few" not in text


@pytest.mark.parametrize(("threads", "words"), [(1, ", 1 thread, "), (2, ", 2 threads, ")])
def test_threads_are_counted_in_words(threads: int, words: str) -> None:
    assert words in str(Machine("Some CPU", None, "Linux x86_64", "3.12.1", "2.13.0", threads))


def test_few_rounds_are_confessed() -> None:
    assert "too few rounds (3): the intervals cover 75 % only" in str(
        _report(_case("eager", "eval", rounds=3), rounds=3)
    )


def test_counts_that_nobody_took_have_no_table() -> None:
    assert "graphs" not in str(_report(_case("eager", "eval")))


def test_colours_only_where_the_terminal_has_them() -> None:
    def shown(terminal: bool) -> str:
        file = io.StringIO()
        Console(file=file, width=100, force_terminal=terminal, color_system="standard" if terminal else "auto").print(
            FULL
        )
        return file.getvalue()

    assert "\x1b[" in shown(True)
    assert "\x1b[" not in shown(False)


def test_markdown_tables_are_rectangular() -> None:
    blocks = FULL.to_markdown().split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert [len(table) for table in tables] == [10, 8]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert "first ratio" in tables[0][0]


def test_case_lookup() -> None:
    assert FULL.case("eager", "train").phase == "train"
    with pytest.raises(KeyError, match="no case"):
        _report().case("eager", "train")
