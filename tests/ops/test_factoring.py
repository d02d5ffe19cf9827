"""Factors of kernels: as good as theory allows, never worse with more work, and the kernel again at full rank."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import ConvSpec, conv_specs
from torch import Tensor

from padrewrite.checks.naive import naive_conv
from padrewrite.nn.large import layer_of
from padrewrite.ops.assembly import Assembly, Carry
from padrewrite.ops.carrying import CARRIERS, carry_over, round_up, settled
from padrewrite.ops.conv import Conv
from padrewrite.ops.factoring import alternate, decompose, refold, truncate, unfold
from padrewrite.ops.separable import enlarged, full_rank, separate
from padrewrite.ops.window import Window

BRANCHES = ("left", "right")


def kernel(outer: int, inner: int, ky: int, kx: int, groups: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(groups, outer, inner, ky, kx, generator=generator, dtype=torch.float64)


def matrix(weight: np.ndarray, branch: str) -> np.ndarray:
    """Rows (output, tap across), columns (input, tap along), written out index by index."""
    outer, inner, ky, kx = weight.shape
    across, along = (kx, ky) if branch == "left" else (ky, kx)
    out = np.zeros((outer * across, inner * along))
    for o, c, y, x in product(range(outer), range(inner), range(ky), range(kx)):
        second, first = (x, y) if branch == "left" else (y, x)
        out[o * across + second, c * along + first] = weight[o, c, y, x]
    return out


def op_of(spec: ConvSpec) -> Conv:
    lo, hi = (tuple(pair[side] for pair in spec.padding) for side in (0, 1))
    window = Window(spec.kernel, spec.stride, spec.dilation, lo, hi)
    return Conv(window, spec.in_channels, spec.out_channels, spec.groups, spec.bias, ("zeros",) * spec.rank)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (3, 5, 2, 7), (2, 2, 6, 3)])
def test_one_branch_is_as_good_as_eckart_and_young_allow(shape: tuple[int, ...], branch: str) -> None:
    weight = kernel(*shape)
    values = np.linalg.svd(matrix(weight[0].numpy(), branch), compute_uv=False)
    for mid in range(1, len(values) + 2):
        found = truncate(weight, branch, mid)
        assert found.outer.shape[-1] == found.inner.shape[-2] == mid
        error = (refold(found.product, branch, weight.shape) - weight).square().sum().item()
        assert error == pytest.approx(float((values[mid:] ** 2).sum()), abs=1e-10)


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (3, 9, 2, 3), (9, 2, 4, 5)])
@pytest.mark.parametrize("branch", BRANCHES)
def test_large_matrices_are_decomposed_as_well_as_small_ones(
    shape: tuple[int, ...], branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the Gram matrix, whose eigenvalues are squares: values of 1e-9 of the largest are still found."""
    monkeypatch.setattr("padrewrite.ops.factoring.LARGE", 0)
    weight = kernel(*shape)
    u, s, v = np.linalg.svd(matrix(weight[0].numpy(), branch), full_matrices=False)
    s[3:] *= 1e-9
    dense = torch.from_numpy(u * s @ v)[None]
    small = refold(dense, branch, weight.shape)
    left, values, right = decompose(small, branch)
    np.testing.assert_allclose(np.sort(values[0].numpy()), np.sort(s), rtol=0, atol=1e-14 * s[0])
    torch.testing.assert_close(left * values[:, None] @ right, dense, rtol=0, atol=1e-13)
    rank_three = truncate(small, branch, 3)
    assert (rank_three.product - dense).square().sum().sqrt() < 1.01 * np.sqrt((s[3:] ** 2).sum())


