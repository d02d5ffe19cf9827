"""Output stride: what it rewrites, into what, what it leaves alone and why; the grid, checked without the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from expected import FEW, TIGHT, Row, TensorflowSame, image
from hypothesis import event, given, settings
from hypothesis import strategies as st
from strategies import NetSpec, nets
from torch import Tensor, nn

import padrewrite as pr
from padrewrite import feasibility
from padrewrite.errors import NoEffectError, PassError
from padrewrite_passes import OutputStride

NAME = "output-stride"


def unit(channels: int, kernel: Any = 3, stride: Any = 1, **options: Any) -> nn.Sequential:
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    window = {"padding": tuple(k // 2 for k in sizes), **options}
    rank = len(sizes)
    conv, norm = getattr(nn, f"Conv{rank}d"), getattr(nn, f"BatchNorm{rank}d")
    return nn.Sequential(conv(channels, channels, kernel, stride, **window), norm(channels), nn.ReLU())


def settled(model: nn.Module) -> nn.Module:
    """In eval mode and float64, its batch norms with statistics of their own."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)  # pyright: ignore
            nn.init.uniform_(norm.running_var, 0.5, 1.5)  # pyright: ignore
    return model.double().eval()


def shown(spec: Mapping[str, Any]) -> str:
    """``k3 s2 d1 p1``; numbers that differ between the axes as in ``p1x0``, uneven padding as in ``p0:1``."""
    pads = [f"{lo}" if lo == hi else f"{lo}:{hi}" for lo, hi in spec["padding"]]
    fields = {"k": spec["kernel_size"], "s": spec["stride"], "d": spec["dilation"], "p": pads}
    values = {name: [str(v) for v in given] for name, given in fields.items()}
    return " ".join(name + (v[0] if len(set(v)) == 1 else "x".join(v)) for name, v in values.items())


def table(plan: pr.Plan | pr.Report) -> list[str]:
    """A line for each operation that changes."""
    lines = [d for d in plan.decisions if d.status == "rewritten"]
    return [f"{d.site}: {shown(d.before)} -> {shown(d.after)}, {d.contract}" for d in lines]


def assert_on_grid(old: nn.Module, new: nn.Module, factors: Sequence[int], *inputs: Tensor) -> None:
    """``new[..., ::f] == old`` in float64, for the one output of both."""
    for x in inputs:
        with torch.no_grad():
            want, got = old(x), new(x)
        on_grid = got[(..., *(slice(None, None, f) for f in factors))]
        assert on_grid.shape == want.shape
        assert want.std() > 1e-3
        assert (on_grid - want).abs().max() <= 1e-10 * want.abs().max()


@dataclass(frozen=True)
class Written:
    """A small network, the output stride it is brought to, and what that must change."""

    model: Callable[[], nn.Module]
    stride: int
    sizes: tuple[tuple[int, ...], ...]
    """To record with, and others; odd, even and unlike each other."""
    factors: tuple[int, ...]
    lines: tuple[str, ...]


PLANE = ((33, 38), (32, 37), (21, 50))

