"""Symmetric even kernels: what is rewritten, into what, and what is left alone and why."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from expected import FEW, TIGHT, Row, image
from hypothesis import given
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.checks.naive import naive_symmetric
from padrewrite.errors import NoEffectError, PassError
from padrewrite.fuzzing.counting import Dispatched
from padrewrite.ops.symmetric import symmetric_conv
from padrewrite_passes import SymmetricEven

NAME = "symmetric-even"
ODD = f"{NAME}{{from_odd=True}}"


class Twofold(nn.Module):
    """Twice its input's channels, through two branches that are added."""

    def __init__(self, main: nn.Module, side: nn.Module | None = None, last: Callable[[Tensor], Tensor] = torch.relu):
        super().__init__()
        self.main, self.side, self.last = main, side, last

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, x], 1)
        return self.last(self.main(x) if self.side is None else self.main(x) + self.side(x))


def test_before_and_after() -> None:
    layers = [nn.Conv2d(3, 8, 2, padding="same"), nn.ReLU(), nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(8, 4, 4)]
    model = nn.Sequential(nn.Sequential(*layers), nn.Conv2d(4, 4, 4, 2, 1)).double()
    new = pr.transform(model, [NAME], example_inputs=image(12, 14), verify="full")
    assert repr(new) == (
        "Sequential(\n"
        "  (0): Sequential(\n"
        "    (0): SymmetricConv2d(3, 8, kernel_size=(2, 2), stride=(1, 1), padding=(1, 1), order='balanced',"
        " symmetric_axes=(0, 1))\n"
        "    (1): ReLU()\n"
        "    (2): ZeroPad2d((1, 2, 1, 2))\n"
        "    (3): SymmetricConv2d(8, 4, kernel_size=(4, 4), stride=(1, 1), padding=((1, 0), (1, 0)), order='balanced',"
        " symmetric_axes=(0, 1))\n"
        "  )\n"
        "  (1): Conv2d(4, 4, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))\n"
        ")"
    )
    first, second, third = pr.report(new).decisions
    assert (first.code, first.contract) == ("rewritten", "shape")
    assert first.reason == "mean shift 1/2 px -> 1/6 and -1/6, 3 channels read from 3 sides"
    assert second.reason == "mean shift 1/2 px -> 0, 8 channels read from 4 sides"
    assert (second.before["padding"], second.after["padding"]) == (((1, 2), (1, 2)), ((2, 2), (2, 2)))
    assert third.code == "aligned"
    x = image(12, 14)
    hidden = symmetric_conv(x, layers[0].weight, layers[0].bias).relu()
    hidden = symmetric_conv(hidden, layers[3].weight, layers[3].bias)
    torch.testing.assert_close(new(x), model[1](hidden), **TIGHT)
    assert "k2 s1 p(0,1) d1 -> k2 s1 p1 d1 symmetric" in str(pr.report(new))
    assert "3 channels per group leave a mean shift of 1/6 px" in str(pr.report(new))
    assert "mean shift 1/2 px -> 0" in str(pr.report(new))


REFUSALS = [
    Row("transposed", "refused", NAME, lambda: nn.ConvTranspose2d(3, 4, 2), (5, 7)),
    Row("already-symmetric", "kept", NAME, lambda: pr.nn.SymmetricConv2d(3, 4, 2), (5, 7)),
    Row("other-order", "refused", f"{NAME}{{order=raster}}", lambda: pr.nn.SymmetricConv2d(3, 4, 2), (5, 7)),
    Row("odd-kernel", "kept", NAME, lambda: nn.Conv2d(3, 4, (3, 1), padding=1), (5, 7)),
    Row("patchify", "kept", NAME, lambda: nn.Conv2d(3, 4, 4, stride=4), (8, 8)),
    Row("aligned", "kept", NAME, lambda: nn.Conv2d(3, 4, 4, stride=2, padding=1), (8, 8)),
    Row("strided", "kept", NAME, lambda: nn.Conv2d(3, 4, 4, stride=2, padding=0), (8, 8)),
    Row("whole-pixels", "kept", NAME, lambda: nn.Conv2d(3, 4, 2, dilation=2), (8, 8)),
    Row("causal", "kept", NAME, lambda: nn.Sequential(nn.ZeroPad1d((3, 0)), nn.Conv1d(3, 4, 4)), (8,)),
    Row("one-position", "kept", NAME, lambda: nn.Conv2d(3, 4, 4), (4, 4)),
    Row("unseen-padding", "refused", NAME, lambda: nn.Conv2d(3, 4, 2)),
    Row("depthwise", "refused", NAME, lambda: nn.Conv2d(3, 6, 2, padding="same", groups=3), (5, 7)),
    Row("too-small", "refused", NAME, lambda: nn.Conv2d(3, 4, 4, padding=1, padding_mode="reflect"), (2, 7)),
    Row("few-channels", "kept", ODD, lambda: nn.Conv2d(3, 4, 3, padding=1), (5, 7)),
    Row("odd-channels", "kept", ODD, lambda: nn.Conv2d(3, 4, (1, 3)), (5, 7)),
    Row("unpoolable", "refused", ODD, lambda: Twofold(nn.Conv2d(6, 4, 3, 2)), (9, 7)),
    Row("unlike-branches", "refused", ODD, lambda: Twofold(nn.Conv2d(6, 6, 3, 2, 1), nn.MaxPool2d(3, 2, 1)), (8, 7)),
    Row("unseen-branches", "refused", ODD, lambda: nn.Conv2d(4, 4, 3, 2, 1)),
    Row("unknown-positions", "refused", ODD, lambda: Twofold(nn.Conv2d(6, 4, 3, 2, 1), last=torch.fft.fft2), (8, 7)),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.code)
