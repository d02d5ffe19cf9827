"""Symmetric convolutions in the analyses, against what torch computes: positions, reads, border and use of weights."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import flatten_weights, sensitivities
from padrewrite.analyses.evenness import causal_axes, half_pixel_axes, made_symmetric, shift
from padrewrite.analyses.size_forms import identity
from padrewrite.ops.conv import Conv
from padrewrite.ops.directions import symmetric_padding
from padrewrite.ops.window import Window

EXACT = 1e-12
CASES = [
    # channels, kernel, stride, dilation, groups, order
    (8, (2, 2), 1, 1, 1, "balanced"),
    (6, (2, 2), 1, 1, 1, "raster"),
    (7, (4, 2), 1, 1, 1, "balanced"),
    (5, (2, 3), 1, 2, 1, "balanced"),
    (6, (4, 4), 2, 1, 2, "balanced"),
    (4, (2, 2), 1, 3, 2, "balanced"),  # two channels a group: two of the four directions
    (3, (2, 4), 2, 1, 1, "author"),
    (9, (2,), 1, 1, 1, "balanced"),
    (7, (4,), 3, 2, 1, "balanced"),
    (3, (2, 2, 2), 1, 1, 1, "balanced"),
]


def layer(case: Any) -> Any:
    channels, kernel, stride, dilation, groups, order = case
    kind: Any = getattr(pr.nn, f"SymmetricConv{len(kernel)}d")
    made = kind(channels, 2 * groups, kernel, stride, "same", dilation, groups, bias=False, order=order)
    return flatten_weights(made)


def image(case: Any, batch: int = 1) -> Tensor:
    sizes = (9, 8, 6)[: len(case[1])]
    return torch.ones(batch, case[0], *(n * case[3] for n in sizes), dtype=torch.float64)


def record(model: nn.Module, x: Tensor) -> pr.analyses.analysis.SiteRecord:  # pyright: ignore
    (found,) = pr.analyze(model, example_inputs=x).sites.values()
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_phase_is_the_centre_of_mass(case: Any) -> None:
    """Of the inputs that an output in the middle reads, each channel's weights being equal."""
    model, x = layer(case), image(case)
    weights = sensitivities(lambda t: [model(t)], x, 0)
    out = weights.shape[: len(case[1])]
    middle = tuple(n // 2 for n in out)
    for axis, phase in enumerate(record(model, x).phase):
        mass = weights[middle].movedim(axis, 0).flatten(1).sum(1) if len(middle) > 1 else weights[middle]
        centre = (mass * torch.arange(len(mass))).sum() / mass.sum()
        assert float(phase.scale * middle[axis] + phase.offset) == pytest.approx(float(centre), abs=EXACT)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_support_is_that_of_the_gradient(case: Any) -> None:
    """Also where few channels come from some of the sides only, so that it is no rectangle."""
    chain, x = nn.Sequential(layer(case), layer((2 * case[4], *case[1:4], 1, case[5]))), image(case)
    for model in (chain[:1], chain):
        found = pr.analyze(model, example_inputs=x)
        site = list(found.sites.values())[-1]
        weights = sensitivities(lambda t, m=model: [m(t)], x, 0)
        middle = tuple(n // 2 for n in weights.shape[: len(case[1])])
        reads = weights[middle].abs() > EXACT
        assert site.reached is not None
        assert site.reached.count == int(reads.sum())
        places = reads.nonzero()
        assert site.reached.extents == tuple((places.amax(0) - places.amin(0) + 1).tolist())


def moments(model: Any, x: Tensor, scale: str | None) -> Tensor:
    """Mean over channels and taps of ones inside and zeros outside: by averages, one channel after the other."""
    with torch.no_grad():
        taps = torch.Size(model.kernel_size).numel()
        model.partial_scale = None
        plain = model(x).mean(1) / (model.weight.shape[1] * taps)
        if scale is None:
            return plain[0]
        model.partial_scale = "mean"
        ratio = model(x).mean(1) / (model.weight.shape[1] * taps) / plain
        model.partial_scale = scale
        return (plain * (ratio**2 if scale == "mean" else ratio))[0]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("scale", [None, "mean", "sqrt"])
def test_the_border_is_that_of_averages(case: Any, scale: str | None) -> None:
    model, x = layer(case), image(case)
    wanted = moments(model, x, scale).sqrt()
    model.partial_scale = scale
    border = record(model, x).border
    assert border.q == pytest.approx(float(wanted.mean()), abs=EXACT)
    corners = [wanted[index] for index in product(*((0, n - 1) for n in wanted.shape))]
    assert border.corner == pytest.approx(float(torch.stack(corners).mean()), abs=EXACT)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_weights_that_meet_input_are_counted(case: Any) -> None:
    """Ones through kernels of ones add up the taps on real input; what remains is the share."""
    model, x = layer(case), image(case)
    real = model(x).sum()
    total = model(x).numel() * model.weight[0].numel()
    found = record(model, x)
    assert found.valid_weights == Fraction(int(real.round()), total)


def test_what_saw_padding() -> None:
    """All four sides: one ring at kernel 2, where plain padding touches one row and one column."""
    x = torch.ones(1, 4, 6, 7)
    assert record(pr.nn.SymmetricConv2d(4, 4, 2), x).saw_padding == pytest.approx(1 - 4 * 5 / 42)
    assert record(nn.Conv2d(4, 4, 2, padding="same"), x).saw_padding == pytest.approx(1 - 5 * 6 / 42)


@pytest.mark.parametrize("kernel", [2, 4])
def test_erosion_is_that_of_the_formula(kernel: int) -> None:
    """[C2sp] Figure 3: the signal left behind each of several layers."""
    x = torch.zeros(1, 8, 12, 12)
    model = nn.Sequential(*(pr.nn.SymmetricConv2d(8, 8, kernel) for _ in range(6)))
    found = [site.border.q for site in pr.analyze(model, example_inputs=x).sites.values() if site.border is not None]
    assert found == pytest.approx(pr.formulas.erosion(kernel, 6, 12, symmetric=True), abs=EXACT)


def test_costs_and_fields() -> None:
    x = torch.zeros(1, 8, 12, 12)
    plain, ours = (record(m, x) for m in (nn.Conv2d(8, 4, 2, padding="same"), pr.nn.SymmetricConv2d(8, 4, 2)))
    assert (ours.macs, ours.parameters) == (plain.macs, plain.parameters)
    assert (ours.receptive_field, plain.receptive_field) == ((3, 3), (2, 2))
    assert ours.size == plain.size == (identity(), identity())


def op(kernel: tuple[int, ...], lo: tuple[int, ...], hi: tuple[int, ...], **window: tuple[int, ...]) -> Conv:
    ones = (1,) * len(kernel)
    made = Window(kernel, window.get("stride", ones), window.get("dilation", ones), lo, hi)
    return Conv(made, 4, 4, 1, False, ("zeros",) * len(kernel))


@pytest.mark.parametrize(
    ("conv", "half", "causal"),
    [
        (op((4,), (3,), (0,)), (0,), (0,)),
        (op((4,), (0,), (3,)), (0,), ()),
        (op((3,), (2,), (0,)), (), (0,)),
        (op((2, 2), (1, 1), (0, 0)), (0, 1), ()),
        (op((2, 3), (1, 1), (0, 1)), (0,), (0,)),
        (op((2, 1), (1, 0), (0, 0)), (0,), (0,)),
        (op((4, 4), (3, 3), (0, 0)), (0, 1), (0, 1)),
        (op((2, 2), (1, 0), (0, 1)), (0, 1), ()),
        (op((2, 2), (0, 0), (1, 1), stride=(1, 2)), (0,), ()),
        (op((2, 2), (1, 1), (1, 1), dilation=(1, 2)), (0,), ()),
    ],
    ids=str,
)
def test_half_pixels_and_causal_axes(conv: Conv, half: tuple[int, ...], causal: tuple[int, ...]) -> None:
    assert half_pixel_axes(conv) == half
    assert causal_axes(conv) == causal


def test_the_shift_is_zero_in_the_mean_for_every_count_of_channels() -> None:
    for channels in range(2, 33):
        conv = Conv(Window((2, 2), (1, 1), (1, 1), (0, 0), (1, 1)), channels, 4, 1, False, ("zeros",) * 2)
        new = made_symmetric(conv, "balanced", (0, 1), True)
        shifts = [abs(shift(new, a)) for a in (0, 1)]
        assert shifts == [Fraction(1, 2 * channels) if channels % 2 else 0] * 2
    assert symmetric_padding(Window((2,), (1,), (1,), (0,), (1,)), 0) == (1, 1)
