"""The benchmark of symmetric convolutions; and what no clock is needed for: memory, kernels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._inductor.utils import fresh_cache, run_and_get_code

from padrewrite import nn
from padrewrite.benchmarking import symmetric
from padrewrite.benchmarking.intervals import Estimate
from padrewrite.benchmarking.symmetric import ODD, PLAIN, VARIANTS, Blocks, SymmetricBench, bench_symmetric
from padrewrite.cli import main
from padrewrite.ops.formulations import Row, read_table

SMALL: dict[str, Any] = {"batch": 2, "depth": 1, "rounds": 1, "warmup": 0}


@pytest.fixture(scope="module")
def measured() -> SymmetricBench:
    return bench_symmetric([(8, 6)], variants=(PLAIN, ODD, "concat"), **SMALL)


@pytest.mark.compile
def test_nothing_more_is_saved_for_backward_than_for_a_plain_even_kernel(measured: SymmetricBench) -> None:
    """Eager: one padded map of the input's channels, which the convolution keeps."""
    (case,) = measured.cases
    assert case.saved["concat"] == case.saved[PLAIN]
    assert set(case.kernels) == {PLAIN, ODD, "concat"}


@pytest.mark.compile
def test_its_record(measured: SymmetricBench) -> None:
    content = json.loads(measured.to_json())
    assert content["schema"] == "padrewrite.bench-symmetric/1"
    assert [timing["name"] for timing in content["cases"][0]["comparison"]["timings"]] == [PLAIN, ODD, "concat"]
    assert measured.cases[0].to_odd(ODD).value == 1


@pytest.mark.compile
def test_the_fastest_become_the_table(measured: SymmetricBench) -> None:
    (case,) = measured.cases

    def timed(channels: int, best: str) -> Any:
        times = {name: 1.0 if name == best else 2.0 for name in ("concat", "embedded", "crops")}
        base = case.comparison.timings[0]
        timings = [replace(base, name=name, ratio=Estimate(t, t, t, 1.0)) for name, t in times.items()]
        return replace(case, channels=channels, comparison=replace(case.comparison, timings=tuple(timings)))

    cases = (timed(64, "concat"), timed(16, "embedded"), timed(128, "concat"))
    assert replace(measured, cases=cases).rows() == (
        Row("cpu", "contiguous", 0, "embedded"),
        Row("cpu", "contiguous", 64, "concat"),
    )


def test_runs_on_other_devices_and_in_other_formats_add_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(device: str, channels_last: bool, formulation: str) -> tuple[Row, ...]:
        layout = "channels_last" if channels_last else "contiguous"
        fake = SimpleNamespace(rows=lambda: (Row(device, layout, 0, formulation),), to_json=lambda: "{}")
        monkeypatch.setattr(symmetric, "bench_symmetric", lambda *_args, **_kwargs: fake)
        assert main(["bench", "--symmetric", "8x6", "--tune", str(file), "--json"]) == 0
        return read_table(file.read_text(encoding="utf-8"), str(file))

    file = tmp_path / "table.json"
    first, second = Row("cpu", "contiguous", 0, "concat"), Row("cpu", "channels_last", 0, "crops")
    assert run("cpu", False, "concat") == (first,)
    assert run("cpu", True, "crops") == (second, first)
    assert run("cuda", False, "embedded") == (second, first, Row("cuda", "contiguous", 0, "embedded"))
    assert run("cpu", False, "crops")[:2] == (second, replace(first, formulation="crops"))
    file.write_text("{}", encoding="utf-8")
    assert main(["bench", "--symmetric", "8x6", "--tune", str(file)]) == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_keep_the_size(variant: str) -> None:
    assert Blocks(variant, 8, 2)(torch.randn(2, 8, 6, 7)).shape == (2, 8, 6, 7)


@pytest.mark.compile
def test_what_is_joined_is_written_as_the_convolution_reads_it() -> None:
    """Inductor convolves channels last on CPUs; written the other way the joined map is converted, a second pass."""
    model = torch.nn.Sequential(torch.nn.ReLU(), nn.SymmetricConv2d(16, 16, 2, padding="same"))
    x = torch.randn(2, 16, 5, 6)
    torch._dynamo.reset()
    with fresh_cache():
        out, (code, *_) = run_and_get_code(torch.compile(model), x)
    assert out.stride() == model(x).stride()
    layouts = re.findall(r"empty_strided_cpu\(\(2, 16, 6, 7\), \((.*?)\)", code)
    assert layouts == ["672, 1, 112, 16"]


@pytest.mark.compile
def test_compiled_it_launches_no_kernel_more_than_a_padded_even_convolution() -> None:
    """Forward and backward of batch norm, ReLU and convolution: as many fused functions."""
    launched: dict[str, list[int]] = {}
    for variant in (PLAIN, "concat"):
        torch._dynamo.reset()
        compiled: Any = torch.compile(Blocks(variant, 8, 2).train())
        x = torch.randn(2, 8, 6, 7, requires_grad=True)
        with fresh_cache():
            _, codes = run_and_get_code(lambda c=compiled, x=x: c(x).square().mean().backward())
        launched[variant] = [code.count("async_compile.cpp_pybinding(") for code in codes]
    assert launched["concat"] == launched[PLAIN]
    assert len(launched["concat"]) == 2
