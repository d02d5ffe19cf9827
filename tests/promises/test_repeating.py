"""Promises 6 and 7: twice is once, and everything can be taken back and replayed."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from plain import far
from torch import nn
from untouched import difference, facts, untouched
from writing.nets import CIRCULAR, PARTIAL, REFLECT, Branchy, branchy_partial, picture

import padrewrite as pr
from padrewrite.errors import PlanError, RevertError

from .nets import large_and_small

HASHED = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from writing.nets import CIRCULAR, PARTIAL, REFLECT, Branchy, picture
import padrewrite as pr
torch.manual_seed(0)
net = Branchy().eval()
large = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 7, padding=3))
print(pr.plan(large, ["separable-kernel{mid=2}"], example_inputs=picture()).to_json())
for passes in (PARTIAL, CIRCULAR, [*CIRCULAR, *PARTIAL]):
    for inputs in (picture(), None):
        plan = pr.plan(net, passes, example_inputs=inputs, exclude=["re:normed", "head"])
        print(plan.to_json(), plan, plan.why_not("stem"))
new = pr.transform(net, PARTIAL, example_inputs=picture(), verify="full")
print(pr.report(new).to_json(), pr.report(new), pr.report(new).table(full=True))
"""


class Test06IdempotentAndDeterministic:
    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, REFLECT, [*CIRCULAR, *PARTIAL]])
    @pytest.mark.parametrize("inputs", [None, picture()], ids=["tree", "inputs"])
    def test_a_second_run_changes_nothing(self, passes: list[str], inputs: Any) -> None:
        new = pr.transform(Branchy().eval(), passes, example_inputs=inputs)
        plan = pr.plan(new, passes, example_inputs=inputs)
        assert not plan.edits
        assert plan.fingerprint == plan.predicted
        before = facts(new)
        pr.transform(new, passes, example_inputs=inputs, inplace=True)
        known = {": __dict__ keys", "._padrewrite"}
        assert {k: v for k, v in before.items() if k not in known}.keys() == {
            k: v for k, v in facts(new).items() if k not in known
        }.keys()
        assert difference({**before, "._padrewrite": 0}, {**facts(new), "._padrewrite": 0}) is None

    def test_same_bytes_in_any_process(self) -> None:
        """Two fresh processes at once, of different hash seeds."""
        tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        running = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", HASHED, tests],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            )
            for seed in ("1", "4242")
        ]
        outputs = [process.communicate(timeout=110) for process in running]
        assert [p.returncode for p in running] == [0, 0], outputs[0][1].decode()
        assert outputs[0][0] == outputs[1][0]
        assert len(outputs[0][0]) > 10_000


class Test07RevertAndReplay:
    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, REFLECT])
    def test_revert_keeps_current_values(self, passes: list[str]) -> None:
        net = Branchy().eval()
        new = pr.transform(net, passes, example_inputs=picture())
        with torch.no_grad():
            for tensor in new.parameters():
                tensor.add_(0.01)
        assert pr.revert(new) is new
        assert [(n, type(m)) for n, m in new.named_modules()] == [(n, type(m)) for n, m in net.named_modules()]
        net.load_state_dict(new.state_dict())
        assert torch.equal(new(picture()), net(picture()))
        with pytest.raises(RevertError):
            pr.revert(new)
        assert (
            far(
                pr.transform(new, PARTIAL, example_inputs=picture())(picture()),
                branchy_partial(net, picture()),
            )
            < 1e-5
        )

    def test_replaced_parameters_come_back(self) -> None:
        """From this process, or from the original; the others keep their current values."""
        net, passes = large_and_small(), ["separable-kernel{mid=2}"]
        new = pr.transform(net, passes, example_inputs=picture())
        with torch.no_grad():
            new[2].bias.add_(1)
        wanted = net(picture()) + 1
        stored = pickle.loads(pickle.dumps(new))
        assert far(pr.revert(new)(picture()), wanted) < 1e-6
        with pytest.raises(RevertError, match="original="):
            pr.revert(stored)
        assert far(pr.revert(stored, original=net)(picture()), wanted) < 1e-6
        assert [(n, type(m)) for n, m in stored.named_modules()] == [(n, type(m)) for n, m in net.named_modules()]

    @pytest.mark.parametrize("inputs", [None, picture(), {"image": picture(), "scale": 2.0}], ids=["tree", "x", "dict"])
    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, [*CIRCULAR, *PARTIAL]])
    def test_a_saved_plan_replays(self, passes: list[str], inputs: Any, tmp_path: Any) -> None:
        first, fresh = Branchy().eval(), Branchy().eval()
        plan = pr.plan(first, passes, example_inputs=inputs, where=lambda s: s.op.kernel == (3, 3))
        plan.save(tmp_path / "plan.json")
        loaded = pr.Plan.load(tmp_path / "plan.json")
        assert loaded.to_json() == plan.to_json()
        assert loaded.decisions == plan.decisions
        assert loaded.edits == plan.edits
        new, direct = pr.apply(fresh, loaded), pr.apply(fresh, plan)
        assert torch.equal(new(picture()), direct(picture()))
        assert far(new(picture()), fresh(picture())) > 1e-3
        assert str(pr.report(new)) == str(pr.report(direct))
        assert pr.verify(new, example_inputs=inputs).ok

    def test_no_predicates_and_no_weights(self) -> None:
        plan = pr.plan(Branchy(), PARTIAL, example_inputs=picture(), where=lambda s: "stem" in s.id)
        text = plan.to_json()
        assert "lambda" not in text
        assert len(text) < 20_000

        def leaves(value: Any) -> Iterator[Any]:
            if isinstance(value, (dict, list)):
                for child in value.values() if isinstance(value, dict) else value:
                    yield from leaves(child)
            else:
                yield value

        assert {type(v) for v in leaves(json.loads(text))} <= {int, str, bool, type(None)}

    @pytest.mark.parametrize("saved", [False, True])
    @pytest.mark.parametrize(
        "change",
        [lambda m: m.train(), lambda m: m.double(), lambda m: m.bfloat16(), lambda m: m.to("meta")],
        ids=["train", "float64", "bfloat16", "meta"],
    )
    def test_replays_in_another_mode_dtype_or_device(self, change: Any, saved: bool) -> None:
        """The fingerprint is of names and shapes: what a fresh model's mode and dtype are is its owner's business."""
        plan = pr.plan(Branchy().eval(), PARTIAL, example_inputs=picture())
        plan = pr.Plan.from_json(plan.to_json()) if saved else plan
        new: Any = pr.apply(change(Branchy().eval()), plan)
        assert isinstance(new.stem, pr.nn.PartialConv2d)

    def test_another_model_is_refused(self) -> None:
        plan = pr.plan(Branchy(), PARTIAL)
        other = Branchy()
        other.head = nn.Conv2d(4, 3, 1)
        with untouched(other), pytest.raises(PlanError):
            pr.apply(other, plan)
