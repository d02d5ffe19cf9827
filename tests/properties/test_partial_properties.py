"""Partial convolution against the naive float64 reference, for any window."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ConvSpec, conv_specs
from torch import Tensor

from padrewrite.checks.naive import naive_conv
from padrewrite.ops.partial import partial_conv

LOW = (torch.float16, torch.bfloat16, torch.float32)
SCALES = st.sampled_from(("mean", "sqrt"))
CONVS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def pad_zeros(x: Tensor, padding: Any) -> Tensor:
    return F.pad(x, [side for pair in reversed(padding) for side in pair])


def draw_mask(spec: ConvSpec, density: float) -> Tensor:
    generator = torch.Generator().manual_seed(spec.seed + 1)
    return (torch.rand((spec.batch, 1, *spec.size), generator=generator) < density).to(torch.uint8)


def assert_same_gradients(got: Tensor, want: Tensor, leaves: list[Tensor]) -> None:
    direction = torch.randn(got.shape, dtype=got.dtype)
    mine, theirs = (torch.autograd.grad(out, leaves, direction) for out in (got, want))
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def rounding_bound(spec: ConvSpec, **options: Any) -> Tensor:
    """Worst-case error of the whole computation when every operation rounds to the dtype.

    ``terms`` products and sums, then scaling, bias and the final cast: ``gamma_n * sum |terms|`` with
    ``gamma_n = n u / (1 - n u)``; and what underflow may lose. A sum of rounding errors, not a tolerance.
    """
    x, weight, bias = spec.tensors()
    info = torch.finfo(spec.dtype)
    steps = (spec.terms + 5) * info.eps / 2
    size = naive_conv(x.abs(), weight.abs(), None if bias is None else bias.abs(), **spec.numbers, **options)
    size = size[0] if isinstance(size, tuple) else size
    lost = (spec.terms + 5) * info.tiny * info.eps
    return (size + lost * torch.Size(spec.kernel).numel()) * steps / (1 - steps) + lost


@given(conv_specs(dtypes=(torch.float64,)), SCALES)
def test_border_form_is_the_reference(spec: ConvSpec, scale: str) -> None:
    x, weight, bias = spec.tensors()
    got = partial_conv(x, weight, bias, **spec.numbers, scale=scale)
    want = naive_conv(x, weight, bias, **spec.numbers, partial=scale)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@given(conv_specs(dtypes=(torch.float64,)), SCALES, st.floats(0, 1))
def test_mask_form_is_the_reference(spec: ConvSpec, scale: str, density: float) -> None:
    x, weight, bias = spec.tensors()
    mask = draw_mask(spec, density)
    got, got_mask = partial_conv(x, weight, bias, **spec.numbers, mask=mask, scale=scale)
    want, want_mask = naive_conv(x, weight, bias, **spec.numbers, partial=scale, mask=mask)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert torch.equal(got_mask, want_mask.to(torch.uint8))


@given(conv_specs(dtypes=LOW), SCALES)
def test_low_precision_stays_within_its_rounding(spec: ConvSpec, scale: str) -> None:
    x, weight, bias = spec.tensors()
    got = partial_conv(x, weight, bias, **spec.numbers, scale=scale)
    want = naive_conv(x, weight, bias, **spec.numbers, partial=scale)
    assert got.dtype == spec.dtype
    assert ((got.double() - want).abs() <= rounding_bound(spec, partial=scale)).all()


@given(conv_specs(dtypes=LOW), SCALES, st.floats(0, 1))
def test_low_precision_masks_stay_within_their_rounding(spec: ConvSpec, scale: str, density: float) -> None:
    x, weight, bias = spec.tensors()
    mask = draw_mask(spec, density)
    got, _ = partial_conv(x, weight, bias, **spec.numbers, mask=mask, scale=scale)
    want, _ = naive_conv(x, weight, bias, **spec.numbers, partial=scale, mask=mask)
    assert got.dtype == spec.dtype
    assert ((got.double() - want).abs() <= rounding_bound(spec, partial=scale, mask=mask)).all()


@given(conv_specs(dtypes=(torch.float16, torch.bfloat16)), SCALES)
def test_half_types_are_scaled_in_float32(spec: ConvSpec, scale: str) -> None:
    """Next to the half convolution itself, only the last rounding is in the half type."""
    assume(any(pair != (0, 0) for pair in spec.padding))
    x, weight, bias = spec.tensors()
    padded = pad_zeros(x, spec.padding)
    numbers = {**spec.numbers, "padding": 0}
    plain = CONVS[spec.rank](padded, weight, None, **numbers).double()
    got = partial_conv(padded, weight, bias, **numbers, outer=spec.padding, scale=scale).double()
    ones = torch.ones(1, 1, *spec.size, dtype=torch.float64)
    kernel = torch.full((1, 1, *spec.kernel), 1 / torch.Size(spec.kernel).numel(), dtype=torch.float64)
    share = naive_conv(ones, kernel, **{**spec.numbers, "groups": 1})
    ratio = torch.where(share > 0, 1 / share, 0) ** {"mean": 1.0, "sqrt": 0.5}[scale]
    shift = torch.zeros(()) if bias is None else bias.double().reshape(-1, *(1,) * spec.rank)
    want = plain * ratio + shift * (share > 0)
    half, single = torch.finfo(spec.dtype), torch.finfo(torch.float32)
    last_rounding = want.abs() * half.eps / 2 + half.tiny * half.eps
    assert ((got - want).abs() <= last_rounding + 4 * single.eps * (plain.abs() * ratio + shift.abs())).all()


@given(conv_specs(dtypes=(torch.float64,)))
def test_without_padding_it_is_the_plain_convolution(spec: ConvSpec) -> None:
    x, weight, bias = spec.tensors()
    x = pad_zeros(x, spec.padding)
    numbers = {**spec.numbers, "padding": 0}
    assert torch.equal(partial_conv(x, weight, bias, **numbers), CONVS[spec.rank](x, weight, bias, **numbers))


@given(conv_specs(dtypes=(torch.float64,)), st.data())
def test_padding_may_come_from_an_earlier_pad(spec: ConvSpec, data: st.DataObject) -> None:
    """Any part of the padding applied before, and named by ``outer``, gives the same numbers."""
    x, weight, bias = spec.tensors()
    outer = tuple(tuple(data.draw(st.integers(0, side)) for side in pair) for pair in spec.padding)
    rest = tuple((lo - a, hi - b) for (lo, hi), (a, b) in zip(spec.padding, outer))
    got = partial_conv(pad_zeros(x, outer), weight, bias, **{**spec.numbers, "padding": rest}, outer=outer)
    want = naive_conv(x, weight, bias, **spec.numbers, partial="mean")
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@given(conv_specs(dtypes=(torch.float64,)))
def test_gradients_are_those_of_the_reference(spec: ConvSpec) -> None:
    leaves = [t.requires_grad_() for t in spec.tensors() if t is not None]
    bias = leaves[2] if spec.bias else None
    got = partial_conv(leaves[0], leaves[1], bias, **spec.numbers)
    want = naive_conv(leaves[0], leaves[1], bias, **spec.numbers, partial="mean")
    assert_same_gradients(got, want, leaves)


@given(conv_specs(dtypes=(torch.float64,)), st.floats(0, 1))
def test_masked_gradients_are_those_of_the_reference(spec: ConvSpec, density: float) -> None:
    leaves = [t.requires_grad_() for t in spec.tensors() if t is not None]
    bias, mask = leaves[2] if spec.bias else None, draw_mask(spec, density)
    got, _ = partial_conv(leaves[0], leaves[1], bias, **spec.numbers, mask=mask)
    want, _ = naive_conv(leaves[0], leaves[1], bias, **spec.numbers, partial="mean", mask=mask)
    assert_same_gradients(got, want, leaves)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@given(spec=conv_specs(dtypes=(torch.float64,)))
def test_the_reference_is_the_convolution_of_the_padded_input(mode: str, spec: ConvSpec) -> None:
    """The oracle has an oracle: torch's own pad and convolution, where torch can pad that far."""
    x, weight, bias = spec.tensors()
    reach = {"reflect": -1, "circular": 0}.get(mode, 10**6)
    padding = tuple((min(lo, n + reach), min(hi, n + reach)) for (lo, hi), n in zip(spec.padding, spec.size))
    spans = [d * (k - 1) + 1 for k, d in zip(spec.kernel, spec.dilation)]
    assume(all(n + lo + hi >= span for n, (lo, hi), span in zip(spec.size, padding, spans)))
    flat = [side for pair in reversed(padding) for side in pair]
    padded = F.pad(x, flat, mode="constant" if mode == "zeros" else mode)
    want = CONVS[spec.rank](padded, weight, bias, **{**spec.numbers, "padding": 0})
    got = naive_conv(x, weight, bias, **{**spec.numbers, "padding": padding}, modes=(mode,) * spec.rank)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
