"""Separable kernels: what becomes of a large kernel, how near it stays, and what is left alone and why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from expected import FEW, TIGHT, Row, Twice, image
from hypothesis import given
from hypothesis import strategies as st
from strategies import ConvSpec, NetSpec, conv_specs, nets
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.errors import NoEffectError, PassError
from padrewrite_passes import SeparableKernel

NAME = "separable-kernel"


def wide(kernel: Any = 7, **options: Any) -> nn.Module:
    """One dense convolution worth separating."""
    padding = options.pop("padding", "same" if options.get("stride", 1) == 1 else 3)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, kernel, padding=padding, **options)).double()


def rewrite(model: nn.Module, x: Tensor, spec: str | pr.Pass = NAME, verify: str = "full") -> nn.Module:
    return pr.transform(model, [spec], example_inputs=x, verify=verify)


def decision(model: nn.Module, x: Tensor, spec: str | pr.Pass = NAME) -> pr.Decision:
    return pr.plan(model, [spec], example_inputs=x, allow_no_effect=True).decisions[-1]


def low_rank(conv: nn.Conv2d, rank: int, branch: str, seed: int = 0) -> None:
    """Gives a convolution a kernel that one branch with ``rank`` middle channels per group computes exactly."""
    generator = torch.Generator().manual_seed(seed)
    outer, inner = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    ky, kx = conv.kernel_size
    shapes = {"left": ((outer, rank, kx), (rank, inner, ky)), "right": ((outer, rank, ky), (rank, inner, kx))}[branch]
    kernels: list[Tensor] = []
    for _ in range(conv.groups):
        a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
        kernels.append(torch.einsum("omx,mcy->ocyx" if branch == "left" else "omy,mcx->ocyx", a, b))
    with torch.no_grad():
        conv.weight.copy_(torch.cat(kernels))


def test_before_and_after() -> None:
    model, x = wide(), image(9, 13)
    new = rewrite(model, x)
    assert repr(model[1]) == "Conv2d(8, 8, kernel_size=(7, 7), stride=(1, 1), padding=same)"
    assert type(new[1]) is pr.nn.GlobalConv2d
    assert [str(layer) for layer in new[1].left] == [
        "Conv2d(8, 8, kernel_size=(7, 1), stride=(1, 1), padding=(3, 0), bias=False)",
        "Conv2d(8, 8, kernel_size=(1, 7), stride=(1, 1), padding=(0, 3))",
    ]
    assert [str(layer) for layer in new[1].right] == [
        "Conv2d(8, 8, kernel_size=(1, 7), stride=(1, 1), padding=(0, 3), bias=False)",
        "Conv2d(8, 8, kernel_size=(7, 1), stride=(1, 1), padding=(3, 0), bias=False)",
    ]
    one, other = pr.report(new).decisions
    assert (one.site, one.code) == ("0", "small-kernel")
    assert (other.site, other.status) == ("1", "rewritten")
    eps = float(str(other.contract).removeprefix("bounded(").removesuffix(")"))
    assert 0.1 < eps < 0.9
    assert "relative error" in other.reason
    assert "7x1 1x7 + 1x7 7x1, c8" in str(pr.report(new))


REFUSALS = [
    Row("transposed", "refused", NAME, lambda: nn.ConvTranspose2d(3, 4, 7, padding=3), (9, 9)),
    Row("one-dimensional", "kept", NAME, lambda: nn.Conv1d(3, 4, 7, padding=3), (9,)),
    Row("three-dimensional", "refused", NAME, lambda: nn.Conv3d(3, 4, 5, padding=2), (5, 6, 7)),
    Row("small-kernel", "kept", NAME, lambda: nn.Conv2d(3, 4, 3, padding=1), (5, 7)),
    Row("already-separable", "kept", NAME, lambda: nn.Conv2d(3, 4, (7, 1), padding=(3, 0)), (9, 7)),
    Row("symmetric", "refused", NAME, lambda: nn.Sequential(pr.nn.SymmetricConv2d(3, 4, 6)), (9, 9)),
    Row("no-size", "refused", f"{NAME}{{kernel=global}}", lambda: nn.Sequential(nn.Conv2d(3, 4, 7, padding=3))),
    Row("smaller-kernel", "refused", f"{NAME}{{kernel=7}}", lambda: nn.Conv2d(3, 4, 9, padding=4), (9, 9)),
    Row("off-centre", "refused", f"{NAME}{{kernel=8}}", lambda: nn.Conv2d(3, 4, 7, padding=3), (9, 9)),
    Row(
        "enlarged-partial",
        "refused",
        f"{NAME}{{kernel=7}}",
        lambda: nn.Sequential(pr.nn.PartialConv2d(3, 4, 5, padding=2)),
        (9, 9),
    ),
    Row(
        "too-small",
        "refused",
        f"{NAME}{{kernel=21}}",
        lambda: nn.Conv2d(3, 4, 7, padding=3, padding_mode="reflect"),
        (9, 9),
    ),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.code)
def test_refusals(row: Row) -> None:
    found = row.decide()
    assert (found.status, found.code) == (row.status, row.code)
    assert found.contract is None
    assert found.before == found.after
    assert found.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("init=guess", "init='guess' is not one of als, svd, random"),
        ("branches=3", "branches=3 is neither 1 nor 2"),
        ("kernel=local", "kernel='local' is neither a size nor global"),
        ("mid=some", "mid='some' is not a number of channels"),
        ("mid=1.5", "mid=1.5 is not a number of channels, a fraction"),
        ("kernel=true", "kernel=True is neither a size nor global"),
        ("min_kernel=a", "min_kernel='a' is not a size"),
        ("max_error=x", "max_error='x' is not a relative error"),
        ("max_error=-1", "max_error=-1 is not a relative error"),
        ("mid=0", "mid=0 is not a number of channels"),
        ("mid=120%", "mid='120%' is not between 0% and 100%"),
        ("mid=90%,init=random", "mid='90%' is not between"),
    ],
)
def test_a_wrong_option_is_an_error(options: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        rewrite(wide(), image(9, 9), f"{NAME}{{{options}}}")


SPECS = {
    "stride and dilation": {"kernel": (5, 7), "stride": (2, 1), "dilation": (1, 2), "padding": (2, 3)},
    "even": {"kernel": (6, 8), "padding": (2, 4)},
    "same, even": {"kernel": (6, 8), "padding": "same"},
    "groups": {"kernel": 7, "groups": 2},
    "reflect": {"kernel": 5, "padding": (2, 1), "padding_mode": "reflect"},
    "circular": {"kernel": (5, 9), "padding": (2, 4), "padding_mode": "circular"},
    "no bias": {"kernel": 7, "bias": False},
}


@pytest.mark.parametrize("branch", ["left", "right"])
@pytest.mark.parametrize("name", SPECS)
def test_kernels_of_low_rank_are_recovered(name: str, branch: str) -> None:
    """Borders included: nothing lies between the two convolutions. With what tensorly once lost: the dilation."""
    model, x = wide(**dict(SPECS[name])), image(17, 23)
    low_rank(model[1], 2 // model[1].groups, branch)
    new = rewrite(model, x, SeparableKernel(mid=2))
    assert pr.report(new).decisions[-1].contract == "bounded(1e-10)"
    torch.testing.assert_close(new(x), model(x), **TIGHT)
    y = image(15, 18)
    torch.testing.assert_close(new(y), model(y), **TIGHT)


@FEW
@given(conv_specs(ranks=(2,), dtypes=(torch.float64,)), st.integers(1, 2))
def test_any_window_keeps_its_function_where_the_rank_allows(spec: ConvSpec, branches: int) -> None:
    """A kernel of rank one per group: whatever its window, nothing is lost but where it would cost more."""
    conv = nn.Conv2d(
        *(spec.in_channels, spec.out_channels, spec.kernel, spec.stride),
        dilation=spec.dilation,
        groups=spec.groups,
        bias=spec.bias,
    )
    flat = [v for pair in reversed(spec.padding) for v in pair]
    model = nn.Sequential(nn.ZeroPad2d(flat), conv).double()
    x, _, _ = spec.tensors()
    low_rank(conv, 1, "left", spec.seed)
    one = SeparableKernel(mid=spec.groups, min_kernel=2, branches=branches)
    found = decision(model, x, one)
    thin, small = min(spec.kernel) == 1, max(spec.kernel) < 2
    assert found.code in ({"small-kernel"} if small else {"already-separable"} if thin else {"rewritten", "costs-more"})
    if found.code == "rewritten":
        new = rewrite(model, x, one)
        torch.testing.assert_close(new(x), model(x), **TIGHT)


@FEW
@given(nets(ranks=(1, 2, 3)), st.sampled_from([1, 2]))
def test_a_network_stays_within_its_bounds(spec: NetSpec, branches: int) -> None:
    model, x = spec.build(), spec.draw_input()
    one = SeparableKernel(mid=1, min_kernel=2, branches=branches)
    new = pr.transform(model, [one], example_inputs=x, verify="full", allow_no_effect=True)
    decisions = pr.report(new).decisions
    assert len(decisions) == len(spec.calls)
    assert pr.report(new).verification.ok
    new.load_state_dict(model.state_dict(), strict=True)
    again = pr.plan(new, [one], example_inputs=x, allow_no_effect=True)
    assert not again.edits
    torch.testing.assert_close(pr.revert(new)(x), model(x), rtol=0, atol=0)


def test_two_branches_lose_no_more_than_one() -> None:
    model, x = wide(9), image(9, 9)
    errors = {n: float(str(decision(model, x, SeparableKernel(branches=n, mid=4)).contract)[8:-1]) for n in (1, 2)}
    assert errors[2] < errors[1]


def test_a_loss_above_the_limit_is_refused() -> None:
    model, x = wide(), image(9, 9)
    found = decision(model, x, SeparableKernel(max_error=0.01))
    assert (found.status, found.code) == ("refused", "inexact")
    assert "max_error is 0.01" in found.reason
    with pytest.raises(NoEffectError, match="inexact"):
        rewrite(model, x, f"{NAME}{{max_error=0.01}}")


@pytest.mark.parametrize(("mid", "channels"), [(None, 8), (3, 3), (0.5, 4), (0.3, 3), (1000, 56)])
def test_middle_channels(mid: Any, channels: int) -> None:
    """At 7 x 7 with 8 channels 56 compute every kernel exactly, which costs more."""
    found = decision(wide(15) if mid != 1000 else wide(), image(15, 15), SeparableKernel(mid=mid, branches=1))
    if mid == 1000:
        assert found.code == "costs-more"
        return
    assert [branch[0]["out_channels"] for branch in found.after["branches"]] == [channels]


@pytest.mark.parametrize("branches", [1, 2])
def test_middle_channels_by_what_they_keep(branches: int) -> None:
    """The fewest: with one less, more of the kernel's square sum is lost."""
    model, x = wide(9), image(9, 9)
    found = decision(model, x, SeparableKernel(mid="70%", branches=branches))
    mid = found.after["branches"][0][0]["out_channels"]
    assert mid > 1
    loss = {m: reported(decision(model, x, SeparableKernel(mid=m, branches=branches))) for m in (mid - 1, mid)}
    assert loss[mid] ** 2 <= 0.3 + 1e-2
    assert loss[mid - 1] ** 2 > 0.3 - 1e-2