def test_refusals(row: Row) -> None:
    decision = row.decide()
    assert (decision.status, decision.code) == (row.status, row.code)
    assert decision.contract is None
    assert decision.before == decision.after
    assert decision.reason


class Padded(nn.Module):
    """A functional even convolution behind an explicit pad, its weight a parameter of the net."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 0, 0, 1)), self.weight)


def seq(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


# model, padding around the symmetric form, symmetric axes, shift before and after
CASES: dict[str, tuple[Callable[[], nn.Module], Any, tuple[int, ...], list[str], list[str]]] = {
    "same": (lambda: nn.Conv2d(6, 4, 2, padding="same"), ((1, 1), (1, 1)), (0, 1), ["1/2"] * 2, ["0"] * 2),
    "functional, padded on the left and below": (Padded, ((1, 1), (1, 1)), (0, 1), ["1/2", "-1/2"], ["0"] * 2),
    "shrinking": (lambda: nn.Conv2d(6, 4, 4, padding=1), ((2, 1), (2, 1)), (0, 1), ["1/2"] * 2, ["0"] * 2),
    "unpadded": (lambda: nn.Conv2d(6, 4, 4), ((1, 0), (1, 0)), (0, 1), ["3/2"] * 2, ["1"] * 2),
    "growing": (lambda: nn.Conv2d(6, 4, 2, padding=1), ((1, 2), (1, 2)), (0, 1), ["-1/2"] * 2, ["0"] * 2),
    "2x3": (lambda: nn.Conv2d(6, 4, (2, 3), padding="same"), ((1, 1), (1, 1)), (0,), ["1/2", "0"], ["0"] * 2),
    "dilated, one axis aligned": (
        lambda: nn.Conv2d(6, 4, 2, padding="same", dilation=(3, 2)),
        ((3, 3), (1, 1)),
        (0,),
        ["1/2", "0"],
        ["0", "0"],
    ),
    "one axis strided": (
        lambda: nn.Conv2d(6, 4, (2, 4), stride=(1, 2), padding=(0, 1)),
        ((1, 0), (1, 1)),
        (0,),
        ["1/2", "0"],
        ["0", "0"],
    ),
    "groups": (
        lambda: nn.Conv2d(6, 4, 2, padding="same", groups=2),
        ((1, 1), (1, 1)),
        (0, 1),
        ["1/2"] * 2,
        ["1/6", "-1/6"],
    ),
    "wrapped around": (
        lambda: nn.Conv2d(6, 4, 2, padding=1, padding_mode="circular"),
        ((1, 2), (1, 2)),
        (0, 1),
        ["-1/2"] * 2,
        ["0"] * 2,
    ),
    "1-D": (lambda: nn.Conv1d(6, 4, 4, padding="same"), ((2, 2),), (0,), ["1/2"], ["0"]),
    "3-D": (lambda: nn.Conv3d(6, 4, 2, padding="same"), ((1, 1),) * 3, (0, 1, 2), ["1/2"] * 3, ["0"] * 3),
    "padded before, 2-D": (
        lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(6, 4, 2)),
        ((1, 1), (1, 1)),
        (0, 1),
        ["-1/2"] * 2,
        ["0"] * 2,
    ),
    "causal in time only": (
        lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 3, 0)), nn.Conv2d(6, 4, (4, 2))),
        ((3, 0), (1, 1)),
        (1,),
        ["-3/2", "1/2"],
        ["-3/2", "0"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_sizes_stay_and_the_mean_shift_is_proved(name: str) -> None:
    """The reference is told the padding and axes; the phases are exact fractions of the analysis."""
    make, padding, axes, before, after = CASES[name]
    model = make().double()
    x = image(*(9, 8, 7)[: len(padding)], channels=6)
    new = pr.transform(model, [NAME], example_inputs=x, verify="full")
    (site,) = pr.record(new, example_inputs=x).convs()
    op: Any = site.op
    assert (op.padding, op.symmetric.axes) == (padding, axes)
    for found, wanted in ((model, before), (new, after)):
        phases = pr.analyze(found, example_inputs=x).sites[site.id].phase
        assert [p.offset if p.scale == 1 else p.centred for p in phases] == [Fraction(w) for w in wanted]
    weight, *bias = model.parameters()
    numbers = {"stride": op.stride, "dilation": op.dilation, "groups": op.groups, "modes": op.modes}
    want = naive_symmetric(x, weight, *bias, axes=axes, order="balanced", padding=padding, **numbers)
    torch.testing.assert_close(new(x), want, **TIGHT)
    assert new(x).shape == model(x).shape


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_sizes_are_made_those_of_the_input_on_request(padding: int) -> None:
    model, x = nn.Conv2d(6, 4, 4, padding=padding).double(), image(9, 8, channels=6)
    new = pr.transform(model, [f"{NAME}{{size=same}}"], example_inputs=x, verify="full")
    torch.testing.assert_close(new(x), symmetric_conv(x, model.weight, model.bias), **TIGHT)
    assert new(x).shape[2:] == x.shape[2:]


def test_the_cure_of_the_finding() -> None:
    model, x = nn.Sequential(*(nn.Conv2d(4, 4, 2, padding="same") for _ in range(4))), image(16, 16, channels=4).float()
    (found, *_) = pr.analyze(model, example_inputs=x).of("half-pixel-shift")
    assert found.cure == NAME
    new = pr.transform(model, [found.cure], example_inputs=x)
    assert not pr.analyze(new, example_inputs=x).of("half-pixel-shift")
    assert not pr.analyze(new, example_inputs=x).of("shifted-output")
    assert [p.offset for p in pr.analyze(model, example_inputs=x).sites["3"].phase] == [2, 2]
    assert [p.offset for p in pr.analyze(new, example_inputs=x).sites["3"].phase] == [0, 0]


def test_idempotent_and_one_convolution_each_and_reverted() -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 6, 2, padding="same"), nn.Conv2d(6, 4, 4, padding=1)), torch.randn(1, 4, 9, 8)
    new = pr.transform(model, [NAME], example_inputs=x)
    with Dispatched() as counter:
        once = new(x)
    assert counter.convolutions == 2
    again = pr.transform(new, [NAME], example_inputs=x)
    assert [d.code for d in pr.report(again).plans[-1].decisions] == ["already-symmetric"] * 2
    assert torch.equal(again(x), once)
    new.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(pr.revert(new)(x), model(x))
    assert type(new[0]) is nn.Conv2d


@pytest.mark.parametrize("pads", [(0, 1, 0, 1), (1, 0, 0, 1), (1, 1, 1, 1), (3, 1, 0, 0), (0, 0, 2, 5)])
@pytest.mark.parametrize("kernel", [2, 4])
def test_zero_pads_before_it_stay_and_layers_may_be_called_one_by_one(pads: tuple[int, ...], kernel: int) -> None:
    """Padding all channels and then cropping some of what was padded is padding each block on its own sides."""
    model, x = nn.Sequential(nn.ZeroPad2d(pads), nn.Conv2d(5, 4, kernel)).double(), image(9, 8, channels=5)
    new = pr.transform(model, [NAME], example_inputs=x, verify="full")
    assert type(new) is nn.Sequential
    assert isinstance(new[1], pr.nn.SymmetricConv2d)
    (site,) = pr.record(new, example_inputs=x).convs()
    numbers: Any = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "modes": ("zeros", "zeros")}
    numbers |= {"padding": site.op.padding, "axes": (0, 1), "order": "balanced"}
    torch.testing.assert_close(new[1](new[0](x)), naive_symmetric(x, *model[1].parameters(), **numbers), **TIGHT)
    assert new(x).shape == model(x).shape


def test_pads_of_other_kinds_are_read_past() -> None:
    model, x = nn.Sequential(nn.ReflectionPad2d((0, 1, 0, 1)), nn.Conv2d(5, 4, 2)).double(), image(9, 8, channels=5)
    new = pr.transform(model, [NAME], example_inputs=x, verify="full")
    want = symmetric_conv(x, *model[1].parameters(), modes=("reflect", "reflect"))
    torch.testing.assert_close(new(x), want, **TIGHT)


@pytest.mark.parametrize("passes", [[NAME, "partial-padding"], ["partial-padding", NAME]])
def test_with_partial_padding_in_either_order(passes: list[str]) -> None:
    model, x = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(5, 4, 2)).double(), image(9, 8, channels=5)
    new = pr.transform(model, passes, example_inputs=x, verify="full")
    want = symmetric_conv(x, model[1].weight, model[1].bias, scale="mean")
    torch.testing.assert_close(new(x), want, **TIGHT)
    later = pr.transform(pr.transform(model, passes[:1], example_inputs=x), passes[1:], example_inputs=x, verify="full")
    torch.testing.assert_close(later(x), want, **TIGHT)


def test_with_reflection() -> None:
    model, x = nn.Conv2d(4, 4, 2, padding="same").double(), image(9, 8, channels=4)
    new = pr.transform(model, [NAME, "padding-mode{mode=reflect}"], example_inputs=x, verify="full")
    want = symmetric_conv(x, model.weight, model.bias, modes=("reflect", "reflect"))
    torch.testing.assert_close(new(x), want, **TIGHT)


def test_strides_and_rates_after_it() -> None:
    """A symmetric layer behind a lost stride has its shifts dilated too: the old values stand on a grid."""
    layers = [nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 2, padding="same"), nn.Conv2d(4, 4, 3, padding=1)]
    model, x = nn.Sequential(*layers).double(), image(15, 18, channels=4)
    old = pr.transform(model, [NAME], example_inputs=x)
    new = pr.transform(old, ["output-stride{stride=1}"], example_inputs=x, verify="full")
    torch.testing.assert_close(new(x)[..., ::2, ::2], old(x), **TIGHT)
    together = pr.transform(model, [NAME, "output-stride{stride=1}"], example_inputs=x, verify="full")
    torch.testing.assert_close(together(x), new(x), **TIGHT)


def test_hybrid_dilation_after_it() -> None:
    layers = [nn.Conv2d(4, 4, 2, dilation=3, padding="same") for _ in range(3)]
    model, x = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), *layers).double(), image(24, 24, channels=4)
    new = pr.transform(model, [NAME, "hybrid-dilation"], example_inputs=x, verify="full")
    assert new(x).shape == x.shape
    changed = [d for d in pr.report(new).decisions if d.pass_name == "hybrid-dilation" and d.status == "rewritten"]
    assert changed
    assert all(d.after["padding"] == tuple((d.after["dilation"][a],) * 2 for a in (0, 1)) for d in changed)


@pytest.mark.compile
def test_the_backend_rewrites_alike() -> None:
    layers = [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 5, 2), nn.Conv2d(5, 4, (4, 3), padding=1)]
    model, x = nn.Sequential(*layers), torch.randn(1, 4, 9, 8)
    new = pr.transform(model, [NAME, "partial-padding"], example_inputs=x)
    compiled = pr.compile(model, passes=[NAME, "partial-padding"], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), new(x))
    again = pr.compile(new, passes=[NAME], backend="eager", allow_no_effect=True)
    torch.testing.assert_close(again(x), new(x))
    assert {d.code for d in pr.report(again).decisions} == {"already-symmetric"}


def test_a_plan_is_saved_and_replayed() -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 5, 2, padding="same")), torch.randn(1, 4, 9, 8)
    plan = pr.Plan.from_json(pr.plan(model, [f"{NAME}{{order=raster}}"], example_inputs=x).to_json())
    new = pr.apply(model, plan)
    torch.testing.assert_close(new(x), symmetric_conv(x, model[0].weight, model[0].bias, order="raster"))


def test_without_inputs_by_what_the_layer_pads() -> None:
    model = nn.Sequential(nn.Conv2d(4, 5, 2, padding="same"), nn.Conv2d(5, 5, 2))
    new = pr.transform(model, [NAME])
    assert [d.code for d in pr.report(new).decisions] == ["rewritten", "unseen-padding"]
    assert isinstance(new[0], pr.nn.SymmetricConv2d)


def test_options_and_effect() -> None:
    with pytest.raises(PassError, match="order='spiral' is not one of balanced, author, raster"):
        pr.plan(nn.Conv2d(3, 4, 2), [f"{NAME}{{order=spiral}}"], example_inputs=image(5, 7).float())
    with pytest.raises(ValueError, match="size='grow' is not one of keep, same"):
        SymmetricEven(size="grow")
    with pytest.raises(NoEffectError, match="odd-kernel"):
        pr.transform(nn.Conv2d(3, 4, 3), [NAME], example_inputs=image(5, 7).float())


@FEW
@given(nets())
def test_networks_keep_their_sizes_and_their_half_pixels_go(spec: NetSpec) -> None:
    model, x = spec.build(), spec.draw_input()
    new = pr.transform(model, [NAME], example_inputs=x, verify="full", allow_no_effect=True)
    assert pr.report(new).verification is not None
    shapes = [[out.shape for out in net(x)] for net in (model, new)]
    assert shapes[0] == shapes[1]
    left = {f.site for f in pr.analyze(new, example_inputs=x).of("half-pixel-shift")}
    undone = {d.site for d in pr.report(new).decisions if d.status == "refused" or d.code == "one-position"}
    assert left <= undone