@pytest.mark.parametrize("branch", BRANCHES)
def test_no_random_factors_are_better(branch: str) -> None:
    """The best outer factor for each of a hundred inner ones, by least squares."""
    weight = kernel(4, 3, 5, 5)
    best = (unfold(weight, branch) - truncate(weight, branch, 3).product).square().sum()
    dense = matrix(weight[0].numpy(), branch)
    draw = np.random.default_rng(0)
    for _ in range(100):
        inner = draw.standard_normal((3, dense.shape[1]))
        outer = np.linalg.lstsq(inner.T, dense.T, rcond=None)[0].T
        assert ((outer @ inner - dense) ** 2).sum() > best


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mid", [1, 2, 5])
def test_alternation_never_gets_worse_and_beats_one_branch(groups: int, mid: int) -> None:
    weight = kernel(6, 5, 7, 5, groups)
    errors: list[float] = []
    found = alternate(weight, mid, errors)
    singles = [(unfold(weight, b) - truncate(weight, b, mid).product).square().sum().item() for b in BRANCHES]
    assert errors[0] == pytest.approx(min(singles), rel=1e-12)
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(errors))
    assert errors[-1] < 0.95 * errors[0]
    rest = weight - sum(refold(f.product, b, weight.shape) for b, f in found.items())
    assert rest.square().sum().item() == pytest.approx(errors[-1], rel=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_a_sum_of_two_low_rank_branches_is_recovered(seed: int) -> None:
    """Not by the construction: neither branch alone has a low rank."""
    parts = [kernel(5, 4, 7, 7, seed=10 * seed + n) for n in range(2)]
    weight = sum(refold(truncate(p, b, 1).product, b, p.shape) for p, b in zip(parts, BRANCHES))
    assert isinstance(weight, Tensor)
    single = min((unfold(weight, b) - truncate(weight, b, 1).product).norm() for b in BRANCHES) / weight.norm()
    found = alternate(weight, 1)
    rest = weight - sum(refold(f.product, b, weight.shape) for b, f in found.items())
    assert single > 0.3
    assert rest.norm() / weight.norm() < 1e-3


def test_factors_do_not_depend_on_the_random_state() -> None:
    weight = kernel(4, 3, 5, 5)
    torch.manual_seed(1)
    first, state = alternate(weight, 2), torch.random.get_rng_state()
    torch.manual_seed(2)
    second = alternate(weight, 2)
    assert all(torch.equal(first[b].product, second[b].product) for b in BRANCHES)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


@given(conv_specs(ranks=(2,), dtypes=(torch.float64,)), st.sampled_from([1, 2]), st.sampled_from(["als", "svd"]))
def test_full_rank_is_the_kernel_again_whatever_the_window(spec: ConvSpec, branches: int, method: str) -> None:
    """Through the layer, borders included, against the naive dense convolution."""
    op, (x, weight, bias) = op_of(spec), spec.tensors()
    new = separate(op, full_rank(op), branches, Carry("separable", method), cheaper=False)
    carried = carry_over(op, new, weight, bias)
    assert carried.error < 1e-13
    layer = layer_of(new, op, dtype=torch.float64)
    assert layer.load_state_dict(carried.state, strict=True)
    want = naive_conv(x, weight, bias, **spec.numbers)
    torch.testing.assert_close(layer(x), want, rtol=1e-10, atol=1e-10)
    for name in ("span", "stride", "padding"):
        assert getattr(new.window, name) == getattr(op.window, name)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}), strict=True)
    torch.testing.assert_close(layer(x), want, rtol=1e-10, atol=1e-10)


DILATED_TAP = ConvSpec((1, 1), (1, 1), (2, 1), ((1, 0), (0, 0)), 1, 1, 1, False, torch.float64, 1, (1, 1), 0)
"""A single tap, off the middle, with a rate that means nothing."""


@example(DILATED_TAP, 1, 1)
@given(conv_specs(ranks=(2,), dtypes=(torch.float64,)), st.integers(1, 3), st.sampled_from([1, 2]))
def test_the_stated_error_is_that_of_the_impulse_response(spec: ConvSpec, mid: int, branches: int) -> None:
    """The kernel that the parameters compute, read off the layer: one impulse for each tap and input channel."""
    op, (_, weight, bias) = op_of(spec), spec.tensors()
    new = separate(op, mid * op.groups, branches, Carry("separable", "als"), cheaper=False)
    carried = carry_over(op, new, weight, bias)
    layer = layer_of(new, op, dtype=torch.float64)
    layer.load_state_dict(carried.state)
    dense = impulses(layer, op)
    stated = CARRIERS["separable"].kernel(op, new, carried.state)
    torch.testing.assert_close(dense, stated, rtol=1e-10, atol=1e-10)
    off = (dense - weight).norm() / weight.norm()
    assert carried.error == pytest.approx(float(off), abs=1e-10)
    assert carried.bound >= carried.error


