"""Symmetric convolution against the naive float64 reference, for any window; its formulations against each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ConvSpec, conv_specs
from torch import Tensor

from padrewrite.checks.naive import naive_symmetric
from padrewrite.ops.directions import ORDERS
from padrewrite.ops.symmetric import FORMULATIONS, symmetric_conv

MODES = ("zeros", "zeros", "reflect", "replicate", "circular")


@st.composite
def symmetric_specs(draw: st.DrawFn) -> tuple[ConvSpec, tuple[int, ...], tuple[str, ...]]:
    """A convolution with room for one tap more, some of its even axes, and a mode per axis."""
    spec = draw(conv_specs(dtypes=(torch.float64,)))
    size = tuple(max(n, d * k + 1 - lo - hi) for n, d, k, (lo, hi) in spec_axes(spec))
    channels = spec.groups * draw(st.integers(1, 9))
    spec = replace(spec, size=size, in_channels=channels)
    axes = tuple(a for a, k in enumerate(spec.kernel) if k % 2 == 0 and draw(st.booleans()))
    modes = tuple(draw(st.sampled_from(MODES)) for _ in spec.kernel)
    room = {"reflect": -1, "circular": 0}
    fits = (m not in room or max(p) <= n + room[m] for m, p, n in zip(modes, spec.padding, size))
    return spec, axes, tuple(m if fit else "zeros" for m, fit in zip(modes, fits))


def spec_axes(spec: ConvSpec) -> list[tuple[int, int, int, tuple[int, int]]]:
    return list(zip(spec.size, spec.dilation, spec.kernel, spec.padding))


def gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    direction = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    return list(torch.autograd.grad(out, leaves, direction))


def call(spec: ConvSpec, leaves: list[Tensor], formulation: str, **options: object) -> Tensor:
    x, weight, *bias = leaves
    numbers = {**spec.numbers, **options}
    return symmetric_conv(x, weight, bias[0] if bias else None, formulation=formulation, **numbers)  # type: ignore[arg-type]


@given(symmetric_specs(), st.sampled_from(ORDERS), st.sampled_from((None, "mean", "sqrt")))
def test_it_is_the_reference(
    drawn: tuple[ConvSpec, tuple[int, ...], tuple[str, ...]], order: str, scale: str | None
) -> None:
    spec, axes, modes = drawn
    x, weight, bias = spec.tensors()
    leaves = [t.requires_grad_() for t in (x, weight, bias) if t is not None]
    options = {"order": order, "axes": axes, "modes": modes}
    want = naive_symmetric(x, weight, bias, **spec.numbers, **options, partial=scale)  # type: ignore[arg-type]
    got = call(spec, leaves, "concat", **options, scale=scale)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients(got, leaves), gradients(want, leaves), rtol=1e-10, atol=1e-10)


@given(symmetric_specs())
def test_the_formulations_are_one_function(drawn: tuple[ConvSpec, tuple[int, ...], tuple[str, ...]]) -> None:
    """Outputs and all gradients to 1e-12, relative to the largest."""
    spec, axes, modes = drawn
    assume(axes)
    leaves = [t.requires_grad_() for t in spec.tensors() if t is not None]
    first = call(spec, leaves, "concat", axes=axes, modes=modes)
    wanted = [first, *gradients(first, leaves)]
    for formulation in FORMULATIONS[1:]:
        out = call(spec, leaves, formulation, axes=axes, modes=modes)
        for got, want in zip([out, *gradients(out, leaves)], wanted):
            assert (got - want).abs().max() <= 1e-12 * max(1.0, want.abs().max().item())


@pytest.mark.parametrize("order", ORDERS)
def test_the_reference_reads_channels_as_the_paper_draws_them(order: str) -> None:
    """The naive form, on one channel after the other: which of the four neighbours a 2x2 kernel of ones adds up."""
    x = torch.arange(9.0, dtype=torch.float64).reshape(1, 1, 3, 3).expand(1, 4, 3, 3)
    corners = {"raster": (8, 12, 20, 24)}.get(order, (24, 8, 20, 12))
    for channel, total in enumerate(corners):
        weight = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
        weight[0, channel] = 1
        ones = {"stride": (1, 1), "dilation": (1, 1), "groups": 1, "modes": ("zeros",) * 2}
        out = naive_symmetric(x, weight, axes=(0, 1), order=order, padding=((1, 1), (1, 1)), **ones)  # type: ignore[arg-type]
        assert out[0, 0, 1, 1] == total
