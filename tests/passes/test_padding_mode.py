"""Padding mode: what it rewrites, into what, and what it leaves alone and why."""

from __future__ import annotations

import pytest
import torch
from expected import (
    FEW,
    SINGLES,
    TIGHT,
    Row,
    Twice,
    image,
    naive_outputs,
    total_padding,
    with_shared_modules,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import NetSpec, nets
from torch import nn

import padrewrite as pr
from padrewrite.checks.naive import naive_conv
from padrewrite.errors import NoEffectError, PassError
from padrewrite_passes import PaddingMode

REFLECT = "padding-mode{mode=reflect}"
EXPLICIT = ("ZeroPad2d", "ZeroPad2d and padding", "F.pad and F.conv2d", "TensorFlow's SAME")
LONGITUDE = "padding-mode{mode=circular,axes=[-1]}"


def test_before_and_after_on_all_axes() -> None:
    """The layer stays torch's own class."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).double()
    new = pr.transform(model, [REFLECT], example_inputs=image(9, 13), verify="full")
    assert type(new[0]) is nn.Conv2d
    assert repr(model[0]) == "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))"
    assert repr(new[0]) == ("Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), padding_mode=reflect)")
    assert [(d.site, d.code, d.contract, d.after["padding_mode"]) for d in pr.report(new).decisions] == [
        ("0", "rewritten", "interior(1..1, 1..1)", "reflect")
    ]


def test_before_and_after_on_one_axis() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).double()
    new = pr.transform(model, [LONGITUDE], example_inputs=image(9, 13), verify="full")
    assert repr(new[0]) == (
        "AxisPaddedConv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), axis_modes=('zeros', 'circular'))"
    )
    assert isinstance(new[0], nn.Conv2d)
    (decision,) = pr.report(new).decisions
    assert (decision.before["padding_mode"], decision.after["padding_mode"]) == ("zeros", ("zeros", "circular"))


REFUSALS = [
    Row("transposed", "refused", REFLECT, lambda: nn.ConvTranspose2d(3, 4, 3, padding=1), (5, 7)),
    Row("no-such-axis", "refused", "padding-mode{axes=[-2]}", lambda: nn.Conv1d(3, 4, 3, padding=1), (7,)),
    Row("unpadded", "kept", LONGITUDE, lambda: nn.Conv2d(3, 4, 3, padding=(1, 0)), (5, 7)),
    Row(
        "already-in-mode",
        "kept",
        REFLECT,
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        (5, 7),
    ),
    Row("partial", "refused", REFLECT, lambda: pr.nn.PartialConv2d(3, 4, 3, padding=1), (5, 7)),
    # torch refuses to run a negative padding of zeros: only the module tree can show it.
    Row("cropping", "refused", REFLECT, lambda: nn.Conv2d(3, 4, 3, padding=(1, -1))),
    Row("too-small", "refused", REFLECT, lambda: nn.Conv2d(3, 4, 5, padding=2), (9, 2)),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.code)
def test_refusals(row: Row) -> None:
    decision = row.decide()
    assert (decision.status, decision.code) == (row.status, row.code)
    assert decision.contract is None
    assert decision.before == decision.after
    assert decision.reason


@pytest.mark.parametrize(
    ("mode", "size", "fits"),
    [("reflect", 3, True), ("reflect", 2, False), ("circular", 2, True), ("circular", 1, False)],
)
def test_the_widest_padding_that_a_mode_can_fill(mode: str, size: int, fits: bool) -> None:
    model = nn.Conv2d(3, 4, 5, padding=2)
    x = torch.ones(1, 3, 9, size)
    plan = pr.plan(model, [PaddingMode(mode)], example_inputs=x, allow_no_effect=True)
    assert plan.decisions[0].code == ("rewritten" if fits else "too-small")
    if fits:
        pr.apply(model, plan)(x)


@pytest.mark.parametrize("name", SINGLES)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_convolution_is_its_reference_however_it_is_padded(name: str, mode: str) -> None:
    single = SINGLES[name]
    model = single.model().double()
    new = pr.transform(model, [PaddingMode(mode, (-1,))], example_inputs=image(9, 12), verify="full")
    for x in (image(9, 12), image(10, 7)):
        torch.testing.assert_close(new(x), single.reference(model, x, ("zeros", mode), None), **TIGHT)


@FEW
@given(nets(), st.sampled_from(["zeros", "reflect", "replicate", "circular"]), st.sampled_from([None, (-1,), (-2,)]))
def test_a_network_is_its_reference(spec: NetSpec, mode: str, axes: tuple[int, ...] | None) -> None:
    model, x = spec.build(), spec.draw_input()
    new = pr.transform(model, [PaddingMode(mode, axes)], example_inputs=x, verify="full", allow_no_effect=True)
    codes = [d.code for d in pr.report(new).decisions]
    chosen = range(spec.rank) if axes is None else [a + spec.rank for a in axes]
    alone = decide_alone(spec, x, mode, chosen)
    assert codes == with_shared_modules(spec, alone)

    def modes(call: int, old: str) -> tuple[str, ...]:
        return tuple(mode if codes[call] == "rewritten" and a in chosen else old for a in range(spec.rank))

    want = naive_outputs(spec, new, x, lambda call, layer: {"modes": modes(call, layer.mode)})
    torch.testing.assert_close(new(x), want, **TIGHT)


def decide_alone(spec: NetSpec, x: torch.Tensor, mode: str, chosen: range | list[int]) -> list[str]:
    """What each call would get if nothing were shared."""
    if min(chosen) < 0:
        return ["no-such-axis"] * len(spec.calls)
    room = {"reflect": -1, "circular": 0}.get(mode, 10**6)
    sizes: list[torch.Size] = []
    model = spec.build()
    model.run(x, lambda step, value: sizes.append(value.shape[2:]) or model.convolve(step, value))
    codes: list[str] = []
    for step, size in zip(spec.calls, sizes, strict=True):
        padding = total_padding(spec, step)
        axes = [a for a in chosen if any(padding[a])]
        fits = all(max(padding[a]) <= size[a] + room for a in axes)
        done = "already-in-mode" if spec.layers[step.layer].mode == mode else "rewritten" if fits else "too-small"
        codes.append(done if axes else "unpadded")
    return codes


@pytest.mark.parametrize(("axis", "dim"), [(-1, -1), (-2, -2)])
def test_circular_wraps_along_the_chosen_axis_alone(axis: int, dim: int) -> None:
    """Height and width differ, so that axes taken in the wrong order cannot go unseen."""
    x, other = image(6, 11), -3 - dim
    model = nn.Conv2d(3, 4, (3, 5), padding=(1, 2)).double()
    new = pr.transform(model, [PaddingMode("circular", (axis,))], example_inputs=x)
    torch.testing.assert_close(new(x.roll(2, dim)), new(x).roll(2, dim), **TIGHT)
    assert not torch.allclose(new(x.roll(2, other)), new(x).roll(2, other))


def test_there_and_back_again() -> None:
    x = image(9, 12)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding="same", dilation=2)).double()
    there = pr.transform(model, [REFLECT], example_inputs=x)
    assert not torch.equal(there(x), model(x))
    back = pr.transform(there, ["padding-mode{mode=zeros}"], example_inputs=x, verify="full")
    assert torch.equal(back(x), model(x))
    assert [type(layer) for layer in back] == [nn.Conv2d, nn.Conv2d]
    assert repr(back) == repr(model)


@pytest.mark.parametrize("passes", [[REFLECT], [LONGITUDE]])
def test_a_second_run_changes_nothing(passes: list[str]) -> None:
    x = image(9, 12)
    model = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 3, 3), Twice()).double()
    once = pr.transform(model, passes, example_inputs=x)
    plan = pr.plan(once, passes, example_inputs=x)
    assert {d.code for d in plan.decisions} == {"already-in-mode"}
    assert not plan.edits
    assert torch.equal(pr.transform(once, passes, example_inputs=x)(x), once(x))


def test_nothing_to_do_is_an_error() -> None:
    model, x = nn.Conv2d(3, 4, 3, padding=(1, 0)), image(5, 7).float()
    with pytest.raises(NoEffectError, match="padding-mode would change nothing: 1 unpadded"):
        pr.transform(model, [LONGITUDE], example_inputs=x)
    new = pr.transform(model, [LONGITUDE], example_inputs=x, allow_no_effect=True)
    assert torch.equal(new(x), model(x))


@pytest.mark.parametrize("name", [pytest.param(n) if n in EXPLICIT else n for n in SINGLES])
def test_circular_longitude_and_partial_latitude_in_one_call(name: str) -> None:
    single, x = SINGLES[name], image(9, 12)
    model = single.model().double()
    new = pr.transform(model, [LONGITUDE, "partial-padding"], example_inputs=x, verify="full")
    decisions = pr.report(new).decisions
    assert [d.after["padding_mode"] for d in decisions] == [("zeros", "circular"), ("partial", "circular")]
    torch.testing.assert_close(new(x), single.reference(model, x, ("zeros", "circular"), "mean"), **TIGHT)


def test_calls_of_a_shared_layer_are_rewritten_together() -> None:
    x = image(9, 12)
    model = Twice().double()
    new = pr.transform(model, [LONGITUDE], example_inputs=x, verify="full")
    assert [d.status for d in pr.report(new).decisions] == ["rewritten", "rewritten"]
    torch.testing.assert_close(new(x.roll(3, -1)), new(x).roll(3, -1), **TIGHT)


def test_a_shared_layer_whose_second_input_is_too_small_is_refused() -> None:
    model = Twice(between=lambda t: t[..., :1])
    plan = pr.plan(model, [LONGITUDE, REFLECT], example_inputs=image(9, 12).float(), allow_no_effect=True)
    assert [d.code for d in plan.decisions[:2]] == ["rewritten", "rewritten"]
    assert [d.code for d in plan.decisions[2:]] == ["shared-module", "too-small"]


def test_a_reflecting_pad_in_front_is_taken_along() -> None:
    x = image(9, 12)
    model = nn.Sequential(nn.ReflectionPad2d((1, 1, 0, 0)), nn.Conv2d(3, 4, 3, padding=(1, 0))).double()
    new = pr.transform(model, ["padding-mode{mode=replicate}"], example_inputs=x, verify="full")
    (decision,) = pr.report(new).decisions
    assert decision.before["padding_mode"] == ("zeros", "reflect")
    assert decision.after["padding_mode"] == "replicate"
    layer = model[1]
    want = naive_conv(x, layer.weight, layer.bias, padding=((1, 1), (1, 1)), modes=("replicate",) * 2)
    torch.testing.assert_close(new(x), want, **TIGHT)


def changed_since(mode: str) -> nn.Sequential:
    """A layer whose padding and dilation were set after torch derived `_reversed_padding_repeated_twice`."""
    layer = nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode, dtype=torch.float64)
    layer.padding = layer.dilation = (2, 2)
    return nn.Sequential(layer)


@pytest.mark.parametrize("spec", [REFLECT, LONGITUDE, "padding-mode{mode=circular}"])
@pytest.mark.parametrize("with_inputs", [True, False])
def test_a_layer_changed_since_it_was_built_keeps_its_size(spec: str, with_inputs: bool) -> None:
    model, x = changed_since("zeros"), image(9, 12)
    new = pr.transform(model, [spec], example_inputs=x if with_inputs else None)
    (layer,) = model
    mode = "reflect" if spec == REFLECT else "circular"
    modes = ("zeros", mode) if spec == LONGITUDE else (mode, mode)
    numbers = {"padding": ((2, 2), (2, 2)), "dilation": (2, 2), "modes": modes}
    torch.testing.assert_close(new(x), naive_conv(x, layer.weight, layer.bias, **numbers), **TIGHT)


@pytest.mark.parametrize(
    ("spec", "with_inputs"),
    [
        ("padding-mode{mode=circular}", True),
        pytest.param("padding-mode{mode=zeros}", True),
        pytest.param(LONGITUDE, True),
        pytest.param("padding-mode{mode=circular}", False),
        pytest.param("padding-mode{mode=zeros}", False),
        pytest.param(LONGITUDE, False),
    ],
)
def test_a_layer_that_pads_less_than_it_says_keeps_its_size(spec: str, with_inputs: bool) -> None:
    """Torch pads such a layer by what it derived when the layer was built, 1, whatever `padding` is now."""
    model, x = changed_since("reflect"), image(9, 12)
    assert model(x).shape[-2:] == (7, 10)
    new = pr.transform(model, [spec], example_inputs=x if with_inputs else None)
    (layer,) = model
    mode = "zeros" if "zeros" in spec else "circular"
    modes = ("reflect", mode) if spec == LONGITUDE else (mode, mode)
    numbers = {"padding": ((1, 1), (1, 1)), "dilation": (2, 2), "modes": modes}
    torch.testing.assert_close(new(x), naive_conv(x, layer.weight, layer.bias, **numbers), **TIGHT)


def test_zeros_and_then_partial_in_one_call() -> None:
    x = image(9, 12)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")).double()
    new = pr.transform(model, ["padding-mode{mode=zeros}", "partial-padding"], example_inputs=x, verify="full")
    layer = model[0]
    want = naive_conv(x, layer.weight, layer.bias, padding=((1, 1), (1, 1)), partial="mean")
    torch.testing.assert_close(new(x), want, **TIGHT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("mode=constant", "is not one of zeros, reflect, replicate, circular"),
        ("axes=[0]", "count spatial axes from the end"),
        ("axes=[]", "count spatial axes from the end"),
        ("modes=reflect", "its options are mode, axes"),
    ],
)
def test_a_wrong_option_is_an_error(options: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        pr.plan(nn.Conv2d(3, 4, 3, padding=1), [f"padding-mode{{{options}}}"])
