"""The promises of the README, one class each, at full strength on small networks."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from plain import far, layer, partial
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from untouched import difference, facts, untouched
from writing.nets import CIRCULAR, PARTIAL, REFLECT, Branchy, branchy_partial, picture
from zoo.counting import count_convolutions

import padrewrite as pr
import padrewrite_passes
from padrewrite.errors import ModelError, NoEffectError, PlanError, RevertError, SelectorError
from padrewrite.rewriting import Check, Match


class Everything(nn.Module):
    """One call of each kind: shared, functional, transposed, 1-D, unpadded, aten, reflected, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout(0.3)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.mirror = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.kernel = nn.Parameter(torch.randn(4, 4, 3, 3) * 0.2)
        self.line = nn.Conv1d(4, 4, 5, padding=2)
        self.point = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.shared(self.shared(self.drop(self.norm(self.stem(x)))).relu())
        x = self.mirror(self.up(x))
        x = torch.convolution(x, self.kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.kernel)
        return {"map": self.point(x), "line": self.line(x.mean(-1))}


@pytest.fixture
def net() -> Everything:
    """In train mode, with gradients."""
    net = Everything()
    net(picture())["map"].sum().backward()
    return net


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
            assert (
                (decision.status == "rewritten")
                == (decision.code == "rewritten")
                == (decision.contract is not None)
            )
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


class Test04WhatSurvives:
    """Class, names, hooks, parametrizations, forms of parameters, mode switching; in place also identity."""

    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, [*CIRCULAR, *PARTIAL]])
    def test_inplace_keeps_parameters_and_optimizer(self, passes: list[str]) -> None:
        net = Branchy()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        net(picture()).sum().backward()
        optimizer.step()
        ids, keys = [id(p) for p in net.parameters()], list(net.state_dict())
        new = pr.transform(net, passes, example_inputs=picture(), inplace=True)
        assert new is net
        assert isinstance(new, Branchy)
        assert [id(p) for p in net.parameters()] == ids
        assert list(net.state_dict()) == keys
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.zero_grad()
        net(picture()).square().sum().backward()
        optimizer.step()
        assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters()))

    def test_hooks_fire_once_and_see_the_user_class(self) -> None:
        net, seen = Branchy().eval(), []
        for name, module in net.named_modules():
            module.register_forward_pre_hook(lambda m, a, n=name: seen.append(("pre", n)))  # pyright: ignore
            module.register_forward_hook(lambda m, a, o, n=name: seen.append(("post", n)))  # pyright: ignore
        net.stem.register_full_backward_hook(lambda m, i, o: seen.append(("back", "stem")))  # pyright: ignore
        net(picture().requires_grad_()).sum().backward()
        wanted, seen[:] = list(seen), []
        new = pr.transform(net, PARTIAL, example_inputs=picture(), inplace=True)
        seen.clear()  # recording runs the forward, hooks included
        new(picture().requires_grad_()).sum().backward()
        assert seen == wanted

    def test_modes_switch(self) -> None:
        net = Branchy()
        new: Any = pr.transform(net, PARTIAL, example_inputs=picture())
        assert new.training
        new(picture())
        assert new.norm.num_batches_tracked == 1
        assert net.norm.num_batches_tracked == 0
        assert far(new.eval()(picture()), branchy_partial(new, picture())) < 1e-5
        new(picture())
        assert new.norm.num_batches_tracked == 1
        torch.manual_seed(0)
        a = new.train()(picture())
        assert not torch.equal(a, new(picture())), "dropout is frozen"
        assert new.norm.num_batches_tracked == 3

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR])
    def test_dtype_and_frozen_parameters(self, dtype: torch.dtype, passes: list[str]) -> None:
        net = Branchy().eval().to(dtype)
        net.stem.requires_grad_(False)
        x = picture().to(dtype)
        new = pr.transform(net, passes, example_inputs=x)
        assert new(x).dtype == dtype
        assert [(n, p.dtype, p.requires_grad) for n, p in new.named_parameters()] == [
            (n, p.dtype, p.requires_grad) for n, p in net.named_parameters()
        ]

    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, REFLECT])
    def test_memory_format(self, passes: list[str]) -> None:
        net: Any = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)).to(
            memory_format=torch.channels_last
        )
        x = picture().contiguous(memory_format=torch.channels_last)
        new: Any = pr.transform(net, passes, example_inputs=x)
        assert new[1].weight.is_contiguous(memory_format=torch.channels_last)
        assert net(x).is_contiguous(memory_format=torch.channels_last)
        assert new(x).is_contiguous(memory_format=torch.channels_last)

    def test_meta(self) -> None:
        net = Branchy().eval().to("meta")
        new = pr.transform(net, PARTIAL, example_inputs=picture().to("meta"))
        assert all(p.is_meta for p in new.parameters())
        assert new(picture(height=20).to("meta")).shape == net(picture(height=20).to("meta")).shape
        real = new.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in [*real.parameters(), *real.buffers()]:
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
        assert far(real(picture()), branchy_partial(real, picture())) < 1e-5  # pyright: ignore


