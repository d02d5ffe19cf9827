"""Partial convolution: what it computes, exactly, and its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from padrewrite.checks.naive import naive_conv
from padrewrite.ops.partial import partial_conv

from .channel_errors import CHANNEL_ERRORS

CONVS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
AVG_POOLS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype)


# What the operation computes


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("scale", ["mean", "sqrt"])
def test_interior_is_the_zero_padded_convolution_bit_for_bit(rank: int, scale: str) -> None:
    x, weight = draw(2, 3, *(9, 8, 7)[:rank]), draw(4, 3, *(3, 5, 3)[:rank])
    padding = (1, 2, 1)[:rank]
    inside = (..., *(slice(p, -p) for p in padding))
    got = partial_conv(x, weight, None, 1, padding, scale=scale)
    plain = CONVS[rank](x, weight, None, 1, padding)
    assert torch.equal(got[inside], plain[inside])
    assert not torch.isclose(got, plain).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (5, 2, 2), (4, 3, 1), (2, 1, 1)])
def test_uniform_kernel_is_an_average_over_valid_pixels(rank: int, kernel: int, stride: int, padding: int) -> None:
    x, bias = draw(2, 3, *(9, 8, 7)[:rank]), draw(1)
    weight = torch.full((1, 3, *(kernel,) * rank), 0.7, dtype=torch.float64)
    mean = AVG_POOLS[rank](x, kernel, stride, padding, count_include_pad=False).sum(1, keepdim=True)
    got = partial_conv(x, weight, bias, stride, padding)
    torch.testing.assert_close(got, mean * kernel**rank * 0.7 + bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", ["mean", "sqrt"])
def test_separable_kernel_is_a_column_then_a_row(scale: str) -> None:
    x, column, row = draw(2, 1, 9, 8), draw(1, 1, 5, 1), draw(1, 1, 1, 3)
    both = partial_conv(x, column * row, None, 1, (2, 1), scale=scale)
    after_column = partial_conv(x, column, None, 1, (2, 0), scale=scale)
    torch.testing.assert_close(
        both, partial_conv(after_column, row, None, 1, (0, 1), scale=scale), rtol=1e-12, atol=1e-12
    )


def test_constants_survive_only_uniform_kernels() -> None:
    x = torch.ones(1, 1, 6, 6, dtype=torch.float64)
    uniform, sloped = torch.ones(1, 1, 3, 3), torch.arange(9.0).reshape(1, 1, 3, 3)
    kept = partial_conv(x, uniform.double(), None, 1, 1)
    torch.testing.assert_close(kept, torch.full_like(kept, 9), rtol=1e-12, atol=0)
    changed = partial_conv(x, sloped.double(), None, 1, 1)
    assert (changed[..., 0, :] - changed[..., 3, 3]).abs().min() > 1


@pytest.mark.parametrize(("scale", "edge", "corner"), [("sqrt", 1.0, 1.0), ("mean", 1.5**0.5, 1.5)])
def test_gain_of_the_standard_deviation_at_the_border(scale: str, edge: float, corner: float) -> None:
    """For white noise: the norm of the gradient of one output. Weights of equal size make it exact."""
    weight = torch.where(draw(1, 4, 3, 3) > 0, 1.0, -1.0).double()

    def norm(row: int, column: int) -> Tensor:
        x = draw(1, 4, 5, 5).requires_grad_()
        out: Any = partial_conv(x, weight, None, 1, 1, scale=scale)
        (gradient,) = torch.autograd.grad(out[0, 0, row, column], x)
        return gradient.norm()

    assert norm(0, 2) / norm(2, 2) == pytest.approx(edge, rel=1e-12)
    assert norm(0, 0) / norm(2, 2) == pytest.approx(corner, rel=1e-12)


@pytest.mark.parametrize(("padding", "valid"), [(1, [False]), (2, [True, False, True])])
def test_dilated_window_around_a_single_pixel_sees_nothing(padding: int, valid: list[bool]) -> None:
    weight, bias = draw(3, 2, 2), draw(3)
    out = partial_conv(draw(1, 2, 1), weight, bias, 1, padding, 2)
    for position, seen in enumerate(valid):
        assert bool((out[0, :, position] != 0).all()) is seen
        assert bool((out[0, :, position] == 0).any()) is not seen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_empty_windows_give_zero_and_never_nan(dtype: torch.dtype) -> None:
    x, weight, bias = draw(1, 2, 3, 3, dtype=dtype), draw(2, 2, 3, 3, dtype=dtype), draw(2, dtype=dtype)
    for leaf in (x, weight, bias):
        leaf.requires_grad_()
    out = partial_conv(x, weight, bias, 1, 5)
    out.float().sum().backward()
    assert not out.isnan().any()
    assert (out[..., :3, :] == 0).all()
    assert (out[..., 5, 5] != 0).all()
    assert all(leaf.grad is not None and not leaf.grad.isnan().any() for leaf in (x, weight, bias))


def test_counts_are_exact_on_an_axis_longer_than_float32_counts() -> None:
    x, weight = torch.ones(1, 1, 2**24 + 5), torch.ones(1, 1, 5)
    out = partial_conv(x, weight, None, 1, 4, 2)
    assert torch.equal(out, torch.full_like(out, 5.0))


@pytest.mark.parametrize(("kernel", "dilation"), [(2, 1), (3, 2), (4, 1), (2, 3)])
def test_same_padding_puts_the_odd_pixel_last(kernel: int, dilation: int) -> None:
    x, weight = draw(1, 1, 7), draw(1, 1, kernel)
    total = dilation * (kernel - 1)
    pair = (total // 2, total - total // 2)
    got = partial_conv(x, weight, None, 1, "same", dilation)
    assert got.shape == F.conv1d(x, weight, None, 1, "same", dilation).shape
    want = naive_conv(x, weight, dilation=(dilation,), padding=(pair,), partial="mean")
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_all_spellings_of_padding_agree() -> None:
    x, weight = draw(1, 1, 5, 6), draw(1, 1, 3, 3)
    want = partial_conv(x, weight, None, 1, 1)
    for padding in ((1,), (1, 1), [1, 1], ((1, 1), (1, 1)), [(1, 1), [1, 1]], "same"):
        assert torch.equal(partial_conv(x, weight, None, 1, padding), want)  # type: ignore[arg-type]
    assert torch.equal(partial_conv(x, weight, None, 1, "valid"), F.conv2d(x, weight))


def test_unbatched_input() -> None:
    x, weight, bias = draw(2, 6, 7), draw(3, 2, 3, 3), draw(3)
    assert torch.equal(partial_conv(x, weight, bias, 1, 1), partial_conv(x[None], weight, bias, 1, 1)[0])
    mask = torch.rand(1, 6, 7) < 0.5
    out, new_mask = partial_conv(x, weight, bias, 1, 1, mask=mask)
    batched = partial_conv(x[None], weight, bias, 1, 1, mask=mask[None])
    assert torch.equal(out, batched[0][0])
    assert torch.equal(new_mask, batched[1][0])


# The mask form


def test_mask_hides_whatever_is_under_it() -> None:
    x, weight, bias = draw(2, 3, 8, 9), draw(4, 3, 3, 3), draw(4)
    mask = torch.rand(2, 1, 8, 9) < 0.5
    clean = partial_conv(x, weight, bias, 1, 1, mask=mask)
    spoilt = partial_conv(torch.where(mask, x, torch.nan), weight, bias, 1, 1, mask=mask)
    assert torch.equal(clean[0], spoilt[0])
    assert torch.equal(clean[1], spoilt[1])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32])
def test_mask_of_any_dtype_comes_back_in_it(dtype: torch.dtype) -> None:
    x, weight = draw(2, 3, 8, 9), draw(4, 3, 3, 3)
    mask = torch.rand(2, 1, 8, 9) < 0.2
    want = partial_conv(x, weight, None, 2, 1, mask=mask)
    got = partial_conv(x, weight, None, 2, 1, mask=mask.to(dtype))
    assert got[1].dtype == dtype
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1].to(dtype))


def test_full_mask_is_the_border_form() -> None:
    x, weight, bias = draw(2, 3, 8, 9), draw(4, 3, 3, 3), draw(4)
    got, new_mask = partial_conv(x, weight, bias, 1, 2, 2, mask=torch.ones(1, 1, 8, 9))
    torch.testing.assert_close(got, partial_conv(x, weight, bias, 1, 2, 2), rtol=1e-12, atol=1e-12)
    assert new_mask.shape == (1, 1, 8, 9)
    assert new_mask.all()


def test_hole_larger_than_the_window_stays_without_bias() -> None:
    x, weight, bias = draw(1, 2, 9, 9), draw(2, 2, 3, 3), draw(2)
    mask = torch.ones(1, 1, 9, 9)
    mask[..., 2:7, 2:7] = 0
    out, new_mask = partial_conv(x, weight, bias, 1, 1, mask=mask)
    hole = torch.zeros(9, 9, dtype=torch.bool)
    hole[3:6, 3:6] = True
    assert torch.equal(new_mask[0, 0] == 0, hole)
    assert (out[..., hole] == 0).all()
    assert (out[..., ~hole] != 0).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_never_change_the_count(groups: int) -> None:
    """A one-channel mask convolved per group with all its channels counts each pixel several times."""
    x = draw(2, 4, 8, 9)
    weight, mask = draw(8, 4 // groups, 3, 3), torch.rand(2, 1, 8, 9) < 0.4
    out, new_mask = partial_conv(x, weight, None, 1, 1, groups=groups, mask=mask)
    _, reference = partial_conv(x, draw(8, 4, 3, 3), None, 1, 1, mask=mask)
    dense = torch.block_diag(*(w.reshape(8 // groups, -1) for w in weight.chunk(groups))).reshape(8, 4, 3, 3)
    want, _ = partial_conv(x, dense, None, 1, 1, mask=mask)
    assert torch.equal(new_mask, reference)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)


def test_mask_over_an_already_padded_input() -> None:
    x, weight, bias = draw(2, 3, 8, 9), draw(4, 3, 3, 3), draw(4)
    mask = torch.rand(2, 1, 8, 9) < 0.5
    want = partial_conv(x, weight, bias, 1, ((1, 2), (3, 0)), mask=mask)
    outer = ((1, 2), (3, 0))
    # The earlier pad of the mask may hold anything.
    wide_mask = F.pad(mask, (3, 0, 1, 2), value=True)
    got = partial_conv(F.pad(x, (3, 0, 1, 2)), weight, bias, mask=wide_mask, outer=outer)
    assert torch.equal(got[1], want[1])
    torch.testing.assert_close(got[0], want[0], rtol=1e-12, atol=1e-12)


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "max"}, r"scale='max' is unknown; choose one of 'mean', 'sqrt'"),
        ({"padding": -1}, r"padding=-1 must be at least 0; crop the input beforehand"),
        ({"padding": ((0, -2), (0, 0))}, r"padding=\[-2, 0\] must be at least 0"),
        ({"padding": (1, 1, 1)}, r"padding=\(1, 1, 1\) has 3 entries for 2 axes; give 1 or 2"),
        ({"padding": ((1, 1), 1)}, r"give 2 \(lo, hi\) pairs"),
        ({"padding": "reflect"}, r"padding='reflect' is unknown; give 'same', 'valid' or numbers"),
        ({"padding": "same", "stride": 2}, r"padding='same' does not go with stride \(2, 2\); give numbers"),
        ({"stride": 0}, r"stride=0 must be at least 1; give positive numbers"),
        ({"dilation": (1, 2, 3)}, r"dilation=\(1, 2, 3\) has 3 entries"),
        ({"weight": torch.ones(4, 3)}, r"weight has 2 axes; give \(out, in / groups, \*kernel\)"),
        ({"outer": ((1, 1),)}, r"outer=\(\(1, 1\),\): give 2 \(lo, hi\) pairs"),
        ({"mask": torch.ones(2, 3, 8, 9)}, r"mask has shape \(2, 3, 8, 9\) .* give \(2, 1, 8, 9\)"),
        ({"mask": torch.ones(3, 1, 8, 9)}, r"mask has shape \(3, 1, 8, 9\)"),
        ({"mask": torch.ones(2, 1, 8, 8)}, r"mask has shape \(2, 1, 8, 8\)"),
        ({"mask": torch.ones(8, 9)}, r"mask has shape \(8, 9\)"),
    ],
)
def test_errors_name_the_argument_and_the_fix(change: dict[str, Any], message: str) -> None:
    given = {"x": torch.ones(2, 3, 8, 9), "weight": torch.ones(4, 3, 3, 3), "padding": 1, **change}
    with pytest.raises(ValueError, match=message):
        partial_conv(**given)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("shapes", "groups", "message"), CHANNEL_ERRORS)
def test_channels_that_do_not_fit_are_named(shapes: Any, groups: int, message: str, masked: bool) -> None:
    x, weight = (torch.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        partial_conv(x, weight, padding=1, groups=groups, mask=torch.ones_like(x) if masked else None)
