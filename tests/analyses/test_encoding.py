"""An analysis as JSON: what is in it, in which form, and that it is the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from reporting.analyses import analyses, chain, found, make_analysis, node, phase, record, unknown
from torch import nn

import padrewrite as pr
from padrewrite.analyses.analysis import Analysis
from padrewrite.analyses.encoding import analysis_json
from padrewrite.analyses.phases import AxisPhase
from padrewrite.analyses.scene import BEHIND_POOL
from padrewrite.analyses.size_forms import SizeForm
from padrewrite.analyses.support import Reached
from padrewrite.analyses.totals import totals


def site(**kwargs: Any) -> dict[str, Any]:
    return analysis_json(make_analysis([record(**kwargs)]))["sites"]["stem"]


def test_one_convolution_in_full() -> None:
    axis = {"scale": "2", "offset": "1/2", "low": "1/2", "high": "1/2", "other_scales": []}
    assert site() == {
        "op": {
            "kernel_size": [3, 3],
            "stride": [2, 2],
            "dilation": [1, 1],
            "padding": [[1, 1], [1, 1]],
            "groups": 1,
            "in_channels": 3,
            "out_channels": 8,
            "padding_mode": "zeros",
            "transposed": False,
        },
        "source": "net.py:14",
        "input_size": [32, 48],
        "output_size": [16, 24],
        "size": ["floor((H + 1)/2)"] * 2,
        "phase": [axis, axis],
        "receptive_field": [3, 3],
        "reached": {"extents": [3, 3], "count": 9, "holes": 0},
        "reached_of": {"0": {"extents": [3, 3], "count": 9, "holes": 0}},
        "context": False,
        "valid_weights": "3337/3456",
        "saw_padding": 0.1015625,
        "border": {"q": 0.98, "corner": 0.7, "edge": 0.85, "centre": 1.0},
        "partial_border": {"q": 1.02, "corner": 1.5, "edge": 1.25, "centre": 1.0},
        "parameters": 224,
        "macs": 82944,
        "ended": None,
        "field_ended": None,
    }


def test_what_is_not_known_is_null() -> None:
    one = analysis_json(make_analysis([unknown()]))["sites"]["stem"]
    known = {name for name, value in one.items() if value not in (None, {}, [None, None])}
    assert known == {"op", "source", "context", "parameters", "ended"}


def test_tensors_and_outputs() -> None:
    later = replace(SizeForm(2, (0, 2)), since=7)
    one = node("pool", call="max_pool2d", size=(later, None), phase=(phase(2), None), receptive_field=(3, None))
    made = analysis_json(make_analysis(nodes={"pool": one}, outputs=(one,)))
    axis = {"scale": "2", "offset": "0", "low": "0", "high": "0", "other_scales": []}
    wanted = {
        "call": "max_pool2d",
        "source": "net.py:20",
        "shape": [1, 21, 32, 48],
        "dims": [2, 3],
        "inputs": [[0, 2], [0, 3]],
        "size": [str(later), None],
        "size_since": [7, None],
        "unchanged": None,
        "phase": [axis, None],
        "receptive_field": [3, None],
        "ended": None,
    }
    assert made["nodes"] == {"pool": wanted}
    assert made["outputs"] == [{"id": "pool", **wanted}]


def test_fractions_are_text() -> None:
    paths = AxisPhase(Fraction(2), Fraction(1, 2), Fraction(0), Fraction(3, 2), (Fraction(1, 3), Fraction(4)), 2)
    axis = site(phase=(paths, None))["phase"]
    assert axis == [
        {"scale": "2", "offset": "1/2", "low": "0", "high": "3/2", "other_scales": ["1/3", "4"]},
        None,
    ]
    assert [Fraction(axis[0][name]) for name in ("scale", "offset")] == [paths.scale, paths.offset]


def test_holes_are_counted() -> None:
    assert site(reached_of={0: Reached((13, 13), 49)})["reached"] == {"extents": [13, 13], "count": 49, "holes": 120}


def test_inputs_are_kept_apart() -> None:
    one = site(reached_of={0: Reached((3, 3), 9), 2: Reached((5, 5), 9)})
    assert one["reached"] is None
    assert {given: seen["holes"] for given, seen in one["reached_of"].items()} == {"0": 0, "2": 16}


def test_sites_keep_the_order_of_execution() -> None:
    names = ["stem", "body.10", "body.9", "body.9@1"]
    made = make_analysis([record(name) for name in names])
    assert list(json.loads(made.to_json())["sites"]) == names


def test_findings_and_chains() -> None:
    finding = found("gridding", "stem", "holes", cure="hybrid-dilation", source="net.py:14", sites=("stem", "next"))
    made = analysis_json(make_analysis(findings=[finding], chains=(chain(["stem", "next"], ["before"]),)))
    assert made["findings"] == [
        {
            "code": "gridding",
            "site": "stem",
            "message": "holes",
            "severity": "warning",
            "numbers": {"share": "1/4"},
            "cure": "hybrid-dilation",
            "source": "net.py:14",
            "sites": ["stem", "next"],
        }
    ]
    (one,) = made["chains"]
    assert (one["sites"], one["lead_in"], one["axes"]) == (["stem", "next"], ["before"], [0, 1])
    alone = {"rates": [2, 2], "kernels": [3, 3], "m2": 2, "hole_free": False, "score": 1.0, "networks": 2}
    assert one["alone"] == alone
    assert one["with_lead_in"]["rates"] == [1, 2, 2]


def test_totals_are_sums_and_extremes() -> None:
    records = [
        record(receptive_field=(3, 9)),
        record("deep", phase=(phase(8), phase(4)), receptive_field=(35, 5)),
        record("up", phase=(phase("1/2"), phase(1)), receptive_field=(7, 7)),
        unknown("lost", macs=1),
    ]
    made = make_analysis(records, [found("gridding"), found("zero-border"), found("padded-average")])
    assert analysis_json(made)["totals"] == {
        "convolutions": 4,
        "warnings": 1,
        "notes": 2,
        "parameters": 4 * 224,
        "macs": 3 * 82944 + 1,
        "output_stride": ["1/2", "1"],
        "coarsest_stride": ["8", "4"],
        "receptive_field": [35, 9],
        "receptive_field_complete": False,
    }


def test_totals_of_nothing_claim_nothing() -> None:
    whole = totals(make_analysis([]))
    assert (whole.output_stride, whole.coarsest_stride, whole.receptive_field) == (None, None, None)
    assert (whole.convolutions, whole.macs) == (0, 0)


def test_the_field_is_complete_where_all_are_known_or_pooled_away() -> None:
    pooled = record("gate", receptive_field=(None, None), ended=BEHIND_POOL)
    assert totals(make_analysis([record(), pooled])).receptive_field_complete
    for ended in (None, "flip reverses dimension 3"):
        other = record("other", receptive_field=(3, None), ended=ended)
        assert not totals(make_analysis([record(), pooled, other])).receptive_field_complete


def test_a_layer_that_is_called_twice_holds_its_weights_once() -> None:
    whole = totals(make_analysis([record(), record("stem@1")]))
    assert (whole.convolutions, whole.parameters, whole.macs) == (2, 224, 2 * 82944)


def test_strides_of_the_highest_rank_count() -> None:
    line = record("line", phase=(phase(64),), receptive_field=(999,))
    assert totals(make_analysis([line, record(), line])).receptive_field == (3, 3)


@given(analyses())
def test_every_analysis_is_plain_json(analysis: Analysis) -> None:
    text = analysis.to_json()
    content = json.loads(text)
    assert content["schema"] == "padrewrite.analysis/1"
    assert content["version"] == pr.__version__
    assert text == analysis.to_json()
    assert {**analysis_json(analysis)} == {k: v for k, v in content.items() if k not in ("schema", "version")}
    assert json.dumps(content, allow_nan=False)


SCRIPT = """
import torch
from torch import nn
import padrewrite as pr
layers = [nn.Conv2d(3, 4, 4, stride=2), nn.Conv2d(4, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 4, 3, dilation=2)]
model = nn.Sequential(*layers, nn.Upsample(scale_factor=2))
print(pr.analyze(model, example_inputs=torch.zeros(1, 3, 33, 47)).to_json())
"""


def test_the_same_bytes_in_any_process() -> None:
    root = str(Path(__file__).resolve().parents[2])
    printed: list[str] = []
    for seed in ("0", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert len(json.loads(printed[0])["sites"]) == 3


@pytest.mark.parametrize("inputs", [torch.zeros(1, 3, 16, 24), None])
def test_a_real_model_is_encoded(inputs: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, stride=2))
    made = json.loads(pr.analyze(model, example_inputs=inputs).to_json())
    assert list(made["sites"]) == ["0", "2"]
    assert made["sites"]["2"]["op"]["transposed"] is True
    assert made["sites"]["0"]["output_size"] == (None if inputs is None else [16, 24])
    assert made["totals"]["parameters"] == sum(p.numel() for p in model.parameters())