WRITTEN = {
    "stride first": Written(
        lambda: nn.Sequential(unit(3, 3, 2), unit(3), unit(3, 3, 2), unit(3), unit(3, 3, 2), unit(3)),
        2,
        PLANE,
        (4, 4),
        (
            "2.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "3.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "4.0: k3 s2 d1 p1 -> k3 s1 d2 p2, grid(4)",
            "5.0: k3 s1 d1 p1 -> k3 s1 d4 p4, grid(4)",
        ),
    ),
    "stride last": Written(
        lambda: nn.Sequential(unit(3), unit(3, 3, 2), unit(3), unit(3, 3, 2), nn.Conv2d(3, 2, 1)),
        1,
        PLANE,
        (4, 4),
        (
            "1.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "2.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "3.0: k3 s2 d1 p1 -> k3 s1 d2 p2, grid(4)",
        ),
    ),
    "kernels and strides that differ between the axes": Written(
        lambda: nn.Sequential(unit(3, (1, 5), (1, 3)), unit(3, (5, 3), (2, 1)), unit(3, (3, 1)), unit(3, (1, 3))),
        1,
        PLANE,
        (2, 3),
        (
            "0.0: k1x5 s1x3 d1 p0x2 -> k1x5 s1 d1 p0x2, grid(1x3)",
            "1.0: k5x3 s2x1 d1 p2x1 -> k5x3 s1 d1x3 p2x3, grid(2x3)",
            "2.0: k3x1 s1 d1 p1x0 -> k3x1 s1 d2x1 p2x0, grid(2x3)",
            "3.0: k1x3 s1 d1 p0x1 -> k1x3 s1 d1x3 p0x3, grid(2x3)",
        ),
    ),
    "even kernels, same padding": Written(
        lambda: nn.Sequential(unit(3, 2, 2), unit(3, (4, 2), padding="same"), unit(3, 4, padding=0, dilation=2)),
        1,
        PLANE,
        (2, 2),
        (
            "0.0: k2 s2 d1 p1 -> k2 s1 d1 p1, grid(2)",
            "1.0: k4x2 s1 d1 p1:2x0:1 -> k4x2 s1 d2 p2:4x0:2, grid(2)",
            "2.0: k4 s1 d2 p0 -> k4 s1 d4 p0, grid(2)",
        ),
    ),
    "a stride lost in part": Written(
        lambda: nn.Sequential(unit(3, 7, 4), unit(3, 3, 4), unit(3)),
        8,
        ((65, 70), (64, 61)),
        (2, 2),
        (
            "1.0: k3 s4 d1 p1 -> k3 s2 d1 p1, grid(2)",
            "2.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
        ),
    ),
    "1-D": Written(
        lambda: nn.Sequential(unit(3, (5,), 3), unit(3, (2,), 2), unit(3, (3,))),
        1,
        ((50,), (49,), (36,)),
        (6,),
        (
            "0.0: k5 s3 d1 p2 -> k5 s1 d1 p2, grid(3)",
            "1.0: k2 s2 d1 p1 -> k2 s1 d3 p3, grid(6)",
            "2.0: k3 s1 d1 p1 -> k3 s1 d6 p6, grid(6)",
        ),
    ),
    "3-D": Written(
        lambda: nn.Sequential(unit(3, (3, 3, 3), (1, 2, 2)), unit(3, (2, 3, 1)), unit(3, (3, 3, 3), 2)),
        2,
        ((8, 13, 12), (5, 12, 17)),
        (1, 2, 2),
        (
            "2.0: k3 s2 d1 p1 -> k3 s2x1x1 d1 p1, grid(1x2x2)",
        ),
    ),
    "max pool": Written(
        lambda: nn.Sequential(unit(3, 3, 2), nn.Conv2d(3, 3, 1), nn.MaxPool2d(3, 2, 1), unit(3), nn.MaxPool2d(2, 1)),
        2,
        PLANE,
        (2, 2),
        (
            "3.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "2: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "4: k2 s1 d1 p0 -> k2 s1 d2 p0, grid(2)",
        ),
    ),
    "max pool with more padding than torch allows": Written(
        lambda: nn.Sequential(unit(3, 3, 2), nn.Conv2d(3, 3, 1), nn.MaxPool2d((3, 2), (2, 1), (1, 0)), unit(3)),
        1,
        PLANE,
        (4, 2),
        (
            "0.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "3.0: k3 s1 d1 p1 -> k3 s1 d4x2 p4x2, grid(4x2)",
            "2: k3x2 s2x1 d1 p1x0 -> k3x2 s1 d2 p2x0, grid(4x2)",
        ),
    ),
    "average pools, padding counted and not": Written(
        lambda: nn.Sequential(
            unit(3, 3, 2),
            nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            nn.AvgPool2d((2, 3), 2, (1, 1)),
            nn.AvgPool2d(2, 1),
            unit(3),
        ),
        1,
        PLANE,
        (4, 4),
        (
            "0.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "4.0: k3 s1 d1 p1 -> k3 s1 d4 p4, grid(4)",
            "1: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "2: k2x3 s2 d1 p1 -> k2x3 s1 d2 p2, grid(4)",
            "3: k2 s1 d1 p0 -> k2 s1 d4 p0, grid(4)",
        ),
    ),
    "pools that round their size up": Written(
        lambda: nn.Sequential(
            unit(3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.AvgPool2d((2, 3), 2, (0, 1), ceil_mode=True, count_include_pad=False),
            nn.AvgPool2d(2, 2, ceil_mode=True),
            unit(3),
        ),
        4,
        ((32, 37), (33, 38), (34, 35), (35, 36), (39, 40)),
        (2, 2),
        (
            "4.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
            "3: k2 s2 d1 p0 -> k2 s1 d1 p0:1, grid(2)",
        ),
    ),
    "pools that round their size up, on a finer grid": Written(
        lambda: nn.Sequential(
            unit(3, 3, 2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.AvgPool2d((2, 3), 2, (0, 1), ceil_mode=True, count_include_pad=False),
        ),
        1,
        ((32, 37), (33, 38), (34, 35), (35, 36), (39, 40)),
        (8, 8),
        (
            "0.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "1: k3 s2 d1 p0 -> k3 s1 d2 p0:2, grid(4)",
            "2: k2x3 s2 d1 p0x1 -> k2x3 s1 d4 p0:4x4:8, grid(8)",
        ),
    ),
    "a pool shorter than the convolution beside it": Written(
        lambda: nn.Sequential(
            unit(3, 3, 2),
            Branches(nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 3, 1)), unit(3, 3, 2)),
            Branches(nn.AvgPool2d(2, 2), unit(3, 3, 2)),
            unit(3),
        ),
        2,
        ((32, 48), (31, 40), (24, 63)),
        (4, 4),
        (
            "1.other.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "2.other.0: k3 s2 d1 p1 -> k3 s1 d2 p2, grid(4)",
            "3.0: k3 s1 d1 p1 -> k3 s1 d4 p4, grid(4)",
            "1.one.0: k2 s2 d1 p0 -> k2 s1 d1 p0:1, grid(2)",
            "2.one: k2 s2 d1 p0 -> k2 s1 d2 p0:2, grid(4)",
        ),
    ),
    "a convolution shorter than what it is merged with": Written(
        lambda: nn.Sequential(Branches(unit(3, 2, 2, padding=0), unit(3, 3, 2)), unit(3)),
        1,
        ((8, 10), (16, 12), (22, 30)),
        (2, 2),
        (
            "0.one.0: k2 s2 d1 p0 -> k2 s1 d1 p0:1, grid(2)",
            "0.other.0: k3 s2 d1 p1 -> k3 s1 d1 p1, grid(2)",
            "1.0: k3 s1 d1 p1 -> k3 s1 d2 p2, grid(2)",
        ),
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_before_and_after(name: str) -> None:
    case = WRITTEN[name]
    model = settled(case.model())
    x, *others = (image(*sizes) for sizes in case.sizes)
    new = pr.transform(model, [OutputStride(case.stride)], example_inputs=x, verify="full")
    assert tuple(table(pr.report(new))) == case.lines
    assert_on_grid(model, new, case.factors, x, *others)
    found = pr.report(new).verification
    assert found is not None
    grid = [e for e in found.evidence if e.contract.startswith("grid")]
    assert "(output 0)" in {e.site for e in grid}
    assert not any(e.vacuous or not e.ok for e in grid)
    again = pr.plan(new, [OutputStride(case.stride)], example_inputs=x)
    assert {d.code for d in again.decisions} == {"already-fine"}
    assert not again.edits


class Branches(nn.Module):
    """Two branches of one input, added."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x)


class Flipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


def behind(*rest: nn.Module) -> Callable[[], nn.Module]:
    """A convolution of stride 2, and what follows."""
    return lambda: nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), *rest)


FINEST = f"{NAME}{{stride=1}}"

REFUSALS = [
    Row("already-fine", "kept", FINEST, lambda: nn.Conv2d(3, 4, 3, padding=1), (5, 7)),
    Row(
        "unequal-branches",
        "refused",
        FINEST,
        lambda: Branches(nn.Conv2d(3, 3, 2, 2), nn.Upsample(scale_factor=0.5)),
        (8, 10),
    ),
    Row(
        "unequal-sizes",
        "refused",
        FINEST,
        lambda: Branches(nn.Conv2d(3, 3, 4, 2, 1, padding_mode="reflect"), nn.Conv2d(3, 3, 3, 2, 1)),
        (8, 10),
    ),
    Row("uneven-stride", "refused", f"{NAME}{{stride=2}}", lambda: nn.Conv2d(3, 4, 3, 3), (9, 12)),
    Row("fixed-size-head", "refused", FINEST, behind(nn.Flatten(), nn.Linear(3 * 4 * 5, 2)), (8, 10)),
    Row("fixed-upsampling", "refused", FINEST, behind(nn.Upsample(scale_factor=2)), (8, 10)),
    Row("transposed", "refused", FINEST, behind(nn.ConvTranspose2d(3, 3, 2, 2)), (8, 10)),
    Row("cropped", "refused", FINEST, behind(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)), (8, 10)),
    Row("ceil-mode", "refused", FINEST, behind(nn.AvgPool2d(3, 2, 1, ceil_mode=True)), (8, 10)),
    Row(
        "blind-window",
        "refused",
        FINEST,
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3, 4, 1), nn.MaxPool2d(2, 1, 1)),
        (3, 3),
    ),
    Row("border-mode", "refused", FINEST, behind(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")), (8, 9)),
    Row("size-dependent-padding", "refused", FINEST, behind(TensorflowSame(3, 3, 3, 2)), (8, 10)),
    Row("unknown-positions", "refused", FINEST, behind(Flipped(), nn.Conv2d(3, 3, 3, padding=1)), (8, 10)),
    Row("no-stage", "refused", f"{NAME}{{stride=1,multi_grid=[1,2,4]}}", behind(nn.Conv2d(3, 3, 1)), (8, 10)),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.code)
def test_refusals(row: Row) -> None:
    decision = row.decide()
    assert (decision.status, decision.code) == (row.status, row.code)
    assert decision.contract is None
    assert decision.before == decision.after
    assert decision.reason


def test_a_refusal_is_about_the_whole_network() -> None:
    """Nothing is changed in part, and the reason names the layer that stands in the way."""
    model, x = behind(nn.MaxPool2d(2, 2, 1, ceil_mode=True), nn.Conv2d(3, 3, 1))(), image(9, 12).float()
    plan = pr.plan(model, [FINEST], example_inputs=x, allow_no_effect=True)
    assert [(d.site, d.code) for d in plan.decisions] == [("0", "ceil-mode"), ("2", "ceil-mode")]
    assert "1 rounds its size up" in plan.decisions[0].reason
    with pytest.raises(NoEffectError, match="2 ceil-mode"):
        pr.transform(model, [FINEST], example_inputs=x)


def test_calls_of_a_shared_layer_would_need_different_rates() -> None:
    layer = nn.Conv2d(3, 3, 3, 2, 1)
    model, x = nn.Sequential(layer, layer), image(9, 12).float()
    plan = pr.plan(model, [f"{NAME}{{stride=2}}"], example_inputs=x, allow_no_effect=True)
    assert {d.code for d in plan.decisions if d.status != "kept"} == {"shared-module"}


@pytest.mark.parametrize("include", ["2.*", ["0.*", "1.*"]])
def test_a_selector_cannot_cut_a_path(include: Any) -> None:
    model, x = nn.Sequential(unit(3, 3, 2), unit(3), unit(3)), image(9, 12).float()
    plan = pr.plan(model, [FINEST], example_inputs=x, include=include, allow_no_effect=True)
    assert {d.code for d in plan.decisions} == {"selector-cuts-match"}
    assert not plan.edits


@pytest.mark.parametrize("text", ["stride=0", "convention=caffe", "multi_grid=[]", "multi_grid=[0,1]", "strides=8"])
def test_a_wrong_option_is_an_error(text: str) -> None:
    with pytest.raises(PassError, match=r"positive|is not|options are"):
        pr.plan(nn.Conv2d(3, 4, 3), [f"{NAME}{{{text}}}"], example_inputs=image(9, 9).float())


def test_it_must_see_the_dataflow() -> None:
    with pytest.raises(PassError, match="give example_inputs"):
        pr.plan(nn.Conv2d(3, 4, 3, 2), [FINEST])


GRIDDED = (
    *("conv", "pointwise", "batch_norm", "max_pool", "avg_pool", "add", "cat", "residual", "mul", "aspp", "pad"),
    *("downsample", "squeeze_excite", "interpolate", "skip", "adaptive_pool"),
)
"""Kinds that a finer grid may pass; what it never passes has its row above."""


class Behind(nn.Module):
    """A random network behind a convolution that has a stride to lose."""

    def __init__(self, spec: NetSpec, kernel: int, stride: int) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{spec.rank}d")
        self.stem, self.net = conv(spec.shape[0], spec.shape[0], kernel, stride, kernel // 2), spec.build()
        self.sizes = [(n - 1) * stride + kernel % 2 + n % stride for n in spec.shape[1:]]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.net(self.stem(x))


@FEW
@given(
    nets(kinds=GRIDDED, parts=(2, 5)), st.integers(1, 4), st.sampled_from([2, 3, 4]), st.sampled_from([1, 2, 4, 8])
)
def test_a_network_stands_in_its_finer_self(spec: NetSpec, kernel: int, stride: int, wanted: int) -> None:
    """Refused with a code, or each promised output stands in the new one: at the recorded size, and at others unless a
    border is made of real pixels."""
    model = Behind(spec, kernel, stride).double().eval()
    x = torch.randn(spec.batch, spec.shape[0], *model.sizes, dtype=torch.float64)
    new = pr.transform(model, [OutputStride(wanted)], example_inputs=x, verify="full", allow_no_effect=True)
    plan = pr.report(new).plans[0]
    assert {d.code for d in plan.decisions} <= {*OutputStride.codes, *feasibility.CODES, "rewritten", "no-match"}
    event("rewritten" if plan.edits else plan.decisions[0].code)
    factors = dict(plan.grids[0].factors) if plan.grids else {}
    zeros = all(getattr(layer, "mode", "zeros") == "zeros" for layer in spec.layers)
    for more in (0, 3, 8) if zeros else (0,):
        y = torch.randn(1, spec.shape[0], *(n + more for n in model.sizes), dtype=torch.float64)
        with torch.no_grad():
            outputs = zip(model(y), new(y))
        for index, (want, got) in enumerate(outputs):
            steps = factors.get(f"(output {index})", ())
            on_grid = got[(..., *(slice(None, None, f) for f in steps))]
            assert not steps or on_grid.shape == want.shape
            assert not steps or (on_grid - want).abs().max() <= 1e-10 * max(1, want.abs().max())


GATHERED = ("conv", "pointwise", "batch_norm", "max_pool", "avg_pool", "add", "cat", "residual", "aspp", "downsample")
"""Kinds of which few networks are refused."""


@settings(max_examples=max(5, settings.default.max_examples // 6))
@given(nets(kinds=GATHERED, parts=(1, 4)), st.integers(1, 4), st.sampled_from([2, 3]), st.sampled_from([1, 2]))
def test_it_commutes_with_partial_padding(spec: NetSpec, kernel: int, stride: int, wanted: int) -> None:
    """In either order the partial network stands in its finer self, and the two are one network; but for a branch that
    is padded at its end to be as long as another, where only the one that is padded first becomes partial there."""
    model = Behind(spec, kernel, stride).double().eval()
    x = torch.randn(spec.batch, spec.shape[0], *model.sizes, dtype=torch.float64)
    orders = ([OutputStride(wanted), "partial-padding"], ["partial-padding", OutputStride(wanted)])
    plans = [pr.plan(model, passes, example_inputs=x, allow_no_effect=True) for passes in orders]
    event("rewritten" if plans[0].grids else "refused")
    assert bool(plans[0].grids) == bool(plans[1].grids)
    if not plans[0].grids:
        return
    partial = pr.transform(model, ["partial-padding"], example_inputs=x, allow_no_effect=True)
    with torch.no_grad():
        want, *both = (network(x) for network in (partial, *(pr.apply(model, plan) for plan in plans)))
    for index, outputs in enumerate(zip(want, *both)):
        steps = plans[0].grids[0].factors.get(f"(output {index})", ())
        place = (..., *(slice(None, None, f) for f in steps))
        for got in outputs[1:] if steps else ():
            torch.testing.assert_close(got[place], outputs[0], **TIGHT)
    made = [{edit.site.id: edit.after for edit in plan.edits} for plan in plans]
    event("one network" if made[0] == made[1] else "padded at an end")
    if made[0] == made[1]:
        for one, other in zip(*both):
            torch.testing.assert_close(one, other, **TIGHT)
    else:
        lone = {site for site in made[0] if made[0][site] != made[1][site]}
        assert all(min(made[0][site].window.lo) == 0 for site in lone)