class Test05OriginalCheckpointsLoad:
    """Strictly, and into the original again."""

    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, REFLECT, [*CIRCULAR, *PARTIAL]])
    def test_both_ways(self, passes: list[str]) -> None:
        trained = Branchy().eval()
        new = pr.transform(Branchy().eval(), passes, example_inputs=picture())
        new.load_state_dict(trained.state_dict(), strict=True)
        fresh = pr.transform(trained, passes, example_inputs=picture())
        assert torch.equal(new(picture()), fresh(picture()))
        back = Branchy().eval()
        back.load_state_dict(new.state_dict(), strict=True)
        assert torch.equal(back(picture()), trained(picture()))
        assert list(new.state_dict()) == list(trained.state_dict())

    def test_of_replaced_and_added_layers_too(self) -> None:
        """Weights are carried over as by the rewrite itself; what is new adds nothing."""
        trained, passes = large_and_small(), ["separable-kernel{mid=2}", "boundary-refinement{at=2}"]
        new = pr.transform(large_and_small(), passes, example_inputs=picture())
        new.load_state_dict(trained.state_dict(), strict=True)
        fresh = pr.transform(trained, passes, example_inputs=picture())
        assert torch.equal(new(picture()), fresh(picture()))
        assert set(new.state_dict()) != set(trained.state_dict())
        again = pr.transform(large_and_small(), passes, example_inputs=picture())
        again.load_state_dict(new.state_dict(), strict=True)
        assert torch.equal(again(picture()), new(picture()))


def large_and_small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 7, padding=3), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()


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
        tests = os.path.dirname(os.path.abspath(__file__))
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
        assert [(n, type(m)) for n, m in new.named_modules()] == [
            (n, type(m)) for n, m in net.named_modules()
        ]
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

    @pytest.mark.parametrize(
        "inputs", [None, picture(), {"image": picture(), "scale": 2.0}], ids=["tree", "x", "dict"]
    )
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


IMPORTED = """
import copy, pickle, sys, warnings
import torch, torch.nn as nn, torch.nn.functional as F, torch._dynamo, torch.fx, torch.export
import torch._inductor.config, torch._functorch.config, torch._dynamo.backends.registry as registry
from torch._decomp import decomposition_table
from torch.nn.modules import module as m
import networkx, sympy, rich

def snap():
    found = {}
    def walk(name, owner):
        for key, value in list(vars(owner).items()):
            if not (key.startswith("__") and key not in ("__init__", "__call__", "__torch_function__")):
                found[name + "." + key] = id(value)
    watched = ("torch.nn", "torch.fx", "torch.overrides", "torch.export")
    for name in sorted(n for n in sys.modules if n in ("copy", "pickle", "warnings") or n.startswith(watched)):
        walk(name, sys.modules[name])
        for key, value in list(vars(sys.modules[name]).items()):
            if isinstance(value, type) and value.__module__ == name:
                walk(name + "." + key, value)
    walk("torch", torch); walk("Tensor", torch.Tensor)
    for name in vars(m):
        if name.startswith("_global"):
            found["hooks " + name] = repr(vars(m)[name])
    found["decompositions"] = sorted((str(k), id(v)) for k, v in decomposition_table.items())
    for config in (torch._dynamo.config, torch._inductor.config, torch._functorch.config):
        found[config.__name__] = repr(sorted((k, repr(v)) for k, v in config.shallow_copy_dict().items()))
    found["backends"] = sorted((k, id(v)) for k, v in registry._COMPILER_FNS.items())
    found["modes"] = (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack())
    found["state"] = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.initial_seed(), torch.get_num_threads())
    found["python"] = (repr(warnings.filters), sys.excepthook, sys.getrecursionlimit())
    found["safe globals"] = repr(torch.serialization.get_safe_globals())
    return found

torch.manual_seed(0)
a, again = snap(), snap()
assert a == again, "the snapshot does not repeat itself"
import padrewrite, padrewrite_passes, padrewrite.nn, padrewrite.cli, padrewrite.emitting.backend
b = snap()
changed = sorted(k for k in a if a[k] != b.get(k))
changed += [k for k in b if k not in a and k.startswith("torch.nn.modules") and "padrewrite" in str(b[k])]
if changed:
    sys.exit("; ".join(changed[:20]))
"""


class Test08ImportPatchesNothing:
    def test_in_a_fresh_process(self) -> None:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", IMPORTED], capture_output=True, text=True, timeout=110
        )
        assert done.returncode == 0, done.stderr


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
                return torch.convolution(
                    self.conv(x), self.conv.weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1
                )

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


