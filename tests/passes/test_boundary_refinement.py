"""Boundary refinement: an exact insertion at named places, that learns from there."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from expected import FEW, TIGHT, Borrowed, Row, Twice, image
from hypothesis import given
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.errors import NewParametersWarning, NoEffectError, PassError, SelectorError
from padrewrite_passes import BoundaryRefinement

NAME = "boundary-refinement"


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).double()


def rewrite(model: nn.Module, at: Any = "2", verify: str = "full", **options: Any) -> Any:
    x = options.pop("example_inputs", image(9, 13))
    return pr.transform(model, [BoundaryRefinement(at)], example_inputs=x, verify=verify, **options)


def test_before_and_after() -> None:
    model, x = net(), image(9, 13)
    new = rewrite(model)
    assert torch.equal(new(x), model(x))
    assert isinstance(new[2], nn.Conv2d)
    assert str(new[2]).splitlines() == [
        "AttachedConv2d(",
        "  8, 4, kernel_size=(1, 1), stride=(1, 1)",
        "  (refinement): BoundaryRefinement(",
        "    residual.0 3x3, residual.2 3x3, skip",
        "    (residual): Sequential(",
        "      (0): Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))",
        "      (1): ReLU()",
        "      (2): Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))",
        "    )",
        "  )",
        ")",
    ]
    assert [(d.site, d.status, d.code, d.contract) for d in pr.report(new).decisions] == [
        ("0", "kept", "not-named", None),
        ("2", "rewritten", "rewritten", "exact"),
    ]
    assert {e.contract for e in pr.report(new).verification.evidence} == {"reference", "exact"}
    assert "k1 s1 p0 d1 -> + 3x3 relu 3x3" in str(pr.report(new))


REFUSALS = [
    Row("not-named", "kept", NAME, lambda: nn.Conv2d(3, 4, 3), (5, 7)),
    Row(
        "already-refined",
        "kept",
        f"{NAME}{{at=0}}",
        lambda: pr.transform(nn.Sequential(nn.Conv2d(3, 4, 3)), [BoundaryRefinement("0")]),
        (9, 9),
    ),
    Row("transposed", "refused", f"{NAME}{{at=*}}", lambda: nn.ConvTranspose2d(3, 4, 3), (5, 7)),
    Row("not-an-image", "refused", f"{NAME}{{at=*}}", lambda: nn.Conv1d(3, 4, 3), (7,)),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.code)
def test_refusals(row: Row) -> None:
    found = row.decide()
    assert (found.status, found.code) == (row.status, row.code)
    assert found.before == found.after
    assert found.reason


def test_a_wrong_option_is_an_error() -> None:
    with pytest.raises(PassError, match=r"at=3.5 is not a name or a list of names"):
        pr.plan(net(), [f"{NAME}{{at=3.5}}"], example_inputs=image(9, 9))
    with pytest.raises(SelectorError, match=r"boundary-refinement at='head' matched 0 of 2 convolutions"):
        rewrite(net(), "head")


@pytest.mark.parametrize("at", ["2", 2, ["0", "2"], [0, 2], "re:[02]", "*"])
def test_names(at: Any) -> None:
    new = rewrite(net(), tuple(at) if isinstance(at, list) else at)
    assert hasattr(new[0], "refinement") == (at not in ("2", 2))
    assert hasattr(new[2], "refinement")


def test_it_learns_from_the_identity() -> None:
    """The first step moves the last convolution, the second all of them."""
    new, x = rewrite(net()), image(9, 13)
    optimizer = torch.optim.SGD(new[2].refinement.parameters(), 0.5)
    before = {name: p.detach().clone() for name, p in new[2].refinement.named_parameters()}
    moved: list[set[str]] = []
    for _ in range(2):
        optimizer.zero_grad()
        new(x).square().mean().backward()
        optimizer.step()
        moved.append({n for n, p in new[2].refinement.named_parameters() if not torch.equal(p, before[n])})
    assert moved[0] == {"residual.2.weight", "residual.2.bias"}
    assert moved[1] == set(before)
    s = F.conv2d(F.relu(new[0](x)), new[2].weight, new[2].bias)
    want = s + new[2].refinement.residual[2](F.relu(new[2].refinement.residual[0](s)))
    torch.testing.assert_close(new(x), want, **TIGHT)
    found = pr.verify(new, example_inputs=x)
    assert found.ok
    assert {e.contract: e.vacuous for e in found.evidence} == {"reference": False, "exact": True}


def test_an_original_checkpoint_makes_it_the_identity_again() -> None:
    model, x = net(), image(9, 13)
    new = rewrite(model)
    assert set(model.state_dict()) < set(new.state_dict())
    with torch.no_grad():
        for p in new[2].refinement.parameters():
            p.add_(1)
    own, first = copy.deepcopy(new.state_dict()), new[2].refinement.residual[0].weight.clone()
    assert not torch.allclose(new(x), model(x))
    new.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(new(x), model(x))
    assert torch.equal(new[2].refinement.residual[0].weight, first)
    new.load_state_dict(own, strict=True)
    assert not torch.allclose(new(x), model(x))


def test_it_copies_stores_and_reverts() -> None:
    model, x = net(), image(9, 13)
    new = rewrite(model)
    with torch.no_grad():
        new[2].refinement.residual[2].bias.fill_(1)
    file = io.BytesIO()
    torch.save(new, file)
    file.seek(0)
    for again in (copy.deepcopy(new), torch.load(file, weights_only=False)):
        assert torch.equal(again(x), new(x))
        back = pr.revert(again)
        assert type(back[2]) is nn.Conv2d
        assert list(back.state_dict()) == list(model.state_dict())
        assert torch.equal(back(x), model(x))


def test_in_place_the_layers_parameters_stay() -> None:
    model, x = net(), image(9, 13)
    old = list(model.parameters())
    with pytest.warns(NewParametersWarning, match="2 got new parameters"):
        rewrite(model, inplace=True, verify="off")
    assert [id(p) for p in model.parameters() if "refinement" not in str(p.shape)][: len(old)] == [id(p) for p in old]
    assert torch.equal(model(x), rewrite(pr.revert(model))(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_type_and_mode_are_those_of_the_layer(dtype: torch.dtype) -> None:
    new = pr.transform(net().eval().to(dtype), [BoundaryRefinement("2")], verify="off")
    assert {p.dtype for p in new.parameters()} == {dtype}
    assert not any(m.training for m in new.modules())


@pytest.mark.parametrize("first", [True, False])
def test_with_partial_padding_in_any_order_and_any_number_of_calls(first: bool) -> None:
    """The layer is both; its refinement is padded partially where that pass comes later."""
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).double(), image(9, 13)
    passes = [BoundaryRefinement("0"), "partial-padding"]
    passes = passes if first else passes[::-1]
    new = pr.transform(model, passes, example_inputs=x, verify="full")
    step = pr.transform(model, passes[:1], example_inputs=x, verify="full")
    two = pr.transform(step, passes[1:], example_inputs=x, verify="full")
    partial = pr.transform(model, ["partial-padding"], example_inputs=x)
    for one in (new, two):
        torch.testing.assert_close(one(x), partial(x), **TIGHT)
        assert isinstance(one[0], nn.Conv2d)
        assert isinstance(one[0].refinement.residual[0], pr.nn.PartialConv2d) == first
        again = copy.deepcopy(one)
        assert torch.equal(again(x), one(x))
        assert torch.equal(pr.revert(again)(x), model(x))
        assert type(again[0]) is nn.Conv2d


def test_behind_a_separable_kernel() -> None:
    """A replaced layer's own convolutions can be refined like any other."""
    model, x = nn.Sequential(nn.Conv2d(3, 4, 9, padding=4)).double(), image(9, 13)
    separable = pr.transform(model, ["separable-kernel{mid=1}"], example_inputs=x)
    new = pr.transform(separable, [BoundaryRefinement("0.left.1")], example_inputs=x, verify="full")
    assert torch.equal(new(x), separable(x))
    both = pr.transform(model, ["separable-kernel{mid=1}", BoundaryRefinement("0.left.1")], example_inputs=x)
    assert torch.equal(both(x), separable(x))
    assert torch.equal(pr.revert(new)(x), model(x))


