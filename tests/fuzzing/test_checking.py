"""The checks hold on networks that are fine, and each of them fails when its promise is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import padrewrite as pr
from padrewrite.errors import ContractViolation, RecordError
from padrewrite.fuzzing import checking
from padrewrite.fuzzing.checking import check_network, check_spec, default_passes
from padrewrite.fuzzing.counting import Dispatched
from padrewrite.fuzzing.networks import (
    Convolve,
    Interpolate,
    LayerSpec,
    NetSpec,
    Pool,
    Transpose,
    TransposedSpec,
)
from padrewrite.fuzzing.results import Outcome, Result, results_json

from .broken import Overstepping, Restless, Stumbling

PADDED = NetSpec(
    shape=(2, 7, 9),
    layers=(LayerSpec(2, 3, kernel=(3, 3), padding=(1, 1)), LayerSpec(3, 2, kernel=(1, 1))),
    steps=(Convolve((0,), layer=0), Convolve((1,), layer=1)),
)
ONE = ["partial-padding"]


def failed(result: Result) -> dict[str, Outcome]:
    return {outcome.check: outcome for outcome in result.failures}


@pytest.mark.parametrize("seed", [1, 2, 6])
def test_a_random_network_keeps_every_promise(seed: int) -> None:
    result = check_network(seed)
    assert result.ok, f"seed {seed}\n{result.spec}\n{result.failures}"
    assert result.refused is None
    checks = {outcome.check for outcome in result.outcomes}
    assert {f"{name}: {check}" for name in default_passes() for check in ("contract", "second run", "revert")} <= checks
    assert result.how == "symbolic"


def test_what_is_checked() -> None:
    result = check_spec(PADDED, ONE)
    notes = {outcome.check: outcome.note for outcome in result.outcomes if outcome.status == "held"}
    assert notes["recording"] == "symbolic, 3 calls, equal to eager"
    assert notes["other sizes"] == "8x11, 6x7"
    assert notes["partial-padding: contract"].startswith("1 rewritten, worst error ")
    assert set(notes) - {"analysis"} == {
        *("recording", "other sizes", "the original is untouched"),
        *(f"partial-padding: {check}" for check in ("contract", "one decision each", "second run", "revert")),
    }
    assert (result.convolutions, result.ok, result.recorded) == (2, True, True)


def test_a_result_is_the_same_twice_and_holds_no_paths() -> None:
    texts = [json.dumps(results_json([check_network(6, [*ONE, "nonsense"])], ONE)) for _ in range(2)]
    assert texts[0] == texts[1]
    assert str(Path.home()) not in texts[0]
    assert str(Path(checking.__file__).parents[2]) not in texts[0]
    assert json.loads(texts[0])["failed"] == [6]


def test_a_network_that_torch_refuses_is_no_failure() -> None:
    spec = NetSpec((1, 4, 4), (), (Pool((0,), "max", kernel=(2, 2), padding=(2, 2)),))
    result = check_spec(spec)
    assert result.ok
    assert not result.outcomes
    assert result.refused is not None
    assert "pad should be at most half of effective kernel size" in result.refused


def test_fixed_sizes_are_checked_at_one_size() -> None:
    steps = (Convolve((0,), layer=0), Interpolate((1,), "nearest", size=(7, 9)), Convolve((2,), layer=1))
    (found,) = [o for o in check_spec(replace(PADDED, steps=steps), []).outcomes if o.check == "other sizes"]
    assert (found.status, found.note) == ("held", "8x11, 6x7")
    narrow = replace(PADDED, shape=(2, 1, 1))
    narrow = replace(narrow, layers=(LayerSpec(2, 3, (3, 3), padding=(1, 1), mode="circular"), narrow.layers[1]))
    assert check_spec(narrow, []).ok


def test_a_pass_that_is_never_satisfied_is_caught() -> None:
    result = check_spec(PADDED, [Restless()])
    assert failed(result).keys() == {"restless: second run"}
    assert failed(result)["restless: second run"].note == "rewritten again: layers.0"
    assert result.recorded


def test_a_pass_that_raises_is_caught_with_its_place() -> None:
    result = check_spec(PADDED, [Stumbling(), *ONE])
    (name, outcome), *others = failed(result).items()
    assert not others, "the other passes are checked all the same"
    assert name == "stumbling: contract"
    assert outcome.note == "ZeroDivisionError: no reason at all"
    assert outcome.where.startswith("padrewrite/planning.py:")
    assert "no reason at all" in outcome.trace


def test_a_promise_of_which_nothing_was_checked_is_caught() -> None:
    """The sizes change, so that no interior can be compared: the rewrite is what was planned, not what was promised."""
    note = failed(check_spec(PADDED, [Overstepping()]))["overstepping: contract"].note
    assert note == "layers.0 promises interior(1..1, 1..1), of which nothing was checked"


def fail_to_record(*args: Any, **kwargs: Any) -> Any:
    raise RecordError("nothing could be followed")


def test_a_recording_that_fails_is_caught_and_ends_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pr, "record", fail_to_record)
    result = check_spec(PADDED)
    assert [o.check for o in result.outcomes] == ["recording"]
    assert not result.recorded
    assert result.failures[0].note == "RecordError: nothing could be followed"


def test_a_recording_that_misses_a_convolution_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pr.record

    def without_one(model: nn.Module, **kwargs: Any) -> pr.Graph:
        graph = real(model, **kwargs)
        return replace(graph, sites=dict(list(graph.sites.items())[1:]))

    monkeypatch.setattr(pr, "record", without_one)
    assert failed(check_spec(PADDED))["recording"].note == "2 convolutions were dispatched, 1 recorded"


@dataclass
class Shifting:
    """`execute`, but off by one as soon as the input has another size than the one recorded."""

    size: torch.Size
    real: Callable[..., Any]

    def __call__(self, nodes: Any, state: Any, inputs: Any, *args: Any) -> Any:
        found = self.real(nodes, state, inputs, *args)
        return found if inputs[0].shape == self.size else tuple(t + 1 for t in found)


def test_a_recording_that_is_right_at_one_size_only_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = PADDED.draw_input().shape
    monkeypatch.setattr(checking, "execute", Shifting(shape, checking.execute))
    result = check_spec(PADDED, [])
    assert failed(result)["other sizes"].note == "at 8x11: output 0 is off by up to 1"


def test_a_broken_contract_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def violated(*args: Any, **kwargs: Any) -> Any:
        raise ContractViolation("layers.0 promised interior but differs")

    monkeypatch.setattr(pr, "transform", violated)
    assert failed(check_spec(PADDED, ONE)).keys() == {"partial-padding: contract"}


def test_a_check_that_did_not_take_place_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pr.transform

    def unverified(model: nn.Module, passes: Any, **kwargs: Any) -> nn.Module:
        return real(model, passes, **{**kwargs, "verify": "off"})

    monkeypatch.setattr(pr, "transform", unverified)
    assert failed(check_spec(PADDED, ONE))["partial-padding: contract"].note == "nothing was verified"


def test_a_convolution_without_a_decision_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pr.report

    def short(model: Any) -> Any:
        report = real(model)
        plans = tuple(replace(plan, decisions=plan.decisions[1:]) for plan in report.plans)
        return replace(report, plans=plans)

    monkeypatch.setattr(pr, "report", short)
    note = failed(check_spec(PADDED, ONE))["partial-padding: one decision each"].note
    assert note == "decisions: 0 about layers.0"


def test_a_revert_that_does_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pr, "revert", lambda model: model)
    (name, outcome), *others = failed(check_spec(PADDED, ONE)).items()
    assert not others
    assert name == "partial-padding: revert"
    assert outcome.note.startswith("reverted, it is not the original: output 0 is off by up to ")


def test_a_pass_that_changes_the_original_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pr.transform

    def careless(model: Any, passes: Any, **kwargs: Any) -> nn.Module:
        new = real(model, passes, **kwargs)
        nn.init.zeros_(model.layers[0].weight)
        return new

    monkeypatch.setattr(pr, "transform", careless)
    assert "the original is untouched" in failed(check_spec(PADDED, ONE))


class Analysis:
    """What ``padrewrite.analyze`` returns, as far as the fuzzer looks."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_json(self) -> str:
        return self.text


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        (["{}", "{}"], None),
        (['{"a": 1}', '{"a": 2}'], "two analyses of one network have different JSON"),
        ([], "IndexError: pop from empty list"),
    ],
)
def test_the_analysis_says_the_same_twice(monkeypatch: pytest.MonkeyPatch, texts: list[str], note: str | None) -> None:
    monkeypatch.setattr(pr, "analyze", lambda model, **kwargs: Analysis(texts.pop()), raising=False)
    found = failed(check_spec(PADDED, []))
    assert (found["analysis"].note if found else None) == note


def test_without_an_analysis_there_is_nothing_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pr, "analyze", raising=False)
    (found,) = [o for o in check_spec(PADDED, []).outcomes if o.check == "analysis"]
    assert (found.status, found.note) == ("skipped", "there is none")


def test_convolutions_are_counted_where_they_are_dispatched() -> None:
    transposed, circular = TransposedSpec(2, 2, (2, 2)), LayerSpec(2, 2, (3, 3), padding="same", mode="circular")
    layers = (*PADDED.layers, transposed, circular)
    steps = (*PADDED.steps, Transpose((2,), layer=2), Convolve((3,), layer=3), Convolve((4,), layer=3))
    spec = replace(PADDED, layers=layers, steps=steps)
    for quiet in (torch.no_grad(), torch.enable_grad(), torch.inference_mode()):
        with quiet, Dispatched() as counter:
            spec.build()(spec.draw_input())
        assert counter.convolutions == 5
    with Dispatched() as counter:
        spec.build()(spec.draw_input())[0].sum().backward()
    assert counter.convolutions == 5
