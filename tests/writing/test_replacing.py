"""Layers with new parameters: everything around the numbers survives, checkpoints load, and all of it can be undone."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm

import padrewrite as pr
from padrewrite.errors import NewParametersWarning, PlanError, RevertError, WriteError
from padrewrite_passes import SeparableKernel

PASS = SeparableKernel(mid=4)
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 7, padding=3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).double()


def image(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 12, 15, dtype=torch.float64)


def rewrite(model: nn.Module, **options: Any) -> nn.Module:
    return pr.transform(model, [PASS], example_inputs=image(), **options)


def decide(model: nn.Module) -> pr.Decision:
    return pr.plan(model, [PASS], example_inputs=image(), allow_no_effect=True).decisions[0]


def reload(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class Branches(nn.Module):
    """One layer with two parents, and two names."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(3, 3, 9, padding=4)
        self.first, self.second = nn.Sequential(shared), nn.ModuleDict({"again": shared})

    def forward(self, x: Tensor) -> Tensor:
        return self.second["again"](self.first(x))


class Peeking(nn.Module):
    """Reads a layer's weight beside calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.conv.weight.norm()


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 7, 7))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=3)


class Own(nn.Conv2d):
    pass


def tied() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 9, padding=4), nn.Conv2d(3, 3, 9, padding=4))
    model[1].weight = model[0].weight
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 7, padding=3))
    model[0].register_state_dict_pre_hook(lambda *_: None)
    return model


def on(model: nn.Module, change: Callable[[nn.Module], Any]) -> nn.Module:
    change(model[0])  # pyright: ignore[reportIndexIssue]
    return model


def one() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 7, padding=3))


REFUSED: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "functional": ("not-a-layer", Functional),
    "root": ("root-layer", lambda: nn.Conv2d(3, 8, 7, padding=3)),
    "subclass": ("own-class", lambda: nn.Sequential(Own(3, 8, 7, padding=3))),
    "weight_norm": ("own-class", lambda: on(one(), parametrizations.weight_norm)),
    "pruned": ("computed-weight", lambda: on(one(), lambda m: prune.random_unstructured(m, "weight", 0.5))),
    "old spectral_norm": ("computed-weight", lambda: on(one(), spectral_norm)),
    "tied": ("tied-weight", tied),
    "peeking": ("tied-weight", Peeking),
    "state hooks": ("state-hooks", hooked),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:.*weight_norm|.*spectral_norm:FutureWarning")
def test_what_cannot_be_replaced_is_refused_with_a_reason(name: str) -> None:
    code, make = REFUSED[name]
    model = make()
    x = image().to(next(model.parameters()).dtype)
    found = pr.plan(model, [PASS], example_inputs=x, allow_no_effect=True).decisions[0]
    assert (found.status, found.code) == ("refused", code)
    assert found.reason


def test_weights_on_meta_have_nothing_to_carry() -> None:
    with torch.device("meta"):
        model = one()
        found = pr.plan(model, [PASS], example_inputs=torch.empty(2, 3, 12, 15), allow_no_effect=True).decisions[0]
    assert found.code == "no-values"


def test_weights_that_are_not_numbers_are_not_carried() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    found = pr.plan(model, [PASS], example_inputs=image(), allow_no_effect=True).decisions[0]
    assert found.code == "no-values"
    assert found.reason == "its weight is not finite everywhere: nothing can be carried over"


def test_a_plan_replays_on_meta_and_carries_what_is_loaded_then() -> None:
    model, x = net(), image()
    plan = pr.plan(model, [PASS], example_inputs=x)
    new = pr.apply(net().to("meta"), plan)
    assert {p.device.type for p in new.parameters()} == {"meta"}
    assert [d.contract for d in pr.report(new).decisions] == ["bounded", None]
    new.load_state_dict(model.state_dict(), strict=True, assign=True)
    assert torch.equal(new.eval()(x), pr.apply(model, plan).eval()(x))


def test_complex_weights_are_not_carried() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 7, padding=3, dtype=torch.complex64))
    assert pr.plan(model, [PASS], allow_no_effect=True).decisions[0].code == "no-values"


def test_pads_that_cannot_be_divided_are_refused() -> None:
    """Partial padding is told what explicit pads have added; a pair of convolutions has no place for that."""
    model = nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(3, 8, 7, padding=1))
    x = torch.randn(2, 3, 12, 15)
    plan = pr.plan(model, ["partial-padding", PASS], example_inputs=x, allow_no_effect=True)
    assert plan.decisions[-1].code == "padded-outside"


def test_all_parents_get_the_new_layer() -> None:
    model = Branches().double()
    new = rewrite(model, verify="full")
    assert isinstance(new, Branches)
    assert new.first[0] is new.second["again"]
    assert type(new.first[0]) is pr.nn.GlobalConv2d
    assert {d.site: d.status for d in pr.report(new).decisions} == {"first.0": "rewritten", "first.0@1": "rewritten"}
    old = pr.revert(new)
    assert old.first[0] is old.second["again"]
    assert torch.equal(old(image()[:1] * 0 + 1), model(image()[:1] * 0 + 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_mode_gradients_and_memory_format_are_kept(dtype: torch.dtype) -> None:
    model = net().to(dtype).to(memory_format=torch.channels_last)
    model[0].eval().weight.requires_grad_(False)
    new = pr.transform(model, [PASS], verify="off")
    found = dict(new[0].named_parameters())
    assert {p.dtype for p in found.values()} == {dtype}
    assert not any(m.training for m in new[0].modules())
    assert {name: p.requires_grad for name, p in found.items()} == {
        name: name.endswith("bias") for name in found
    }
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in found.values() if p.dim() == 4)
    assert new.training
    assert new(image().to(dtype)).shape == (2, 4, 12, 15)


def test_hooks_stay_and_can_be_removed() -> None:
    """In place, the handle that a user holds still removes its hook, from the new layer and from the old one."""
    model, x = net(), image()
    seen: list[str] = []
    forward = model[0].register_forward_hook(lambda m, a, o: seen.append(type(m).__name__))
    model[0].register_forward_pre_hook(lambda m, a, k: seen.append("before"), with_kwargs=True)
    model[0].register_full_backward_hook(lambda m, a, b: seen.append("backward"))
    model[0].note = "mine"
    with pytest.warns(NewParametersWarning, match="0 got new parameters"):
        pr.transform(model, [PASS], example_inputs=x, inplace=True, verify="off")
    seen.clear()
    model(x.requires_grad_()).sum().backward()
    assert seen == ["before", "GlobalConv2d", "backward"]
    assert model[0].note == "mine"
    forward.remove()
    seen.clear()
    model(x)
    pr.revert(model)(x)
    assert seen == ["before", "before"]


def test_an_optimizer_made_before_holds_dead_parameters() -> None:
    """In place it is warned of; reverting brings the very parameters back."""
    model, x = net(), image()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    old = list(model.parameters())
    with pytest.warns(NewParametersWarning, match="An optimizer made before holds the old ones"):
        pr.transform(model, [PASS], example_inputs=x, inplace=True)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not any(id(p) in held for p in model[0].parameters())
    assert all(id(p) in held for p in model[1].parameters())
    pr.revert(model)
    assert all(a is b for a, b in zip(model.parameters(), old, strict=True))


def test_a_copy_is_not_warned_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rewrite(net())


def test_a_failed_rewrite_in_place_leaves_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = net(), image()
    before, modules = {k: v.clone() for k, v in model.state_dict().items()}, list(model.named_modules())
    parameters = list(model.parameters())

    def fail(*_: Any) -> None:
        raise WriteError("no")

    monkeypatch.setattr("padrewrite.pipeline.check_prediction", fail)
    with pytest.raises(WriteError, match="no"):
        pr.transform(model, [PASS], example_inputs=x, inplace=True)
    assert [(n, id(m)) for n, m in model.named_modules()] == [(n, id(m)) for n, m in modules]
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(RevertError, match="nothing to revert"):
        pr.revert(model)


def test_planning_changes_nothing() -> None:
    model, x = net(), image()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    modules = [id(m) for m in model.modules()]
    pr.plan(model, [PASS, "partial-padding"], example_inputs=x)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [id(m) for m in model.modules()] == modules
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_original_checkpoints_load_strict() -> None:
    """Their weights are carried over anew, by the same rule: as if that model had been rewritten."""
    model, other, x = net(), net(), image()
    new = rewrite(model)
    assert set(new.state_dict()) - set(model.state_dict()) == {
        *("0.left.0.weight", "0.left.1.weight", "0.left.1.bias", "0.right.0.weight", "0.right.1.weight")
    }
    new.load_state_dict(other.state_dict(), strict=True)
    torch.testing.assert_close(new.eval()(x), rewrite(other).eval()(x), rtol=0, atol=0)
    nested = nn.ModuleDict({"inner": new})
    nested.load_state_dict({f"inner.{k}": v for k, v in model.state_dict().items()}, strict=True)
    torch.testing.assert_close(new.eval()(x), rewrite(model).eval()(x), rtol=0, atol=0)


def test_its_own_checkpoints_load_strict() -> None:
    new, x = rewrite(net()), image()
    other = rewrite(net())
    other.load_state_dict(new.state_dict(), strict=True)
    assert torch.equal(other.eval()(x), new.eval()(x))


def test_a_checkpoint_of_another_shape_says_so() -> None:
    new = rewrite(net())
    wrong = net().state_dict()
    wrong["0.weight"] = torch.randn(8, 3, 5, 5)
    with pytest.raises(RuntimeError, match=r"size mismatch for 0.weight: \(8, 3, 5, 5\) in the checkpoint"):
        new.load_state_dict(wrong)
    lacking = {k: v for k, v in net().state_dict().items() if k != "0.bias"}
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"0.bias\""):
        new.load_state_dict(lacking)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), reload])
def test_copies_compute_the_same(copied: Callable[[nn.Module], nn.Module]) -> None:
    new, x = rewrite(net()).eval(), image()
    again = copied(new)
    assert torch.equal(again(x), new(x))
    assert str(pr.report(again)) == str(pr.report(new))
    again.load_state_dict(net().state_dict(), strict=True)
    assert not pr.plan(again, [PASS], example_inputs=x, allow_no_effect=True).edits


def test_revert_restores_what_was_replaced() -> None:
    model, x = net(), image()
    new = rewrite(model)
    with torch.no_grad():
        new[3].weight.mul_(2)
        model[3].weight.mul_(2)
    back = pr.revert(copy.deepcopy(new).float())
    assert [type(m) for m in back] == [type(m) for m in model]
    assert {p.dtype for p in back.parameters()} == {torch.float32}
    assert list(back.state_dict()) == list(model.state_dict())
    assert torch.equal(pr.revert(new).eval()(x), model.eval()(x))


def test_revert_after_loading_needs_the_original() -> None:
    model, x = net(), image()
    new = reload(rewrite(model))
    with pytest.raises(RevertError, match=r"the parameters that 0 had .* Write revert\(model, original=\.\.\.\)"):
        pr.revert(new)
    assert type(new[0]) is pr.nn.GlobalConv2d
    with pytest.raises(RevertError, match="other modules or shapes"):
        pr.revert(new, original=one())
    back = pr.revert(new, original=model)
    assert torch.equal(back.eval()(x), model.eval()(x))
    assert back[0].weight is not model[0].weight


def test_a_plan_replays_with_other_weights_and_states_their_bound() -> None:
    model, easy, x = net(), net(), image()
    with torch.no_grad():
        easy[0].weight.copy_(torch.einsum("omx,mcy->ocyx", *(torch.randn(s).double() for s in ((8, 2, 7), (2, 3, 7)))))
    plan = pr.Plan.from_json(pr.plan(model, [PASS], example_inputs=x).to_json())
    (stated,) = (d.contract for d in plan.decisions if d.status == "rewritten")
    (found,) = (d.contract for d in pr.report(pr.apply(easy, plan)).decisions if d.status == "rewritten")
    assert stated != found
    assert found == "bounded(1e-10)"
    assert pr.verify(pr.apply(easy, plan), example_inputs=x).ok
    strict = pr.plan(easy, [SeparableKernel(mid=4, max_error=1e-6)], example_inputs=x)
    with pytest.raises(WriteError, match=r"0: with these weights relative error .* max_error is 1e-06"):
        pr.apply(model, strict)
    with pytest.raises(PlanError, match="rewritten already"):
        pr.apply(pr.apply(model, plan), plan)


def test_a_replay_is_the_rewrite() -> None:
    model, x = net(), image()
    plan = pr.plan(model, [PASS, "partial-padding"], example_inputs=x)
    replayed = pr.apply(model, pr.Plan.from_json(plan.to_json()))
    direct = pr.transform(model, [PASS, "partial-padding"], example_inputs=x)
    assert torch.equal(replayed.eval()(x), direct.eval()(x))
    plans = [pr.plan(model, [PASS, "partial-padding"], example_inputs=x).to_json() for _ in range(2)]
    assert plans[0] == plans[1]


def test_a_broken_weight_is_found() -> None:
    """Neither the reference nor the bound holds by construction: a factor that is off fails."""
    new = rewrite(net())
    assert pr.verify(new, level="quick").ok
    with torch.no_grad():
        new[0].left[0].weight[0] *= 1.001
    trained = pr.verify(new, level="quick")
    (bounded,) = (e for e in trained.evidence if e.contract.startswith("bounded"))
    assert bounded.max_abs_error > 0.1
    new[0].left[0].padding, new[0].left[0].padding_mode = (0, 0), "zeros"
    new[0].left[0].register_forward_pre_hook(lambda m, a: (F.pad(a[0], (0, 0, 4, 2)),))
    found = pr.verify(new, level="quick")
    assert [e.contract for e in found.failures] == ["reference"]


def test_redirected_calls_beside_it_are_counted_anew() -> None:
    """A redirection knows a call by its number; a layer that makes four calls instead of one moves the next."""

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 7, padding=3)
            self.weight = nn.Parameter(torch.randn(4, 8, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.conv(x), self.weight, padding=1)

    model, x = Beside().double(), image()
    one_call = pr.transform(model, ["partial-padding", PASS], example_inputs=x, include=None, verify="full")
    first = pr.transform(model, ["partial-padding"], example_inputs=x, verify="full")
    two_calls = pr.transform(first, [PASS], example_inputs=x, verify="full")
    torch.testing.assert_close(one_call(x), two_calls(x), **TIGHT)
    torch.testing.assert_close(pr.revert(two_calls)(x), model(x), rtol=0, atol=0)


def test_compiled_exported_and_differentiated() -> None:
    new, x = rewrite(net()).eval(), image()
    want = new(x)
    compiled = torch.compile(new, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), want, **TIGHT)
    exported = torch.export.export(new, (x,))
    torch.testing.assert_close(exported.module()(x), want, **TIGHT)
    want.sum().backward()
    assert all(p.grad is not None for p in new[0].parameters())


def test_the_backend_refuses_new_parameters() -> None:
    model, x = net().eval(), image()
    compiled = pr.compile(model, passes=[PASS], backend="eager", allow_no_effect=True)
    assert torch.equal(compiled(x), model(x))
    assert {d.code for d in pr.report(compiled).decisions} == {"new-parameters", "small-kernel"}