def test_a_shared_layer_is_refined_at_every_call() -> None:
    model, x = Twice().double(), image(9, 13)
    new = rewrite(model, "conv")
    assert torch.equal(new(x), model(x))
    assert [d.code for d in pr.report(new).decisions] == ["rewritten", "rewritten"]
    cut = pr.plan(model, [BoundaryRefinement("conv@1")], example_inputs=x, allow_no_effect=True)
    assert [d.code for d in cut.decisions] == ["not-named", "shared-module"]


def test_functional_convolutions_have_no_layer_to_attach_to() -> None:
    plan = pr.plan(Borrowed(), [BoundaryRefinement("*")], example_inputs=image(9, 9).float(), allow_no_effect=True)
    assert [d.code for d in plan.decisions] == ["not-a-layer"]


def test_hooks_see_the_refined_output() -> None:
    """They are the layer's: what it returns is what they get."""
    model, x = net(), image(9, 13)
    seen: list[Tensor] = []
    model[2].register_forward_hook(lambda m, a, o: seen.append(o))
    new = rewrite(model)
    with torch.no_grad():
        new[2].refinement.residual[2].bias.fill_(1)
    seen.clear()
    out = new(x)
    assert torch.equal(seen[0], out)


@FEW
@given(nets(ranks=(1, 2, 3)))
def test_a_network_computes_what_it_did(spec: NetSpec) -> None:
    model, x = spec.build(), spec.draw_input()
    new = pr.transform(model, [BoundaryRefinement("*")], example_inputs=x, verify="full", allow_no_effect=True)
    assert all(torch.equal(a, b) for a, b in zip(new(x), model(x), strict=True))
    assert pr.report(new).verification.ok
    again = pr.plan(new, [BoundaryRefinement("*")], example_inputs=x, allow_no_effect=True)
    assert not again.edits
    new.load_state_dict(model.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(pr.revert(new)(x), model(x), strict=True))


def test_a_plan_replays() -> None:
    model, x = net(), image(9, 13)
    plan = pr.plan(model, [BoundaryRefinement("2"), "partial-padding"], example_inputs=x)
    again = pr.Plan.from_json(plan.to_json())
    assert again == plan
    torch.testing.assert_close(pr.apply(model, again)(x), pr.apply(model, plan)(x), **TIGHT)


def test_naming_nothing_is_an_error() -> None:
    with pytest.raises(NoEffectError, match="boundary-refinement would change nothing: 2 not-named"):
        rewrite(net(), ())
