"""New parameters on top of new parameters: what cannot be put together is decided with a reason, in any order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr

REFINE, SEPARATE, EVEN = "boundary-refinement{at=0}", "separable-kernel{mid=4}", "symmetric-even{from_odd=True}"


def single(kernel: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, 8, kernel, padding=kernel // 2), nn.ReLU()).double().eval()


def image() -> Tensor:
    return torch.randn(2, 8, 14, 15, dtype=torch.float64)


def decided(model: nn.Module, passes: list[str], split: bool, x: Tensor) -> dict[str, tuple[str, str]]:
    """Code and reason of the last pass by site, of one call or of two."""
    if split:
        model, passes = pr.transform(model, passes[:1], example_inputs=x), passes[1:]
    plan = pr.plan(model, passes, example_inputs=x, allow_no_effect=True)
    last = passes[-1].partition("{")[0]
    return {d.site: (d.code, d.reason) for d in plan.decisions if d.pass_name == last}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(("kernel", "second"), [(5, SEPARATE), (3, EVEN)])
def test_what_has_a_refinement_is_not_replaced(kernel: int, second: str, split: bool) -> None:
    model, x = single(kernel), image()
    found = decided(model, [REFINE, second], split, x)
    assert found["0"] == ("refined", "0.refinement hangs on it; replace it first, then refine")
    new = pr.transform(model, [REFINE, second], example_inputs=x, allow_no_effect=True, verify="full")
    torch.testing.assert_close(new(x), model(x), rtol=0, atol=0)


PARTS: dict[str, tuple[Callable[[], nn.Module], list[str], tuple[str, ...]]] = {
    "refinement made even": (single, [REFINE, EVEN], ("0.refinement.residual.0", "0.refinement.residual.2")),
    "refinement separated": (
        single,
        [REFINE, "separable-kernel{min_kernel=3,init=random,mid=1}"],
        ("0.refinement.residual.0", "0.refinement.residual.2"),
    ),
    "factors made even": (
        lambda: single(7),
        ["separable-kernel{mid=4}", "symmetric-even{from_odd=[7]}"],
        ("0.left.0", "0.left.1", "0.right.0", "0.right.1"),
    ),
}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_another_layer_are_not_replaced(name: str, split: bool) -> None:
    make, passes, parts = PARTS[name]
    model, x = make(), image()
    found = decided(model, passes, split, x)
    assert {site: found[site][0] for site in parts} == dict.fromkeys(parts, "inside-another")
    assert found[parts[0]][1].startswith(f"it is a part of {parts[0].rsplit('.', 2)[0]}, a ")
    new = pr.transform(model, passes, example_inputs=x, allow_no_effect=True, verify="full")
    new.load_state_dict(model.state_dict(), strict=True)
    assert pr.verify(new, example_inputs=x).ok
    assert torch.equal(pr.revert(new)(x), model(x))


@pytest.mark.parametrize("passes", [[REFINE], ["separable-kernel{mid=1,init=random}"]])
def test_on_meta_nothing_is_compared(passes: list[str]) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 7, padding=3))
    x = torch.empty(2, 3, 20, 20, device="meta")
    new = pr.transform(model, passes, example_inputs=x)
    found = [e for e in pr.verify(new, level="quick").evidence if e.contract == "reference"]
    assert found
    assert all(e.vacuous and e.ok for e in found)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("passes", [[SEPARATE], ["separable-kernel{mid=4,init=random}"], [REFINE]])
@pytest.mark.filterwarnings("ignore::padrewrite.errors.NewParametersWarning")
def test_what_is_made_under_inference_mode_trains(passes: list[str], inplace: bool) -> None:
    model, x = single(7), image()
    with torch.inference_mode():
        new = pr.transform(model, passes, example_inputs=x, inplace=inplace)
        assert torch.is_inference_mode_enabled()
    assert not any(p.is_inference() for p in new.parameters())
    new(x).sum().backward()
    assert all(p.grad is not None for p in new.parameters())


@pytest.mark.parametrize("hook", ["register_hook", "register_post_accumulate_grad_hook"])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_hooks_on_parameters_are_not_lost(hook: str, name: str) -> None:
    model, x = single(7), image()
    getattr(getattr(model[0], name), hook)(lambda grad: None)
    assert decided(model, [SEPARATE], False, x)["0"] == (
        "parameter-hooks",
        f"its {name} has hooks, which the new parameters would not have",
    )


@pytest.mark.parametrize("name", ["assembly", "replaced", "left", "_take"])
def test_attributes_do_not_stand_for_those_of_the_new_layer(name: str) -> None:
    model, x = single(7), image()
    setattr(model[0], name, 3)
    assert decided(model, [SEPARATE], False, x)["0"] == (
        "taken-name",
        f"it has an attribute {name}, which the new layer needs for itself; rename it",
    )


@pytest.mark.parametrize(("name", "value"), [("refinement", 3), ("attached", "x"), ("refinement", nn.ReLU())])
def test_attributes_do_not_stand_for_the_refinement(name: str, value: object) -> None:
    model, x = single(3), image()
    setattr(model[0], name, value)
    assert decided(model, [REFINE], False, x)["0"] == (
        "taken-name",
        f"it has an attribute {name}, which is needed for the refinement; rename it",
    )


@pytest.mark.parametrize("at", ["0.left.1", "0.right.0"])
def test_a_trained_refinement_of_a_part_is_what_the_layer_computes(at: str) -> None:
    x = image()
    new = pr.transform(single(7), ["separable-kernel{mid=4}", "boundary-refinement{at=" + at + "}"], example_inputs=x)
    with torch.no_grad():
        for parameter in new.get_submodule(f"{at}.refinement").parameters():
            parameter.normal_()
    found = pr.verify(new, example_inputs=x, level="full")
    assert found.ok, found
    with torch.no_grad():
        new.get_submodule(at).register_forward_hook(lambda module, args, out: out * 1.001)
    assert not pr.verify(new, example_inputs=x, level="full").ok
