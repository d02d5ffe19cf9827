"""Hybrid dilation: what it rewrites, into what, and what it leaves alone and why."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from analyses.oracles import flatten_weights
from chain_nets import Backwards, ChainSpec, Pyramid, chain_specs, conv, plain, rates_of, reach, resnet101_at_8
from expected import FEW, Row, image
from formulas.supports import has_no_hole
from hypothesis import given
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.errors import NoEffectError, PassError
from padrewrite_passes import HybridDilation

NAME = "hybrid-dilation"


def rewrite(model: nn.Module, *sizes: int, spec: str | pr.Pass = NAME, verify: str = "quick") -> nn.Module:
    return pr.transform(model, [spec], example_inputs=torch.randn(1, 3, *sizes), verify=verify)


def note_of(model: nn.Module) -> str:
    """What the plan says about its one chain."""
    (note,) = (n for n in pr.report(model).plans[0].notes if n.startswith(NAME))
    return note


def test_before_and_after() -> None:
    model = nn.Sequential(conv(1), conv(2), nn.ReLU(), conv(2), nn.Conv2d(3, 3, 1), conv(2)).double()
    new = pr.transform(model, [NAME], example_inputs=image(9, 13), verify="full")
    assert repr(model[1]) == "Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1), padding=(2, 2), dilation=(2, 2))"
    assert repr(new) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n"
        "  (1): Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n"
        "  (2): ReLU()\n"
        "  (3): Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1), padding=(2, 2), dilation=(2, 2))\n"
        "  (4): Conv2d(3, 3, kernel_size=(1, 1), stride=(1, 1))\n"
        "  (5): Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1), padding=(3, 3), dilation=(3, 3))\n"
        ")"
    )
    assert [(d.site, d.code, d.contract) for d in pr.report(new).decisions] == [
        ("0", "no-match", None),
        ("1", "rewritten", "shape"),
        ("3", "unchanged", None),
        ("4", "no-match", None),
        ("5", "rewritten", "shape"),
    ]
    assert note_of(new) == (
        "hybrid-dilation: 1 and 2 more: rates 2,2,2 -> 1,2,3; holes -> no holes, M_2 2 -> 2, score 1 -> 0.11, "
        "field kept"
    )
    assert torch.equal(new[1].weight, model[1].weight)


BIGGER = f"{NAME}{{policy=bigger}}"
REFUSALS = [
    Row("already-hole-free", "kept", NAME, lambda: plain(1, 2, 3), (9, 9)),
    Row("already-assigned", "kept", BIGGER, lambda: plain(1, 2, 5, 9, 1, 2), (9, 9)),
    Row("mixed-kernels", "refused", NAME, lambda: nn.Sequential(conv(2), conv(2, kernel=5)), (9, 9)),
    Row("no-preset", "refused", BIGGER, lambda: plain(3, 3), (9, 9)),
    Row("resizing", "refused", NAME, lambda: nn.Sequential(nn.Conv2d(3, 3, 3, dilation=2), conv(2)), (9, 9)),
    Row("uneven-padding", "refused", NAME, lambda: plain(3, 3, kernel=4), (9, 9)),
    Row("too-small", "refused", NAME, lambda: plain(2, 2, 2, padding_mode="reflect"), (3, 9)),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.code)
def test_refusals(row: Row) -> None:
    decision = row.decide()
    assert (decision.status, decision.code) == (row.status, row.code)
    assert decision.contract is None
    assert decision.before == decision.after
    assert decision.reason


@pytest.mark.parametrize("spec", [f"{NAME}{{policy=best}}", f"{NAME}{{scope=all}}", f"{NAME}{{group=0}}"])
def test_a_wrong_option_is_an_error(spec: str) -> None:
    with pytest.raises(PassError, match=r"hybrid-dilation: (policy='best' is unknown|scope='all' is|group is 0)"):
        rewrite(plain(2, 2), 9, 9, spec=spec)


# Every chain

SIDES = ("before", "after")


@FEW
@given(chain_specs())
def test_no_hole_is_left(spec: ChainSpec) -> None:
    """By adding up sets, and by the gradient of the network; the field is kept, or the note says by how much not."""
    model, x = spec.build(), torch.randn(1, 2, *(3, 4, 6)[-spec.rank :])
    new = pr.transform(model, [HybridDilation(group=spec.group)], example_inputs=x, allow_no_effect=True)
    decided = [d for d in pr.report(new).decisions if d.code != "no-match"]
    assert {d.code for d in decided} <= {"rewritten", "unchanged", "already-hole-free"}
    old, after = (tuple(numbers["dilation"][-1] for numbers in (getattr(d, when) for d in decided)) for when in SIDES)
    if not decided:
        assert sum(rate > 1 for rate in spec.rates) < 2
        return
    assert all(reach(flatten_weights(new), spec))
    if decided[0].code == "already-hole-free":
        assert has_no_hole((1, *old), spec.kernel)
    else:
        assert has_no_hole(after, spec.kernel)
        assert not has_no_hole(old, spec.kernel)
        grown = (spec.kernel - 1) * (sum(after) - sum(old))
        assert grown <= 0
        assert note_of(new).endswith(f"field {grown:+d} px of its map" if grown else "field kept")


@FEW
@given(chain_specs())
def test_everything_else_stays(spec: ChainSpec) -> None:
    model, x = spec.build().double(), torch.randn(1, 2, *(3, 4, 6)[-spec.rank :], dtype=torch.float64)
    one = HybridDilation(group=spec.group)
    new = pr.transform(model, [one], example_inputs=x, allow_no_effect=True, verify="full")
    before, after = (pr.analyze(m, example_inputs=x).sites for m in (model, new))
    for site, record in before.items():
        assert (record.size, record.output_size) == (after[site].size, after[site].output_size)
        if 2 * spec.before == spec.kernel - 1:
            assert record.phase == after[site].phase
    assert list(new.state_dict()) == list(model.state_dict())
    new.load_state_dict(model.state_dict(), strict=True)
    assert not pr.plan(new, [one], example_inputs=x, allow_no_effect=True).edits
    if spec.before == spec.kernel - 1:
        assert_causal(new, x)
    assert torch.equal(pr.revert(new)(x), model(x))


def assert_causal(model: nn.Module, x: Tensor) -> None:
    """No output sees what comes after it along the last axis."""
    later = x.clone()
    later[..., 3:] += 1
    assert torch.equal(model(x)[..., :3], model(later)[..., :3])
    assert not torch.equal(model(x), model(later))


# Chains are found by dataflow


def test_the_order_of_the_modules_does_not_matter() -> None:
    model = Backwards().double()
    new = pr.transform(model, [NAME], example_inputs=image(9, 9), verify="full")
    assert [(d.site, d.after["dilation"]) for d in pr.report(new).decisions] == [
        ("first", (1, 1)),
        ("#conv2d.0", (2, 2)),
        ("last", (3, 3)),
    ]
    assert type(model) is Backwards
    x = image(9, 9)
    want = F.relu(F.conv2d(x, model.first.weight, model.first.bias, padding=1))
    want = F.relu(F.conv2d(want, model.weight, padding=2, dilation=2))
    want = F.conv2d(want, model.last.weight, model.last.bias, padding=3, dilation=3)
    torch.testing.assert_close(new(x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rates", [(2, 2, 2), (6, 12, 18)])
def test_parallel_branches_are_no_chain(rates: tuple[int, ...]) -> None:
    model = Pyramid(*rates)
    with pytest.raises(NoEffectError, match="hybrid-dilation would change nothing: 5 no-match"):
        rewrite(model, 9, 9)
    for policy in ("none", "conv", "rf", "bigger"):
        plan = pr.plan(model, [HybridDilation(policy)], example_inputs=torch.randn(1, 3, 9, 9), allow_no_effect=True)
        assert not plan.edits


def test_a_chain_in_front_of_parallel_branches_is_rewritten_alone() -> None:
    new = rewrite(nn.Sequential(plain(2, 2, 2), Pyramid(2, 2, 2)), 9, 9)
    assert rates_of(new) == [1, 2, 3, 1, 2, 2, 2]


def test_a_shared_convolution_that_would_need_two_rates_refuses_the_chain() -> None:
    one = conv(2)
    plan = pr.plan(nn.Sequential(one, one, conv(2)), [NAME], example_inputs=image(9, 9).float(), allow_no_effect=True)
    assert plan.decisions[0].code == "shared-module"
    assert not plan.edits


def test_a_selector_that_cuts_a_chain_refuses_it() -> None:
    plan = pr.plan(plain(2, 2, 2), [NAME], example_inputs=image(9, 9).float(), include="0", allow_no_effect=True)
    assert {d.code for d in plan.decisions} == {"selector-cuts-match"}


# Policies, scopes, groups


@pytest.mark.parametrize(
    ("rates", "new"),
    [
        ((2, 2, 2), [1, 2, 3]),
        ((1, 2, 9), [1, 3, 8]),
        ((1, 2, 5), [1, 2, 5]),
        ((4, 4, 4), [1, 3, 8]),
        ((2, 4, 8), [1, 3, 9]),
        ((2, 2, 2, 2, 2, 2, 4, 4), [1, 3, 4, 1, 3, 4, 1, 3]),
        (tuple(2**i for i in range(5)), [2**i for i in range(5)]),
    ],
)
def test_rates_of_known_chains(rates: tuple[int, ...], new: list[int]) -> None:
    """The last but one: what two layers of rate 4 cannot keep, the groups before them take."""
    assert rates_of(rewrite(plain(*rates), 9, 9)) == new


@pytest.mark.parametrize(
    ("policy", "rates", "increase"),
    [
        (None, [2] * 23 + [4] * 3, 116),
        ("none", [1] * 26, 52),
        ("conv", [2, 1] * 11 + [2, 2, 1, 2], 80),
        ("rf", [1, 2, 3] * 7 + [2, 2, 3, 4, 5], 116),
        ("bigger", [1, 2, 5, 9] * 5 + [1, 2, 5, 5, 9, 17], 248),
        ("optimal", [1, 2, 3] * 7 + [1, 3, 1, 3, 8], 116),
    ],
)
def test_policies_on_resnet_101(policy: str | None, rates: list[int], increase: int) -> None:
    """What the last two stages add to the receptive field, in positions of their map: [HDC], Section 4."""
    model = resnet101_at_8().eval()
    x = torch.randn(1, 3, 16, 24)
    if policy is not None:
        model = pr.transform(model, [HybridDilation(policy)], example_inputs=x)
        again = pr.plan(model, [HybridDilation(policy)], example_inputs=x, allow_no_effect=True)
        assert not again.edits
    assert rates_of(model)[1:] == rates
    sites = pr.analyze(model, example_inputs=x).sites
    first, last = sites["0"].receptive_field, sites["26.expand"].receptive_field
    assert [(b - a) // 8 for a, b in zip(first, last)] == [increase] * 2


def test_presets_refuse_what_they_were_not_made_for() -> None:
    for policy, rates in (("conv", (2, 4, 8)), ("rf", (2, 4, 4)), ("bigger", (3, 3, 3))):
        with pytest.raises(NoEffectError, match="no-preset"):
            rewrite(plain(*rates), 9, 9, spec=HybridDilation(policy))


@pytest.mark.parametrize(
    ("rates", "scope", "new"),
    [
        ((1, 1, 2, 2, 2), "group", [1, 1, 1, 2, 3]),
        ((1, 1, 2, 2, 2), "chain", [1, 1, 2, 2, 2]),
        ((2, 2, 2, 4, 4, 4), "group", [1, 2, 3, 1, 3, 8]),
        ((2, 2, 2, 4, 4, 4), "chain", [1, 2, 2, 4, 4, 5]),
        ((1, 8, 8), "chain", [1, 1, 3]),
    ],
)
def test_scopes(rates: tuple[int, ...], scope: str, new: list[int]) -> None:
    plan = pr.plan(plain(*rates), [f"{NAME}{{scope={scope}}}"], example_inputs=image(9, 9).float())
    assert rates_of(pr.apply(plain(*rates), plan)) == new


@pytest.mark.parametrize(("group", "new"), [(1, [1] * 4), (2, [1, 3] * 2), (3, [1, 3, 3, 1]), (4, [1, 2, 2, 3])])
def test_group_is_the_number_of_convolutions(group: int, new: list[int]) -> None:
    """With 3 and 4 the chain behind the convolution of rate 1 has holes by itself: (3, 3); it is not changed again."""
    one = HybridDilation(group=group)
    model = rewrite(plain(2, 2, 2, 2), 9, 9, spec=one)
    assert rates_of(model) == new
    assert not pr.plan(model, [one], example_inputs=image(9, 9).float(), allow_no_effect=True).edits


@pytest.mark.parametrize(
    ("rates", "kernel", "group"),
    [((3, 3, 3), 5, 3), ((2, 3, 2), 3, 3), ((2, 2, 7, 3, 3), 3, 5), ((2, 2, 2, 4, 1), 3, 3), ((2, 2, 2, 2, 2), 3, 4)],
)
def test_a_second_run_changes_nothing(rates: tuple[int, ...], kernel: int, group: int) -> None:
    """These become (1,4,4), (1,3,3), (1,1,5,5,5) and others that begin with rates which leave holes by themselves."""
    one, x = HybridDilation(group=group), torch.randn(1, 3, 40)
    new = pr.transform(plain(*rates, kernel=kernel, rank=1), [one], example_inputs=x)
    again = pr.plan(new, [one], example_inputs=x)
    assert not again.edits
    assert {d.code for d in again.decisions} <= {"already-hole-free", "no-match"}


@pytest.mark.parametrize(("rates", "policy"), [((2,) * 5 + (3,) * 3, "rf"), ((2,) * 5 + (4,) * 3, "conv")])
def test_a_second_run_of_a_preset_changes_nothing(rates: tuple[int, ...], policy: str) -> None:
    """What it makes has runs of equal rates of its own, where stages meet: 1,2,3,2,2 | 2,3,4."""
    new = rewrite(plain(*rates), 9, 9, spec=HybridDilation(policy))
    again = pr.plan(new, [HybridDilation(policy)], example_inputs=torch.randn(1, 3, 9, 9))
    assert not again.edits
    assert {d.code for d in again.decisions} <= {"already-assigned", "no-match"}


# Axes


def test_axes_with_rates_of_their_own_get_rates_of_their_own() -> None:
    """Height has holes and can keep its field, width has none: only height changes."""
    layers = [nn.Conv2d(3, 3, 3, padding=d, dilation=d) for d in ((2, 1), (2, 2), (2, 3))]
    new = rewrite(nn.Sequential(*layers), 9, 9)
    assert [layer.dilation for layer in new] == [(1, 1), (2, 2), (3, 3)]
    assert [layer.padding for layer in new] == [(1, 1), (2, 2), (3, 3)]


def test_two_axes_change_in_different_ways() -> None:
    layers = [nn.Conv2d(3, 3, 3, padding=d, dilation=d) for d in ((2, 4), (2, 4), (2, 4))]
    new = rewrite(nn.Sequential(*layers), 9, 9, verify="full")
    assert [layer.dilation for layer in new] == [(1, 1), (2, 3), (3, 8)]
    assert "2,2,2 -> 1,2,3" in note_of(new)
    assert "4,4,4 -> 1,3,8" in note_of(new)


def test_kernels_that_extend_along_one_axis_are_chains_of_their_own() -> None:
    """As in ERFNet: 3x1 and 1x3 in turn."""
    shapes = [((3, 1), (2, 1)), ((1, 3), (1, 1))] * 3
    layers = [nn.Conv2d(3, 3, kernel, padding="same", dilation=rate) for kernel, rate in shapes]
    new = rewrite(nn.Sequential(*layers), 9, 9)
    assert [layer.dilation for layer in new] == [(1, 1), (1, 1), (2, 1), (1, 1), (3, 1), (1, 1)]


# Real networks


def test_wavenet_is_left_alone() -> None:
    layers = [nn.Sequential(nn.ConstantPad1d((2**i, 0), 0.0), nn.Conv1d(3, 3, 2, dilation=2**i)) for i in range(10)]
    plan = pr.plan(nn.Sequential(*layers), [NAME], example_inputs=torch.randn(1, 3, 40))
    assert {d.code for d in plan.decisions} == {"already-hole-free"}


@pytest.mark.zoo
def test_drn_is_left_alone() -> None:
    """It ends in stages of falling rates, as its authors removed the gridding: [2, 2, .., 4, .., 2, 2, 1, 1]."""
    drn = pytest.importorskip("pytorchcv.models.drn")
    model = drn.drnc26().features[:-1].eval()
    plan = pr.plan(model, [NAME], example_inputs=torch.randn(1, 3, 32, 40))
    found = {d.code for d in plan.decisions if d.before["dilation"] != (1, 1)}
    assert found == {"already-hole-free"}


@pytest.mark.zoo
def test_erfnet_has_a_chain_per_axis() -> None:
    erfnet = pytest.importorskip("pytorchcv.models.erfnet")
    stage = erfnet.erfnet_cityscapes().encoder.stage3.eval()
    x = torch.randn(1, 64, 12, 14)
    plan = pr.plan(stage, [NAME], example_inputs=x)
    assert {d.code for d in plan.decisions if max(d.before["dilation"]) > 1} == {"already-hole-free"}
    new = pr.transform(stage, [HybridDilation("none")], example_inputs=x)
    changed = [d for d in pr.report(new).decisions if d.status == "rewritten"]
    assert {(d.before["kernel_size"], max(d.before["dilation"])) for d in changed} == {
        (kernel, rate) for kernel in ((3, 1), (1, 3)) for rate in (2, 4, 8, 16)
    }
    assert {d.after["dilation"] for d in changed} == {(1, 1)}
    assert sum(note.startswith(NAME) for note in pr.report(new).plans[0].notes) == 2


# No effect


def test_without_a_chain_it_is_an_error() -> None:
    with pytest.raises(NoEffectError, match="hybrid-dilation would change nothing: 2 no-match"):
        rewrite(nn.Sequential(conv(1), conv(1)), 9, 9)


def test_it_must_see_how_convolutions_are_connected() -> None:
    with pytest.raises(PassError, match="give example_inputs"):
        pr.plan(plain(2, 2), [NAME])