class Test10Wrappers:
    def test_refused_with_the_line_to_write(self) -> None:
        model = Branchy()
        lines = {
            nn.DataParallel(model): "new = transform(model.module, ...); DataParallel(new)",
            torch.compile(
                model, backend="eager"
            ): "new = transform(model._orig_mod, ...); torch.compile(new)",
        }
        for wrapped, line in lines.items():
            with pytest.raises(ModelError) as raised:
                pr.transform(wrapped, PARTIAL, inplace=True)  # pyright: ignore
            assert line in str(raised.value)

    @pytest.mark.filterwarnings("ignore")
    def test_distributed(self, tmp_path: Any) -> None:
        """gloo, world size 1: DDP is refused, a rewritten model trains under it, fully_shard keeps a rewrite."""
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
        try:
            self.under_ddp()
            self.under_fully_shard()
        finally:
            dist.destroy_process_group()

    def under_ddp(self) -> None:
        model = Branchy()
        wrapped = nn.parallel.DistributedDataParallel(model)
        with pytest.raises(
            ModelError, match=r"transform\(model\.module, \.\.\.\); DistributedDataParallel\(new\)"
        ):
            pr.plan(wrapped, PARTIAL)
        new = pr.transform(model.eval(), PARTIAL, example_inputs=picture())
        parallel = nn.parallel.DistributedDataParallel(new)
        parallel(picture()).square().sum().backward()
        alone = pr.transform(model, PARTIAL, example_inputs=picture())
        alone(picture()).square().sum().backward()
        for a, b in zip(new.parameters(), alone.parameters(), strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert far(a.grad, b.grad) < 1e-5

    def under_fully_shard(self) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard

        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        new: Any = pr.transform(model, PARTIAL)
        goal = new(picture())
        fully_shard(new[0])
        fully_shard(new)
        assert far(new(picture()), goal) < 1e-5
        pr.revert(new)
        assert isinstance(new, FSDPModule)
        assert isinstance(new[0], FSDPModule)
        assert not isinstance(new[0], pr.nn.PartialConv2d)
        assert far(new(picture()), model(picture())) < 1e-5
        again: Any = pr.transform(new, PARTIAL, inplace=True)
        assert isinstance(again[0], FSDPModule)
        assert far(again(picture()), goal) < 1e-5


def compilations(model: nn.Module, backend: str, sizes: list[tuple[int, int]]) -> int:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        for height, width in sizes:
            x = picture(height=height, width=width)
            assert far(compiled(x), model(x)) < 1e-5
    return counter.frame_count


@pytest.mark.compile
class Test11CompilesAsOften:
    """No graph break, nothing for a repeated shape, at most one compilation for the first new size."""

    @pytest.mark.parametrize(
        ("passes", "backend"), [(PARTIAL, "eager"), (PARTIAL, "aot_eager"), (CIRCULAR, "eager")]
    )
    def test_thirty_two_sizes(self, passes: list[str], backend: str) -> None:
        net = Branchy().eval()
        sizes = [(9 + (7 * i) % 32, 40 - (5 * i) % 32) for i in range(32)]
        assert len(set(sizes)) == 32
        plain = compilations(net, backend, sizes)
        new = pr.transform(net, passes, example_inputs=picture())
        assert compilations(new, backend, [*sizes, *sizes[:4]]) <= plain + 1

    def test_a_repeated_shape(self) -> None:
        new = pr.transform(Branchy().eval(), PARTIAL, example_inputs=picture())
        assert compilations(new, "eager", [(9, 10)] * 3) == 1

    def test_no_state_of_the_last_input(self) -> None:
        """Nothing on the modules changes with a call, and a call does not change the next."""
        new = pr.transform(Branchy().eval(), PARTIAL, example_inputs=picture())
        before, first = facts(new), new(picture())
        with torch.inference_mode():
            new(picture(height=21, width=8))
        new(picture(height=30).requires_grad_())
        assert difference(before, facts(new)) is None
        assert torch.equal(new(picture()), first)
        new.train()(picture()).sum().backward()

    def test_no_graph_break(self) -> None:
        new = pr.transform(Branchy().eval(), [*CIRCULAR, *PARTIAL], example_inputs=picture())
        explained = torch._dynamo.explain(new)(picture())
        assert explained.graph_break_count == 0
        assert Counter(type(g).__name__ for g in explained.graphs) == {"GraphModule": 1}


def test_layer_oracle_knows_a_difference() -> None:
    """The oracle of this file differs from zero padding at the border, and only there."""
    conv = nn.Conv2d(3, 4, 3, padding=1)
    new, old = layer(partial, picture(), conv), conv(picture())
    assert far(new, old) > 1e-3
    assert far(new[..., 1:-1, 1:-1], old[..., 1:-1, 1:-1]) < 1e-6
