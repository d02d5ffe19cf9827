"""Every mistake a caller can make: an error of the right type that says what to do, and nothing changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from untouched import untouched

import padrewrite as pr
import padrewrite_passes
from padrewrite.errors import (
    InputsError,
    ModelError,
    NoEffectError,
    PadrewriteError,
    PassError,
    PlanError,
    RecordError,
    RevertError,
    SelectorError,
)

PARTIAL = ["partial-padding"]


class Net(nn.Module):
    """Train mode, batch norm, dropout, hooks and gradients: everything that a careless run disturbs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer1(self.drop(self.norm(self.stem(x))))


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(shape or (2, 3, 8, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def net() -> Net:
    net = Net()
    net.stem.register_forward_hook(lambda m, a, o: o * 2)
    net(picture()).sum().backward()
    return net


def fails(net: nn.Module, error: type[Exception], *parts: str, call: Callable[[], Any]) -> str:
    """``call`` raises exactly ``error``, with ``parts`` in its text, and leaves ``net`` as it was."""
    with untouched(net), pytest.raises(PadrewriteError) as raised:
        call()
    assert type(raised.value) is error, repr(raised.value)
    text = str(raised.value)
    assert all(part in text for part in parts), text
    return text


CALLS: dict[str, Callable[[Any], Any]] = {
    "plan": lambda m: pr.plan(m, PARTIAL),
    "transform": lambda m: pr.transform(m, PARTIAL, inplace=True),
    "analyze": lambda m: pr.analyze(m),
    "record": lambda m: pr.record(m),
    "verify": lambda m: pr.verify(m),
    "revert": lambda m: pr.revert(m),
    "report": lambda m: pr.report(m),
}


class TestTheModel:
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    @pytest.mark.parametrize("thing", [None, 3, "resnet50", [nn.ReLU()], {"state": 1}, lambda x: x])
    def test_not_a_module(self, thing: Any, call: Any) -> None:
        with pytest.raises(ModelError, match=re.escape(f"is a {type(thing).__name__}; give an nn.Module")):
            call(thing)

    @pytest.mark.parametrize("name", CALLS)
    def test_a_class(self, name: str) -> None:
        with pytest.raises(ModelError, match=rf"give an instance, as in {name}\(Model\(\), \.\.\.\)"):
            CALLS[name](Net)

    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("nested", [False, True])
    def test_data_parallel(self, net: Net, name: str, nested: bool) -> None:
        wrapped = nn.DataParallel(net)
        model = nn.Sequential(nn.Identity(), wrapped) if nested else wrapped
        text = fails(model, ModelError, f"{name}(model.module, ...)", call=lambda: CALLS[name](model))
        assert ("DataParallel(new)" in text) == (name == "transform")
        assert ("1 is" in text) == nested

    @pytest.mark.parametrize("name", CALLS)
    def test_compiled(self, net: Net, name: str) -> None:
        model: Any = torch.compile(net, backend="eager")
        text = fails(model, ModelError, f"{name}(model._orig_mod, ...)", call=lambda: CALLS[name](model))
        assert ("torch.compile(new)" in text) == (name == "transform")

    @pytest.mark.parametrize(
        ("model", "where"),
        [
            (nn.Sequential(nn.Conv1d(1, 2, 3), nn.Sequential(nn.ReLU(), nn.Conv1d(2, 2, 90))), " in 1.1 (Conv1d): "),
            (nn.Conv1d(1, 2, 90), "(1x1x79): RuntimeError: Calculated padded input size"),
        ],
    )
    def test_its_own_error_names_the_layer(self, model: nn.Module, where: str) -> None:
        fails(model, InputsError, where, call=lambda: pr.analyze(model, example_inputs=torch.zeros(1, 1, 79)))

    @pytest.mark.parametrize("child", [False, True])
    def test_compiled_in_place(self, net: Net, child: bool) -> None:
        """``model.compile()`` keeps the class, but its calls no longer show what they do."""
        (net.stem if child else net).compile(backend="eager")
        fails(net, ModelError, "compile", call=lambda: pr.plan(net, PARTIAL, example_inputs=picture()))

    @pytest.mark.parametrize("nested", [False, True])
    def test_scripted(self, net: Net, nested: bool) -> None:
        scripted = torch.jit.script(nn.Conv2d(3, 4, 3, padding=1))
        model = nn.Sequential(scripted) if nested else scripted
        with pytest.raises(
            ModelError, match=r"ScriptModule.*Give the eager model instead"
        ):
            pr.plan(model, PARTIAL)  # pyright: ignore

    def test_fsdp1_by_name(self, net: Net) -> None:
        model = type("FullyShardedDataParallel", (nn.Sequential,), {})(net)
        fails(
            model,
            ModelError,
            "new = transform(model, ...)",
            "FullyShardedDataParallel(new)",
            call=lambda: pr.transform(model, PARTIAL),
        )

    @pytest.mark.parametrize("inputs", [None, picture()], ids=["tree", "inputs"])
    def test_lazy(self, inputs: Any) -> None:
        model = nn.Sequential(nn.LazyConv2d(4, 3, padding=1))
        with pytest.raises(ModelError, match=r"0.*LazyConv2d.*(forward|once|initiali[sz]e)"):
            pr.plan(model, PARTIAL, example_inputs=inputs)
        assert type(model[0]) is nn.LazyConv2d
        assert model[0].has_uninitialized_params()

    def test_no_convolution(self) -> None:
        model = nn.Sequential(nn.Linear(3, 3))
        fails(model, NoEffectError, "partial-padding", "no convolution", call=lambda: pr.plan(model, PARTIAL))
        assert pr.plan(model, PARTIAL, allow_no_effect=True).decisions == ()
        fails(model, SelectorError, "no convolution", call=lambda: pr.plan(model, PARTIAL, include="0"))

    def test_uncopyable(self, net: Net) -> None:
        class Stubborn(Net):
            def __deepcopy__(self, memo: Any) -> Any:
                raise RuntimeError("holds a socket")

        model = Stubborn()
        fails(
            model,
            ModelError,
            "Stubborn",
            "holds a socket",
            "inplace=True",
            call=lambda: pr.transform(model, PARTIAL),
        )
        pr.transform(model, PARTIAL, inplace=True)


class TestExampleInputs:
    @pytest.mark.parametrize(
        ("inputs", "parts"),
        [
            (picture(2, 5, 8, 9), ["Net.forward failed", "2x5x8x9", "channels"]),
            ((picture(), 3), ["Net.forward failed", "TypeError", "positional"]),
            ({"image": picture()}, ["Net.forward failed", "TypeError", "image"]),
            ((), ["Net.forward failed", "no tensors"]),
            (picture().long(), ["Net.forward failed", "2x3x8x9"]),
            ([picture()], ["example_inputs is a list", "tuple of positional arguments", "([a, b],)"]),
            ("1x3x8x9", ["example_inputs is a str", "give a tensor"]),
            ({0: picture()}, ["example_inputs", "names of forward's arguments"]),
            (nn.ReLU(), ["example_inputs is a ReLU"]),
        ],
    )
    @pytest.mark.parametrize("call", [pr.plan, pr.transform])
    def test_refused(self, net: Net, inputs: Any, parts: list[str], call: Any) -> None:
        fails(net, InputsError, *parts, call=lambda: call(net, PARTIAL, example_inputs=inputs))

    def test_verify(self, net: Net) -> None:
        new = pr.transform(net, PARTIAL)
        fails(new, InputsError, "1x5x8x8", call=lambda: pr.verify(new, example_inputs=picture(1, 5, 8, 8)))

    @pytest.mark.parametrize("devices", [("meta", "cpu"), ("cpu", "meta")])
    def test_half_on_meta(self, devices: tuple[str, str]) -> None:
        """A model and inputs of which only one is on meta: handled, or an error of ours that says so."""
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).to(devices[0])
        with untouched(model):
            try:
                plan = pr.plan(model, PARTIAL, example_inputs=picture().to(devices[1]))
            except PadrewriteError as error:
                assert "meta" in str(error)
            else:
                assert plan.decisions[0].status == "rewritten"

    def test_a_forward_that_cannot_be_followed(self) -> None:
        class Numpy(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 3, 3, padding=1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.conv(torch.from_numpy(self.conv(x).detach().numpy() * 2))

        model, x = Numpy(), picture(1, 3, 5, 6)
        parts = ["Numpy", "transform(model.backbone, ...)", "leave example_inputs out"]
        fails(model, RecordError, *parts, call=lambda: pr.plan(model, PARTIAL, example_inputs=x))


class TestPasses:
    @pytest.mark.parametrize(
        ("passes", "parts"),
        [
            (
                ["partial-paddin"],
                ["'partial-paddin'", "Closest: partial-padding", "padding-mode, partial-padding"],
            ),
            (["fft"], ["unknown pass 'fft'", "Known passes", "padding-mode", "partial-padding"]),
            (["partial-padding{scal=sqrt}"], ["partial-padding", "'scal'", "scale"]),
            (["padding-mode{kind=reflect}"], ["padding-mode", "'kind'", "mode, axes"]),
            (["partial-padding{scale=max}"], ["partial-padding", "scale='max'", "mean, sqrt"]),
            (
                ["padding-mode{mode=mirror}"],
                ["padding-mode", "mode='mirror'", "reflect, replicate, circular"],
            ),
            (["padding-mode{mode=circular,axes=[0]}"], ["axes=(0,)", "from the end"]),
            (["padding-mode{mode=circular,axes=[]}"], ["axes=()", "from the end"]),
            (["padding-mode{mode=circular,axes=width}"], ["axes='width'", "from the end"]),
            (["padding-mode{reflect}"], ["padding-mode", "'reflect'", "option=value"]),
            (["partial-padding{scale=mean,scale=sqrt}"], ["partial-padding", "scale", "twice"]),
            (["padding-mode{mode=reflect"], ["'padding-mode{mode=reflect'", "is not a pass"]),
            ([None], ["None is not a pass"]),
            ([padrewrite_passes.PartialPadding], ["PartialPadding", "instance"]),
            ("partial-padding", ["passes=['partial-padding']"]),
            ([], ["passes is empty", "Known passes"]),
            (None, ["passes", "None", "list"]),
            (3, ["passes", "3", "list"]),
        ],
    )
    def test_refused(self, net: Net, passes: Any, parts: list[str]) -> None:
        fails(net, PassError, *parts, call=lambda: pr.transform(net, passes, inplace=True))

    def test_unknown_level(self, net: Net) -> None:
        fails(
            net,
            PadrewriteError,
            "verify='deep'",
            "off, quick, full",
            call=lambda: pr.transform(net, PARTIAL, verify="deep"),
        )
        new = pr.transform(net, PARTIAL)
        fails(new, PadrewriteError, "'deep'", "quick, full", call=lambda: pr.verify(new, level="deep"))

    def test_no_effect(self, net: Net) -> None:
        passes = ["padding-mode{mode=zeros}", "padding-mode{mode=circular,axes=[-3]}"]
        text = fails(
            net,
            NoEffectError,
            "padding-mode",
            "3 no-such-axis",
            "allow_no_effect=True",
            call=lambda: pr.transform(net, passes, inplace=True),
        )
        assert "Nothing was changed" in text


class TestSelectors:
    @pytest.mark.parametrize(
        ("selectors", "parts"),
        [
            (
                {"include": "layer5.*"},
                ["include='layer5.*'", "matched 0 of 3", "Closest: ", "layer1.0", "Nothing was changed"],
            ),
            ({"include": ["stem", "layr1"]}, ["include='layr1'", "matched 0 of 3", "layer1"]),
            ({"include": ""}, ["include=''", "matched 0 of 3"]),
            ({"exclude": "steam"}, ["exclude='steam'", "matched 0 of 3", "Closest: stem"]),
            ({"include": "re:layer(1"}, ["include='re:layer(1'", "not a regular expression"]),
            ({"exclude": "re:*"}, ["exclude='re:*'", "not a regular expression"]),
            ({"include": "re:layer"}, ["include='re:layer'", "matched 0 of 3"]),
            ({"include": "layer1", "exclude": "layer1.*"}, ["include and exclude together leave 0 of 3"]),
            ({"exclude": "*"}, ["leave 0 of 3"]),
            ({"include": []}, ["leave 0 of 3"]),
            ({"where": lambda s: s.op.kernel == (7, 7)}, ["where", "selected 0 of 3"]),
            ({"include": 5}, ["include=5", "a name or a list"]),
            ({"include": ["stem", 5]}, ["5"]),
            ({"where": "stem"}, ["where='stem'", "lambda"]),
        ],
    )
    @pytest.mark.parametrize("inplace", [False, True])
    def test_refused(self, net: Net, selectors: Any, parts: list[str], inplace: bool) -> None:
        fails(
            net,
            SelectorError,
            "partial-padding",
            *parts,
            call=lambda: pr.transform(net, PARTIAL, inplace=inplace, **selectors),
        )

    def test_a_predicate_that_raises_says_where(self, net: Net) -> None:
        """The user's own mistake keeps its own type."""
        with untouched(net), pytest.raises(AttributeError, match="nope"):
            pr.transform(net, PARTIAL, where=lambda s: s.nope, inplace=True)  # pyright: ignore


class TestPlans:
    @pytest.fixture
    def text(self, net: Net) -> str:
        text = pr.plan(net, PARTIAL).to_json()
        assert len(pr.Plan.from_json(text).decisions) == 3, (
            "undamaged, it must be readable: else nothing is tested"
        )
        return text

    def test_of_another_model(self, net: Net) -> None:
        plan = pr.plan(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), PARTIAL)
        for inplace in (False, True):
            fails(
                net,
                PlanError,
                "Sequential",
                "Net",
                "Make the plan again",
                call=lambda i=inplace: pr.apply(net, plan, inplace=i),
            )

    def test_applied_twice(self, net: Net) -> None:
        plan = pr.plan(net, PARTIAL)
        new = pr.apply(net, plan)
        fails(new, PlanError, "plan", call=lambda: pr.apply(new, plan, inplace=True))

    @pytest.mark.parametrize("thing", ["plan.json", None, {"schema": "padrewrite.plan/1"}])
    def test_not_a_plan(self, net: Net, thing: Any) -> None:
        fails(net, PlanError, type(thing).__name__, "Plan", call=lambda: pr.apply(net, thing))

    @pytest.mark.parametrize("thing", [None, 3, b"\xff\xfe"])
    def test_not_text(self, net: Net, thing: Any) -> None:
        fails(net, PlanError, "plan", call=lambda: pr.Plan.from_json(thing))

    def test_cut_short_anywhere(self, text: str) -> None:
        for length in range(0, len(text) - 1, max(1, len(text) // 40)):
            with pytest.raises(PlanError, match="cut short"):
                pr.Plan.from_json(text[:length])

    @pytest.mark.parametrize("schema", ["padrewrite.plan/2", "padrewrite.report/1", None])
    def test_another_schema(self, text: str, schema: Any) -> None:
        with pytest.raises(PlanError, match=r"padrewrite\.plan/1.*make the plan again"):
            pr.Plan.from_json(json.dumps({**json.loads(text), "schema": schema}))

    @pytest.mark.parametrize("other", ["[]", "null", '"plan"', "7", "{}"])
    def test_other_json(self, other: str) -> None:
        with pytest.raises(PlanError, match="schema"):
            pr.Plan.from_json(other)

    @pytest.mark.parametrize("bad", [None, 5, "x", [1], {"a": 1}])
    def test_a_field_of_the_wrong_type(self, net: Net, text: str, bad: Any) -> None:
        """Read, printed and applied, a damaged plan is a plan error or harmless, never another exception."""
        data = json.loads(text)
        for name in data:
            if name == "schema":
                continue
            with untouched(net):
                try:
                    plan = pr.Plan.from_json(json.dumps({**data, name: bad}))
                    str(plan)
                    pr.apply(net, plan)
                except PlanError:
                    pass
        for name in data["edits"][0]:
            broken = {**data, "edits": [{**data["edits"][0], name: bad}]}
            with untouched(net):
                try:
                    pr.apply(net, pr.Plan.from_json(json.dumps(broken)))
                except PadrewriteError:
                    pass

    def test_a_missing_field_is_named(self, text: str) -> None:
        data = json.loads(text)
        del data["edits"]
        with pytest.raises(PlanError, match="edits"):
            pr.Plan.from_json(json.dumps(data))

    def test_files(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "short.json").write_text(text[: len(text) // 2])
        (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x9f")
        for name in ("absent.json", "short.json", "binary.json", "."):
            with pytest.raises(PlanError, match=re.escape(str(tmp_path / name))):
                pr.Plan.load(tmp_path / name)


class TestUntouchedModels:
    @pytest.mark.parametrize(
        ("call", "error"), [("verify", PlanError), ("report", PlanError), ("revert", RevertError)]
    )
    @pytest.mark.parametrize("reverted", [False, True])
    def test_nothing_to_do(self, net: Net, call: str, error: type[Exception], reverted: bool) -> None:
        if reverted:
            pr.revert(pr.transform(net, PARTIAL, inplace=True))
        fails(net, error, "Net carries no rewrite", "nothing to", call=lambda: CALLS[call](net))

    @pytest.mark.parametrize("original", ["model.pt", nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Conv2d(3, 4, 3)])
    def test_verify_against_something_else(self, net: Net, original: Any) -> None:
        new = pr.transform(net, PARTIAL, example_inputs=picture())
        with untouched(new), pytest.raises(PadrewriteError, match="original"):
            pr.verify(new, original=original)

    def test_why_not_of_an_unknown_site(self, net: Net) -> None:
        plan = pr.plan(net, PARTIAL)
        assert "no such convolution" in plan.why_not("layer1.9")
        assert "layer1.0" in plan.why_not("layer1.9")
