"""Symmetric convolution: what it computes, exactly; its formulations; its place among torch's features."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from padrewrite.fuzzing.counting import Dispatched
from padrewrite.ops.directions import Symmetry, directions, symmetric_padding
from padrewrite.ops.symmetric import FORMULATIONS, symmetric_conv
from padrewrite.ops.window import Window

from .channel_errors import CHANNEL_ERRORS

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


# The paper's layout


def test_four_groups_are_padded_as_the_paper_pads_them() -> None:
    """Bottom right, top left, bottom left, top right: written out with torch's own calls."""
    x, weight = draw(2, 8, 5, 6), draw(3, 8, 2, 2)
    sides = [(0, 1, 0, 1), (1, 0, 1, 0), (1, 0, 0, 1), (0, 1, 1, 0)]  # left, right, top, bottom
    by_hand = torch.cat([F.pad(part, side) for part, side in zip(x.chunk(4, 1), sides)], 1)
    for order in ("balanced", "author"):
        torch.testing.assert_close(symmetric_conv(x, weight, order=order), F.conv2d(by_hand, weight), **EXACT)
    raster = [(1, 0, 1, 0), (0, 1, 1, 0), (1, 0, 0, 1), (0, 1, 0, 1)]
    by_hand = torch.cat([F.pad(part, side) for part, side in zip(x.chunk(4, 1), raster)], 1)
    torch.testing.assert_close(symmetric_conv(x, weight, order="raster"), F.conv2d(by_hand, weight), **EXACT)


@pytest.mark.parametrize(("channels", "sizes"), [(4, [1] * 4), (5, [2, 1, 1, 1]), (6, [2, 2, 1, 1]), (7, [2, 2, 2, 1])])
def test_channels_that_are_left_over(channels: int, sizes: list[int]) -> None:
    assert [b.channels for b in Symmetry("balanced", (0, 1)).blocks(channels, 2)] == sizes


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_opposite_directions_are_neighbours(axes: int) -> None:
    found = directions("balanced", axes)
    assert sorted(found) == sorted(directions("raster", axes))
    for first, second in zip(found[::2], found[1::2]):
        assert [a + b for a, b in zip(first, second)] == [1] * axes


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("channels", range(2, 20))
def test_the_mean_shift_is_zero_for_even_counts_and_least_for_odd_ones(axes: int, channels: int) -> None:
    """Over channels one by one: half a step each way along each axis."""
    blocks = Symmetry("balanced", tuple(range(axes))).blocks(channels, axes)
    for axis in range(axes):
        total = sum(b.channels * (Fraction(1, 2) if b.after[axis] else Fraction(-1, 2)) for b in blocks)
        assert abs(total) == (Fraction(1, 2) if channels % 2 else 0)
    assert sum(b.channels for b in blocks) == channels


def test_raster_leaves_a_shift_where_two_channels_are_left_over() -> None:
    assert Symmetry("raster", (0, 1)).before(6, 0) == Fraction(4, 6)
    assert Symmetry("balanced", (0, 1)).before(6, 0) == Fraction(1, 2)


# The identities


def embedded(weight: Tensor) -> Tensor:
    """Kernels of one more tap per axis, each in the corner of its quarter (8 input channels, 2-D, by hand)."""
    large = torch.zeros(weight.shape[0], 8, weight.shape[2] + 1, weight.shape[3] + 1, dtype=weight.dtype)
    h, w = weight.shape[2:]
    large[:, 0:2, 1:, 1:] = weight[:, 0:2]
    large[:, 2:4, :h, :w] = weight[:, 2:4]
    large[:, 4:6, 1:, :w] = weight[:, 4:6]
    large[:, 6:8, :h, 1:] = weight[:, 6:8]
    return large


