"""Checkpoints into layers with new parameters: whole ones, parts of them, of other types, and onto meta."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr

SEPARABLE, REFINED = "separable-kernel{mid=4}", "boundary-refinement{at=0}"


def net(stride: int = 1, bias: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(4, 6, 7, padding=3, stride=stride, bias=bias)
    return nn.Sequential(conv, nn.ReLU(), nn.Conv2d(6, 4, 1)).double()


def image() -> Tensor:
    return torch.randn(2, 4, 12, 14, dtype=torch.float64)


def rewrite(model: nn.Module, *passes: str) -> Any:
    return pr.transform(model, passes, example_inputs=image(), verify="off")


def trained(model: Any) -> Any:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    return model


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, state: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if torch.equal(value, state[name])}


@pytest.mark.parametrize("given", [(), ("2.weight", "2.bias"), ("0.bias",)])
def test_a_checkpoint_without_the_layer_leaves_what_is_attached_to_it(given: tuple[str, ...]) -> None:
    model = net()
    new = trained(rewrite(model, REFINED))
    before = state_of(new)
    found = new.load_state_dict({name: model.state_dict()[name] for name in given}, strict=False)
    assert same(new, before) == set(before) - set(given)
    assert found.missing_keys == [name for name in before if name not in given]
    assert not found.unexpected_keys


def test_a_checkpoint_of_the_layer_resets_what_is_attached_to_it() -> None:
    model, x = net(), image()
    new = trained(rewrite(model, REFINED))
    layer = {name: value for name, value in model.state_dict().items() if name.startswith("0.")}
    assert new.load_state_dict(layer, strict=False).missing_keys == ["2.weight", "2.bias"]
    assert torch.equal(new[0](x), model[0](x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("replaced", [SEPARABLE, "symmetric-even{from_odd=[7]}"])
def test_what_is_attached_within_a_replaced_layer_is_reset(replaced: str, stride: int) -> None:
    model, other, x = net(stride), net(stride), image()
    new = trained(rewrite(model, replaced, REFINED))
    assert any("refinement" in name for name in new[0].state_dict())
    new.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(new(x), rewrite(other, replaced, REFINED)(x))
    own = state_of(trained(new))
    new.load_state_dict(own, strict=True)
    assert same(new, own) == set(own)


def test_a_missing_bias_is_missing_and_stays() -> None:
    model, other, x = net(), net(), image()
    new = trained(rewrite(model, SEPARABLE))
    bias = new[0].left[1].bias.detach().clone()
    lacking = {name: value for name, value in other.state_dict().items() if name != "0.bias"}
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "0.bias"'):
        copy.deepcopy(new).load_state_dict(lacking)
    found = new.load_state_dict(lacking, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["0.bias"], [])
    with torch.no_grad():
        other[0].bias.copy_(bias)
    assert torch.equal(new(x), rewrite(other, SEPARABLE)(x))


@pytest.mark.parametrize("replaced", [SEPARABLE, "symmetric-even{from_odd=[7]}"])
def test_a_bias_alone_is_taken(replaced: str) -> None:
    model, x = net(2), image()
    new, bias = rewrite(model, replaced), torch.randn(6).double()
    found = new.load_state_dict({"0.bias": bias}, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["0.weight", "2.weight", "2.bias"], [])
    want = rewrite(model, replaced)[0](x) + (bias - model[0].bias)[:, None, None]
    torch.testing.assert_close(new[0](x), want, rtol=1e-10, atol=1e-10)


def test_a_bias_alone_leaves_what_is_attached_within() -> None:
    model = net()
    new = trained(rewrite(model, SEPARABLE, REFINED))
    before = state_of(new)
    new.load_state_dict({"0.bias": model[0].bias}, strict=False)
    assert set(before) - same(new, before) == {"0.left.1.bias"}


def test_a_bias_too_many_is_unexpected() -> None:
    other, x = net(), image()
    new = trained(rewrite(net(bias=False), SEPARABLE))
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "0.bias"'):
        copy.deepcopy(new).load_state_dict(other.state_dict())
    found = new.load_state_dict(other.state_dict(), strict=False)
    assert (found.missing_keys, found.unexpected_keys) == ([], ["0.bias"])
    other[0].bias = None
    assert torch.equal(new(x), rewrite(other, SEPARABLE)(x))


def test_what_is_filled_in_has_the_type_of_what_is_assigned() -> None:
    model = net()
    new = trained(rewrite(model, SEPARABLE, "boundary-refinement{at=[0, 2]}"))
    new.load_state_dict(model.bfloat16().state_dict(), assign=True)
    assert {p.dtype for p in new.parameters()} == {torch.bfloat16}
    assert new(image().bfloat16()).dtype == torch.bfloat16


def test_what_is_filled_in_keeps_its_type_where_values_are_copied() -> None:
    model = net()
    new = rewrite(model, REFINED)
    first = new[0].refinement.residual[0].weight.clone()
    new.load_state_dict(model.bfloat16().state_dict())
    assert torch.equal(new[0].refinement.residual[0].weight, first)


def test_nothing_stays_on_meta_where_a_checkpoint_is_assigned() -> None:
    model, x = net(), image()
    plan = pr.plan(model, [SEPARABLE, "boundary-refinement{at=[0, 2]}"], example_inputs=x)
    new = pr.apply(net().to("meta"), plan)
    new.load_state_dict(model.state_dict(), strict=True, assign=True)
    assert {(p.device.type, p.dtype) for p in new.parameters()} == {("cpu", torch.float64)}
    assert torch.equal(new(x), pr.apply(model, plan)(x))
    assert all(new.get_submodule(n).weight.any() for n in ("2.refinement.residual.0", "0.left.0.refinement.residual.0"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("replaced", [SEPARABLE, "symmetric-even{from_odd=[7]}"])
def test_values_that_are_not_finite_are_an_error_that_says_so(replaced: str, value: float) -> None:
    model = net()
    new = trained(rewrite(model, replaced, REFINED))
    before = state_of(new)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = value
    wanted = r"(?s)0\.weight is not finite everywhere in the checkpoint.*Load a checkpoint with finite values"
    with pytest.raises(RuntimeError, match=wanted):
        new.load_state_dict(model.state_dict())
    assert {name for name in before if name.startswith("0.")} <= same(new, before)


def test_a_weight_without_values_is_an_error_that_says_so() -> None:
    new = rewrite(net(), SEPARABLE)
    with pytest.raises(RuntimeError, match=r"0\.weight has no values \(it is on meta\) in the checkpoint"):
        new.load_state_dict(net().to("meta").state_dict(), assign=True)
