"""Promises 1, 2, 3 and 9: what a plan decides, and that it changes nothing by deciding."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from untouched import untouched
from writing.nets import CIRCULAR, PARTIAL, REFLECT, Branchy, picture
from zoo.counting import count_convolutions

import padrewrite as pr
import padrewrite_passes
from padrewrite.errors import NoEffectError, SelectorError
from padrewrite.rewriting import Check, Match

from .nets import Everything


class Test01PlanChangesNothing:
    """Not the model, its mode, its statistics and counters, its gradients, nor the random generators."""

    @pytest.mark.parametrize(
        "inputs", [None, picture(), {"x": picture()}, (picture(),)], ids=["tree", "x", "dict", "tuple"]
    )
    @pytest.mark.parametrize("grad", [True, False])
    def test_plan_and_record(self, net: Everything, inputs: Any, grad: bool) -> None:
        given = copy.deepcopy(inputs)
        with torch.set_grad_enabled(grad), untouched(net):
            pr.plan(net, PARTIAL, example_inputs=inputs)
            pr.plan(net.eval().train(), CIRCULAR, example_inputs=inputs)
            pr.record(net, example_inputs=inputs)
            pr.analyze(net, example_inputs=inputs).to_json()
        assert inputs is None or all(
            torch.equal(a, b)
            for a, b in zip(torch.utils._pytree.tree_leaves(inputs), torch.utils._pytree.tree_leaves(given))
        )

    def test_transform_leaves_the_original(self, net: Everything) -> None:
        with untouched(net):
            new = pr.transform(net, PARTIAL, example_inputs=picture(), verify="full")
        with untouched(net), untouched(new):
            pr.verify(new)
            pr.report(new)


class Test02EveryCallIsDecidedOnce:
    """Counted below the engine, by the dispatcher."""

    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, [*CIRCULAR, *PARTIAL], [*REFLECT, *PARTIAL]])
    @pytest.mark.parametrize("include", [None, "stem", ["shared", "line"]])
    def test_counted(self, net: Everything, passes: list[str], include: Any) -> None:
        ran = count_convolutions(lambda: net(picture()))
        assert len(ran) == 9
        plan = pr.plan(net, passes, example_inputs=picture(), include=include, allow_no_effect=True)
        names = list(dict.fromkeys(d.pass_name for d in plan.decisions))
        assert names == [p.split("{")[0] for p in passes]
        for name in names:
            mine = [d for d in plan.decisions if d.pass_name == name]
            assert len(mine) == len({d.site for d in mine}) == len(ran)
            assert [d.before["kernel_size"] for d in mine] == [c.weight_shape[2:] for c in ran]
        for summary in plan.passes:
            assert summary.rewritten + summary.kept + summary.refused == len(ran)

    def test_codes_are_known_and_reasons_given(self, net: Everything) -> None:
        engine = {"rewritten", "no-match", "not-selected", "selector-cuts-match"}
        from padrewrite.feasibility import CODES

        plan = pr.plan(net, PARTIAL, example_inputs=picture())
        known = engine | set(CODES) | set(padrewrite_passes.PartialPadding.codes)
        for decision in plan.decisions:
            assert decision.status in ("rewritten", "kept", "refused")
            assert decision.code in known
            assert decision.reason
            assert (decision.status == "rewritten") == (decision.code == "rewritten") == (decision.contract is not None)
            assert decision.before["kernel_size"]
            assert (decision.before == decision.after) == (decision.status != "rewritten")
        assert {d.site: d.code for d in plan.decisions} == {
            "stem": "rewritten",
            "shared": "rewritten",
            "shared@1": "rewritten",
            "up": "transposed",
            "mirror": "non-zero-padding",
            "#convolution.0": "unsupported-call",
            "#conv2d.0": "rewritten",
            "point": "unpadded",
            "line": "rewritten",
        }


class Test03NoSilentNoOp:
    """A selector without a match and a pass without an effect are errors, unless that is allowed."""

    def test_selector(self, net: Everything) -> None:
        with pytest.raises(SelectorError, match=r"include='layer5\.\*' matched 0 of 9 .*Closest: .*line"):
            pr.transform(net, PARTIAL, example_inputs=picture(), include="layer5.*")

    def test_no_effect(self, net: Everything) -> None:
        unpadded = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3))
        with untouched(unpadded), pytest.raises(NoEffectError, match="2 unpadded"):
            pr.transform(unpadded, PARTIAL)
        new = pr.transform(unpadded, PARTIAL, allow_no_effect=True)
        assert torch.equal(new(picture()), unpadded(picture()))
        assert [d.code for d in pr.report(new).decisions] == ["unpadded", "unpadded"]

    def test_the_second_of_two_passes(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
        with untouched(model), pytest.raises(NoEffectError, match="partial-padding"):
            pr.transform(model, [*REFLECT, *PARTIAL], inplace=True)

    def test_already_in_form_is_an_effect(self) -> None:
        new = pr.transform(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), PARTIAL)
        assert [d.code for d in pr.plan(new, PARTIAL).decisions] == ["already-partial"]

    def test_a_refusal_of_all_that_was_selected_is_no_effect(self, net: Everything) -> None:
        with untouched(net), pytest.raises(NoEffectError, match="1 transposed"):
            pr.transform(net, PARTIAL, example_inputs=picture(), include="up", inplace=True)


@dataclass(frozen=True)
class InPairs(pr.Pass):
    """Convolutions two by two: for tests of what selectors do to a match of several sites."""

    name: ClassVar[str] = "in-pairs"
    contract: ClassVar[str] = "interior"

    def match(self, graph: pr.Graph) -> Iterator[Match]:
        sites = list(graph.convs())
        return (Match((a, b)) for a, b in zip(sites[::2], sites[1::2]))

    def legality(self, match: Match) -> Iterator[Check]:
        yield Check("unpadded", all(s.op.window.lo != (0, 0) for s in match.sites), "no padding")

    def rewrite(self, match: Match) -> Any:
        return tuple(replace(s.op, modes=("reflect", "reflect")) for s in match.sites)  # pyright: ignore

    def promise(self, match: Match) -> pr.Contract:
        return pr.Contract.interior(match.sites[0].op)  # pyright: ignore


class Test09RefusedNeverGuessed:
    def four(self) -> nn.Sequential:
        return nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.Conv2d(3, 3, 1))

    def test_a_match_stands_or_falls_whole(self) -> None:
        found = {d.site: (d.status, d.code) for d in pr.plan(self.four(), [InPairs()]).decisions}
        assert found == {
            "0": ("rewritten", "rewritten"),
            "1": ("rewritten", "rewritten"),
            "2": ("refused", "unpadded"),
            "3": ("refused", "unpadded"),
        }

    def test_a_selector_that_cuts_a_match(self) -> None:
        model = self.four()
        with untouched(model), pytest.raises(NoEffectError, match="selector-cuts-match"):
            pr.transform(model, [InPairs()], include="0", inplace=True)
        plan = pr.plan(model, [InPairs()], exclude="1", allow_no_effect=True)
        codes = {d.site: d.code for d in plan.decisions}
        assert codes["0"] == codes["1"] == "selector-cuts-match"
        assert "1" in next(d.reason for d in plan.decisions if d.site == "0")

    def test_an_infeasible_half_refuses_the_other(self) -> None:
        class Half(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 3, 3, padding=1)

            def forward(self, x: Tensor) -> Tensor:
                return torch.convolution(self.conv(x), self.conv.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)

        plan = pr.plan(Half(), [InPairs()], example_inputs=picture(), allow_no_effect=True)
        assert {(d.status, d.code) for d in plan.decisions} == {("refused", "unsupported-call")}
        assert not plan.edits

    def test_a_shared_module_with_different_wishes(self, net: Everything) -> None:
        plan = pr.plan(net, PARTIAL, example_inputs=picture(), include=["shared@1", "stem"])
        codes = {d.site: (d.status, d.code) for d in plan.decisions}
        assert codes["shared@1"] == ("refused", "shared-module")
        assert codes["shared"] == ("kept", "not-selected")
        assert codes["stem"] == ("rewritten", "rewritten")

    def test_an_own_forward_without_inputs(self) -> None:
        plan = pr.plan(Branchy(), PARTIAL)
        codes = {d.site: d.code for d in plan.decisions}
        assert codes["own"] in ("own-forward", "unpadded")
        new: Any = pr.apply(Branchy(), plan)
        assert type(new.own) is type(Branchy().own)

    def test_a_forward_set_on_the_instance(self) -> None:
        model: Any = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
        model[0].forward = lambda x: F.conv2d(x, model[0].weight, padding=1)
        for inputs in (None, picture()):
            plan = pr.plan(model, PARTIAL, example_inputs=inputs, allow_no_effect=True)
            assert plan.decisions[0].status == "refused"
            assert plan.decisions[0].code in ("instance-forward", "own-forward")