@torch.no_grad()
def impulses(layer: torch.nn.Module, op: Conv) -> Tensor:
    """The dense kernel of a linear layer, without its bias, at the first output whose window lies inside the input."""
    per_group, out_group = op.in_channels // op.groups, op.out_channels // op.groups
    place = [-(-lo // s) for lo, s in zip(op.window.lo, op.stride)]
    sizes = [i * s + span for i, s, span in zip(place, op.stride, op.window.span)]
    nothing = layer(torch.zeros(1, op.in_channels, *sizes, dtype=torch.float64))
    found = torch.zeros(op.out_channels, per_group, *op.kernel, dtype=torch.float64)
    for c, y, x in product(range(op.in_channels), range(op.kernel[0]), range(op.kernel[1])):
        image = torch.zeros(1, op.in_channels, *sizes, dtype=torch.float64)
        taps = (y, x)
        at = [i * s - lo + t * d for i, s, lo, t, d in zip(place, op.stride, op.window.lo, taps, op.dilation)]
        image[0, c, at[0], at[1]] = 1
        answer = (layer(image) - nothing)[0, :, place[0], place[1]]
        group = c // per_group
        rows = slice(group * out_group, (group + 1) * out_group)
        found[rows, c % per_group, y, x] = answer[rows]
    return found


def test_a_branch_that_adds_nothing_can_still_learn() -> None:
    """At full rank of the first the second computes zeros, but gradients reach it: its inner factor is not zero."""
    op = op_of(next_spec := _spec())
    new = separate(op, full_rank(op), 2, Carry("separable", "als"), cheaper=False)
    _, weight, bias = next_spec.tensors()
    state = carry_over(op, new, weight, bias).state
    idle = next(b for b in BRANCHES if state[f"{b}.1.weight"].norm() < 1e-8)
    assert state[f"{idle}.0.weight"].norm() > 1e-2


def _spec() -> ConvSpec:
    return ConvSpec((5, 5), (1, 1), (1, 1), ((2, 2), (2, 2)), 1, 4, 4, True, torch.float64, 1, (9, 9), 0)


def test_energy_is_the_fewest_channels_that_keep_it() -> None:
    spec = _spec()
    op, (_, weight, _) = op_of(spec), spec.tensors()
    values = np.linalg.svd(matrix(weight.numpy(), "left"), compute_uv=False) ** 2
    for share in (0.3, 0.8, 0.99, 1.0):
        new = separate(op, 1, 1, Carry("separable", "svd", share), cheaper=False)
        mid = settled(op, new, weight).convs["left.0"].out_channels
        assert values[:mid].sum() >= share * values.sum() - 1e-9
        assert mid == 1 or values[: mid - 1].sum() < share * values.sum()


@pytest.mark.parametrize(("kernel_size", "fits"), [((7, 9), True), ((5, 5), True), ((6, 7), False), ((3, 5), False)])
def test_enlarging_keeps_the_function(kernel_size: tuple[int, int], fits: bool) -> None:
    spec = _spec()
    op, (x, weight, bias) = op_of(spec), spec.tensors()
    larger = enlarged(op, kernel_size)
    assert (larger is not None) == fits
    if larger is not None:
        new: Assembly = separate(larger, full_rank(op), 1, Carry("separable", "svd"), cheaper=False)
        layer = layer_of(new, op, dtype=torch.float64)
        layer.load_state_dict({"weight": weight, "bias": bias}, strict=True)
        want = naive_conv(x, weight, bias, **spec.numbers)
        torch.testing.assert_close(layer(x), want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0831, 0.084), (0.083, 0.083), (0.0, 0.0), (1.01, 1.1), (9.99, 10.0), (0.00995, 0.01), (1e-10, 1e-10)],
)
def test_bounds_are_rounded_up(value: float, shown: float) -> None:
    assert round_up(value) == pytest.approx(shown, rel=1e-12)
    assert round_up(value) >= value