def reported(found: pr.Decision) -> float:
    """The relative error of the weight, as the reason tells it."""
    return float(found.reason.split("relative error ")[1].split(" of the weight")[0])


def test_random_weights_are_a_new_start() -> None:
    torch.manual_seed(0)
    new = rewrite(wide(), image(9, 9), f"{NAME}{{init=random}}")
    assert pr.report(new).decisions[-1].contract == "shape"
    assert "1 layer begins anew, with random weights: train the network" in str(pr.report(new))
    assert "begins anew" not in str(pr.report(rewrite(wide(), image(9, 9))))
    assert all(p.requires_grad and p.std() > 0 for p in new[1].parameters())


@pytest.mark.parametrize(("size", "wanted"), [((16, 16), (15, 15)), ((15, 12), (15, 11)), ((5, 5), (5, 5))])
def test_a_global_kernel_reaches_over_the_map(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """The old kernel lies in its middle, so a kernel that is separable computes the same as before."""
    model, x = wide(5), image(*size)
    low_rank(model[1], 1, "left")
    new = rewrite(model, x, SeparableKernel(kernel="global", mid=1))
    assert new[1].kernel_size == wanted
    torch.testing.assert_close(new(x), model(x), **TIGHT)


def test_a_shared_layer_is_replaced_at_every_call() -> None:
    model = Twice()
    model.conv = nn.Conv2d(3, 3, 9, padding=4)
    model, x = model.double(), image(9, 9)
    low_rank(model.conv, 1, "right")
    new = rewrite(model, x, SeparableKernel(mid=1))
    assert [d.site for d in pr.report(new).decisions] == ["conv", "conv@1"]
    torch.testing.assert_close(new(x), model(x), **TIGHT)


def test_partial_padding_before_and_after_are_one_thing() -> None:
    """1-D partial after 1-D partial is 2-D partial, whatever the rank: the ratio is a product over the axes."""
    model, x = wide(), image(9, 13)
    low_rank(model[1], 2, "left")
    before = pr.transform(model, ["partial-padding", SeparableKernel(mid=2)], example_inputs=x, verify="full")
    after = pr.transform(model, [SeparableKernel(mid=2), "partial-padding"], example_inputs=x, verify="full")
    partial = pr.transform(model, ["partial-padding"], example_inputs=x)
    for new in (before, after):
        torch.testing.assert_close(new(x), partial(x), **TIGHT)
        assert not torch.allclose(new(x), model(x))


def test_a_partial_layer_is_not_enlarged_with_its_weights() -> None:
    """Its scale would count the zeros around the old kernel as taps: the output at the border would be another."""
    model, x = nn.Sequential(nn.Conv2d(64, 4, 5, padding=2)).double(), image(9, 13, channels=64)
    one = SeparableKernel(kernel=7, mid=20, branches=1)
    partial = pr.transform(model, ["partial-padding"], example_inputs=x)
    together = pr.plan(model, ["partial-padding", one], example_inputs=x, allow_no_effect=True)
    for found in (decision(partial, x, one), together.decisions[-1]):
        assert (found.status, found.code) == ("refused", "enlarged-partial")
    assert decision(partial, x, SeparableKernel(mid=4)).status == "rewritten"
    assert decision(partial, x, SeparableKernel(kernel=7, mid=4, init="random")).contract == "shape"


def test_without_inputs_it_reads_the_module_tree() -> None:
    model, x = wide(), image(9, 9)
    low_rank(model[1], 1, "left")
    new = pr.transform(model, [SeparableKernel(mid=1)])
    torch.testing.assert_close(new(x), model(x), **TIGHT)


def test_a_second_run_changes_nothing() -> None:
    x = image(9, 9)
    new = rewrite(wide(), x)
    again = pr.plan(new, [NAME], example_inputs=x)
    assert not again.edits
    assert [d.code for d in again.decisions] == ["small-kernel", *["already-separable"] * 4]


def test_without_a_large_kernel_it_is_an_error() -> None:
    with pytest.raises(NoEffectError, match="separable-kernel would change nothing: 1 small-kernel"):
        rewrite(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).double(), image(9, 9))
