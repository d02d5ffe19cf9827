"""Partial padding: what it rewrites, into what, and what it leaves alone and why."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from expected import (
    FEW,
    SINGLES,
    TIGHT,
    Row,
    Single,
    Twice,
    image,
    naive_outputs,
    total_padding,
    with_shared_modules,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import ConvSpec, NetSpec, conv_specs, nets
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.checks.naive import naive_conv
from padrewrite.errors import NoEffectError, PassError
from padrewrite_passes import PartialPadding

NAME = "partial-padding"


def test_before_and_after() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    new = pr.transform(model.double(), [NAME], example_inputs=image(9, 13), verify="full")
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))\n"
        "  (1): ReLU()\n"
        "  (2): Conv2d(4, 4, kernel_size=(1, 1), stride=(1, 1))\n"
        ")"
    )
    assert repr(new) == (
        "Sequential(\n"
        "  (0): PartialConv2d(3, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), scale='mean')\n"
        "  (1): ReLU()\n"
        "  (2): Conv2d(4, 4, kernel_size=(1, 1), stride=(1, 1))\n"
        ")"
    )
    assert [(d.site, d.code, d.contract, d.after["padding_mode"]) for d in pr.report(new).decisions] == [
        ("0", "rewritten", "interior(1..1, 1..1)", "partial"),
        ("2", "unpadded", None, "zeros"),
    ]


REFUSALS = [
    Row("transposed", "refused", NAME, lambda: nn.ConvTranspose2d(3, 4, 3, padding=1), (5, 7)),
    Row("already-partial", "kept", NAME, lambda: pr.nn.PartialConv2d(3, 4, 3, padding=1), (5, 7)),
    Row("other-scale", "refused", f"{NAME}{{scale=sqrt}}", lambda: pr.nn.PartialConv2d(3, 4, 3, padding=1)),
    Row("unpadded", "kept", NAME, lambda: nn.Conv2d(3, 4, 1), (5, 7)),
    Row(
        "non-zero-padding",
        "kept",
        NAME,
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        (5, 7),
    ),
    # torch refuses to run a negative padding of zeros: only the module tree can show it.
    Row("cropping", "refused", NAME, lambda: nn.Conv2d(3, 4, 3, padding=(1, -1))),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.code)
def test_refusals(row: Row) -> None:
    decision = row.decide()
    assert (decision.status, decision.code) == (row.status, row.code)
    assert decision.contract is None
    assert decision.before == decision.after
    assert decision.reason


@pytest.mark.parametrize("name", SINGLES)
@pytest.mark.parametrize("scale", ["mean", "sqrt"])
def test_a_convolution_is_its_reference_however_it_is_padded(name: str, scale: str) -> None:
    single: Single = SINGLES[name]
    model = single.model().double()
    new = pr.transform(model, [PartialPadding(scale)], example_inputs=image(9, 12), verify="full")
    for x in (image(9, 12), image(10, 7), image(3, 3)):
        want = single.reference(model, x, ("zeros", "zeros"), scale)
        torch.testing.assert_close(new(x), want, **TIGHT)


@FEW
@given(conv_specs(dtypes=(torch.float64,)), st.sampled_from(["mean", "sqrt"]))
def test_any_window_is_its_reference(spec: ConvSpec, scale: str) -> None:
    x = spec.tensors()[0]
    window = (spec.kernel, spec.stride, 0, spec.dilation)
    layer = getattr(nn, f"Conv{spec.rank}d")
    conv = layer(spec.in_channels, spec.out_channels, *window, spec.groups, spec.bias).double()
    flat = [side for pair in reversed(spec.padding) for side in pair]
    model = nn.Sequential(getattr(nn, f"ZeroPad{spec.rank}d")(tuple(flat)), conv)
    new = pr.transform(model, [PartialPadding(scale)], example_inputs=x, verify="full", allow_no_effect=True)
    padded = any(flat)
    (decision,) = pr.report(new).decisions
    assert decision.code == ("rewritten" if padded else "unpadded")
    want = naive_conv(x, conv.weight, conv.bias, **spec.numbers, partial=scale if padded else None)
    torch.testing.assert_close(new(x), want, **TIGHT)


@FEW
@given(nets())
def test_a_network_is_its_reference(spec: NetSpec) -> None:
    model, x = spec.build(), spec.draw_input()
    new = pr.transform(model, [NAME], example_inputs=x, verify="full", allow_no_effect=True)
    codes = [d.code for d in pr.report(new).decisions]
    assert codes == with_shared_modules(spec, decide_alone(spec))
    want = naive_outputs(
        spec,
        new,
        x,
        lambda call, layer: {
            "modes": (layer.mode,) * spec.rank,
            "partial": "mean" if codes[call] == "rewritten" else None,
        },
    )
    torch.testing.assert_close(new(x), want, **TIGHT)


def decide_alone(spec: NetSpec) -> list[str]:
    """What each call would get if nothing were shared."""
    codes: list[str] = []
    for step in spec.calls:
        padded = any(map(any, total_padding(spec, step)))
        zeros = spec.layers[step.layer].mode == "zeros"
        codes.append("unpadded" if not padded else "rewritten" if zeros else "non-zero-padding")
    return codes


def test_a_uniform_kernel_averages_the_real_pixels() -> None:
    """An oracle that is not ours: average pooling that does not count the padding."""
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    nn.init.constant_(conv.weight, 1 / 9)
    x = image(7, 10, channels=1)
    new = pr.transform(conv, [NAME], example_inputs=x)
    torch.testing.assert_close(new(x), F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), **TIGHT)


def test_a_window_without_real_input_is_zero_without_bias() -> None:
    """In the middle of the map: one pixel, two taps two pixels apart."""
    conv = nn.Conv1d(1, 1, 2, padding=1, dilation=2, dtype=torch.float64)
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    assert conv(x).item() == conv.bias.item()
    assert pr.transform(conv, [NAME], example_inputs=x)(x).item() == 0


@pytest.mark.parametrize("with_inputs", [True, False])
def test_nothing_to_do_is_an_error(with_inputs: bool) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), image(5, 7).float()
    inputs = x if with_inputs else None
    with pytest.raises(NoEffectError, match="partial-padding would change nothing: 1 unpadded"):
        pr.transform(model, [NAME], example_inputs=inputs)
    new = pr.transform(model, [NAME], example_inputs=inputs, allow_no_effect=True)
    assert torch.equal(new(x), model(x))


def test_a_second_run_changes_nothing() -> None:
    x = image(9, 12)
    model = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 3, 3, padding=1), Twice()).double()
    once = pr.transform(model, [NAME], example_inputs=x)
    plan = pr.plan(once, [NAME], example_inputs=x)
    assert {d.code for d in plan.decisions} == {"already-partial"}
    assert not plan.edits
    assert plan.fingerprint == plan.predicted
    twice = pr.transform(once, [NAME], example_inputs=x)
    assert torch.equal(once(x), twice(x))
    assert repr(once) == repr(twice)


def test_calls_of_a_shared_layer_are_rewritten_together() -> None:
    x = image(9, 12)
    model = Twice().double()
    new = pr.transform(model, [NAME], example_inputs=x, verify="full")
    assert [(d.site, d.status) for d in pr.report(new).decisions] == [
        ("conv", "rewritten"),
        ("conv@1", "rewritten"),
    ]
    layer, want = model.conv, x
    for after in (torch.relu, lambda t: t):
        out = naive_conv(want, layer.weight, layer.bias, padding=((1, 1), (1, 1)), partial="mean")
        assert isinstance(out, Tensor)
        want = after(out)
    torch.testing.assert_close(new(x), want, **TIGHT)


def test_what_runs_between_two_calls_is_left_where_it_is() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return self.conv(x), x.relu(), self.conv(x)

    x = image(9, 12)
    new = pr.transform(Beside().double(), [NAME], example_inputs=x, verify="full")
    assert torch.equal(new(x)[1], x.relu())


def test_calls_that_need_different_rewrites_are_refused() -> None:
    """One call of the layer reads padded input, the other does not: one class cannot serve both."""
    model = Twice(between=lambda t: F.pad(t, (1, 1, 1, 1)))
    plan = pr.plan(model, [NAME], example_inputs=image(9, 12).float(), allow_no_effect=True)
    assert [(d.site, d.status, d.code) for d in plan.decisions] == [
        ("conv", "refused", "shared-module"),
        ("conv@1", "refused", "shared-module"),
    ]


def test_a_selector_that_takes_one_call_of_a_shared_layer_rewrites_none() -> None:
    model, x = Twice(), image(9, 12).float()
    plan = pr.plan(model, [NAME], example_inputs=x, include="conv@1", allow_no_effect=True)
    assert [d.code for d in plan.decisions] == ["not-selected", "shared-module"]


@pytest.mark.parametrize("text", [f"{NAME}{{scale=variance}}", f"{NAME}{{sclae=mean}}"])
def test_a_wrong_option_is_an_error(text: str) -> None:
    with pytest.raises(PassError, match=r"mean, sqrt|its options are scale"):
        pr.plan(nn.Conv2d(3, 4, 3, padding=1), [text])


@pytest.mark.parametrize(("norms", "words"), [(1, "1 batch norm keeps"), (2, "2 batch norms keep")])
def test_the_note_counts_batch_norms_in_words(norms: int, words: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *(nn.BatchNorm2d(4) for _ in range(norms)))
    assert [note for note in pr.plan(model, [NAME]).notes if note.startswith(words)]