@pytest.mark.parametrize("kernel", [2, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_it_is_the_embedded_convolution(kernel: int, stride: int, dilation: int) -> None:
    x, weight, bias = draw(2, 8, 11, 13), draw(3, 8, kernel, kernel), draw(3)
    want = F.conv2d(x, embedded(weight), bias, stride, dilation * kernel // 2, dilation)
    for formulation in FORMULATIONS:
        got = symmetric_conv(x, weight, bias, stride, dilation, formulation=formulation)
        torch.testing.assert_close(got, want, **EXACT)


def test_it_is_the_sum_of_cropped_convolutions() -> None:
    x, weight = draw(2, 8, 6, 7), draw(3, 8, 2, 2)
    full = [F.conv2d(x[:, c : c + 2], weight[:, c : c + 2], padding=1) for c in (0, 2, 4, 6)]
    want = full[0][..., 1:, 1:] + full[1][..., :-1, :-1] + full[2][..., 1:, :-1] + full[3][..., :-1, 1:]
    for formulation in FORMULATIONS:
        torch.testing.assert_close(symmetric_conv(x, weight, formulation=formulation), want, **EXACT)


@pytest.mark.parametrize("factor", [2, 3])
def test_dilated_by_a_factor_it_holds_the_old_values_on_a_grid(factor: int) -> None:
    """The identity that output strides are rewritten by: shifts scale with the rate."""
    x, weight, fine = draw(1, 8, 6, 7), draw(3, 8, 2, 2), draw(1, 8, 6 * factor, 7 * factor)
    fine[..., ::factor, ::factor] = x
    got = symmetric_conv(fine, weight, dilation=factor)[..., ::factor, ::factor]
    torch.testing.assert_close(got, symmetric_conv(x, weight), **EXACT)


def test_groups_are_balanced_each_by_itself() -> None:
    x, weight, bias = draw(2, 10, 5, 6), draw(6, 5, 2, 4), draw(6)
    pieces = zip(x.chunk(2, 1), weight.chunk(2), bias.chunk(2))
    parts = [symmetric_conv(*piece) for piece in pieces]
    torch.testing.assert_close(symmetric_conv(x, weight, bias, groups=2), torch.cat(parts, 1), **EXACT)


def test_odd_kernels_are_padded_as_ever() -> None:
    x, weight = draw(2, 3, 7, 8), draw(4, 3, 3, 5)
    torch.testing.assert_close(symmetric_conv(x, weight), F.conv2d(x, weight, padding=(1, 2)), **EXACT)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_mirrored_input_gives_a_mirrored_output(rank: int) -> None:
    """Where the kernels mirror each other as the directions do, nothing is left of a preferred side."""
    channels = 2**rank
    kernel, x = draw(1, 1, *(2,) * rank), draw(1, 1, *(5, 6, 4)[:rank])
    dims = tuple(range(2, 2 + rank))
    pairs = Symmetry("balanced", tuple(range(rank))).blocks(channels, rank)
    flips = [kernel.flip([d for d, side in zip(dims, block.after) if side]) for block in pairs]
    weight, same = torch.cat(flips, 1), x.expand(1, channels, *x.shape[2:])
    got, mirrored = symmetric_conv(same, weight), symmetric_conv(same.flip(dims), weight)
    torch.testing.assert_close(mirrored.flip(dims), got, **EXACT)


# Partial padding


def test_the_ratio_counts_both_shifts() -> None:
    """2k over the real taps of a window before and of one after, per axis: [2/1.5] at each end for k = 2."""
    ones, weight = torch.ones(1, 4, 4, 5, dtype=torch.float64), torch.ones(1, 4, 2, 2, dtype=torch.float64)
    plain, scaled = symmetric_conv(ones, weight), symmetric_conv(ones, weight, scale="mean")
    edge = torch.tensor([4 / 3] + [1.0] * 3, dtype=torch.float64)
    rows, columns = edge * edge[:1].new_ones(4), torch.cat([edge, edge[:1].new_ones(1)])
    rows[-1], columns[-1] = 4 / 3, 4 / 3
    torch.testing.assert_close(scaled / plain, torch.outer(rows, columns)[None, None], **EXACT)
    root = symmetric_conv(ones, weight, scale="sqrt")
    torch.testing.assert_close(root / plain, torch.outer(rows, columns).sqrt()[None, None], **EXACT)


def test_a_window_without_real_input_gives_zero_without_bias() -> None:
    out = symmetric_conv(draw(1, 4, 3, 3), draw(2, 4, 2, 2), draw(2), padding=3, scale="mean")
    assert (out[..., 0, :] == 0).all()
    assert (out[..., 2, 2] != 0).all()


# How new padding follows from the old


@pytest.mark.parametrize("kernel", [2, 4, 6])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("total", range(12))
def test_sizes_are_kept_and_outputs_sit_on_pixels(kernel: int, dilation: int, total: int) -> None:
    old = Window((kernel,), (1,), (dilation,), (total // 2,), (total - total // 2,))
    lo, hi = symmetric_padding(old, 0)
    around = Window((kernel + 1,), (1,), (dilation,), (lo,), (hi,))
    n = 40
    assert around.size(0, n) == old.size(0, n)
    offset = around.phase(0)[1]
    assert offset.denominator == 1
    middle = Fraction(n - old.size(0, n), 2)  # of a map of this size, centred in the input
    assert abs(offset - middle) < dilation
    assert abs(offset) <= abs(middle)


# Its place in torch


def test_it_is_one_convolution() -> None:
    for formulation, count in (("concat", 1), ("embedded", 1), ("crops", 4)):
        with Dispatched() as counter:
            symmetric_conv(draw(1, 8, 5, 5), draw(4, 8, 2, 2), formulation=formulation)
        assert counter.convolutions == count


def test_unbatched_input() -> None:
    x, weight = draw(6, 5, 7), draw(4, 3, 2, 3)
    for formulation in FORMULATIONS:
        got = symmetric_conv(x, weight, groups=2, formulation=formulation)
        torch.testing.assert_close(got, symmetric_conv(x[None], weight, groups=2)[0], **EXACT)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("scale", [None, "mean"])
def test_gradients_of_both_kinds(formulation: str, scale: str | None) -> None:
    leaves = tuple(t.requires_grad_() for t in (draw(1, 6, 3, 3), draw(2, 3, 2, 2), draw(2)))

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return symmetric_conv(x, weight, bias, groups=2, scale=scale, formulation=formulation)

    assert torch.autograd.gradcheck(call, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def test_function_transforms() -> None:
    xs, weight = draw(3, 5, 4, 6), draw(4, 5, 2, 2)

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        return symmetric_conv(x, weight, scale="mean").square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, xs)
    torch.testing.assert_close(per_sample, torch.stack([torch.func.grad(loss)(weight, x) for x in xs]), **EXACT)


@pytest.mark.compile
def test_function_transforms_are_compiled() -> None:
    """vmap has no memory formats, in which the compiled join is written."""
    x, weight = draw(3, 2, 4, 5, 6), draw(4, 4, 2, 2)
    call: Callable[[Tensor], Tensor] = lambda one: symmetric_conv(one, weight)  # noqa: E731
    torch._dynamo.reset()
    compiled = torch.compile(torch.func.vmap(call), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), torch.stack([call(one) for one in x]), rtol=0, atol=1e-12)


def test_it_is_one_call_for_who_overrides_torch_functions() -> None:
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    x, weight = (fx.Proxy(graph.placeholder(name), tracer) for name in ("x", "weight"))
    symmetric_conv(x, weight, order="raster")  # pyright: ignore[reportArgumentType]
    (node,) = [n for n in graph.nodes if n.op == "call_function"]
    assert node.target is symmetric_conv
    assert node.kwargs["order"] == "raster"


@pytest.mark.compile
@pytest.mark.parametrize("groups", [1, 2])
def test_compiled_as_one_graph_for_every_size(groups: int) -> None:
    weight, counter = draw(4, 6 // groups, 2, 3), CompileCounter()
    call: Callable[..., Tensor] = lambda x: symmetric_conv(x, weight, groups=groups, scale="mean")  # noqa: E731
    torch._dynamo.reset()
    compiled = torch.compile(call, backend=counter, fullgraph=True)
    for n in range(4, 12):
        x = draw(2, 6, n, n + 2)
        assert torch.equal(compiled(x), call(x))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.compile
def test_exported_for_every_size(strict: bool, groups: int) -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 6 // groups, 2, 2))

        def forward(self, x: Tensor) -> Tensor:
            return symmetric_conv(x, self.weight, groups=groups, scale="mean")

    layer, dim = Layer(), torch.export.Dim
    shapes = ({0: dim("n"), 2: dim("h", min=3), 3: dim("w", min=3)},)
    exported = torch.export.export(layer, (torch.randn(2, 6, 5, 6),), dynamic_shapes=shapes, strict=strict)
    x = torch.randn(3, 6, 9, 4)
    torch.testing.assert_close(exported.module()(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_is_that_of_the_input(dtype: torch.dtype) -> None:
    x, weight, bias = draw(1, 4, 5, 5).to(dtype), draw(2, 4, 2, 2).to(dtype), draw(2).to(dtype)
    assert symmetric_conv(x, weight, bias, scale="mean").dtype == dtype


@pytest.mark.compile
def test_compiled_for_any_size_and_number_of_channels() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, w: symmetric_conv(x, w, groups=2), backend="eager", fullgraph=True, dynamic=True)
    for channels, out, size in ((8, 4, 5), (8, 4, 9), (12, 6, 5)):
        x, weight = draw(2, channels, size, size), draw(out, channels // 2, 2, 2)
        assert torch.equal(compiled(x, weight), symmetric_conv(x, weight, groups=2))


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"order": "spiral"}, r"order='spiral' is unknown; choose one of 'balanced', 'author', 'raster'"),
    ({"axes": (1,)}, r"axes=\(1,\): the kernel \(2, 3\) is not even along \[1\], so it has a middle there"),
    ({"modes": ("zeros",)}, r"modes=\('zeros',\): give 2 of 'zeros'"),
    ({"padding": ((1, 1),)}, r"padding=\(\(1, 1\),\): give 2 \(lo, hi\) pairs"),
    ({"padding": "full"}, r"padding='full' is unknown"),
    ({"scale": "max"}, r"scale='max' is unknown; choose one of 'mean', 'sqrt'"),
    ({"formulation": "fft"}, r"formulation='fft' is unknown; choose one of 'concat', 'embedded', 'crops'"),
    ({"stride": (1, 1, 1)}, r"stride=\(1, 1, 1\) has 3 entries for 2 axes"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_errors_name_the_argument_and_the_fix(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        symmetric_conv(draw(1, 4, 5, 5), draw(2, 4, 2, 3), **options)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize(("shapes", "groups", "message"), CHANNEL_ERRORS)
def test_channels_that_do_not_fit_are_named(shapes: Any, groups: int, message: str, formulation: str) -> None:
    with pytest.raises(ValueError, match=message):
        symmetric_conv(draw(*shapes[0]), draw(*shapes[1]), groups=groups, formulation=formulation)
