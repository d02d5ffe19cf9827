"""Partial convolution: its exact semantics, and what the functional form promises around them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.overrides import TorchFunctionMode

from padrewrite.checks.naive import naive_conv
from padrewrite.ops.partial import border_form, partial_conv, read_window

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
def test_uniform_kernel_is_an_average_over_valid_pixels(
    rank: int, kernel: int, stride: int, padding: int
) -> None:
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


# No state


def test_no_call_changes_the_next() -> None:
    """Masked, other sizes, other dtypes, inference mode, then training: each as if it were the first."""
    x, weight, bias = draw(2, 3, 8, 9), draw(4, 3, 3, 3), draw(4)
    first = partial_conv(x, weight, bias, 1, 1)
    partial_conv(x, weight, bias, 1, 1, mask=torch.rand(2, 1, 8, 9) < 0.5)
    partial_conv(x[..., :5, :5], weight, bias, 1, 1)
    for dtype in (torch.bfloat16, torch.float32):
        assert partial_conv(x.to(dtype), weight.to(dtype), bias.to(dtype), 1, 1).dtype == dtype
    with torch.inference_mode():
        partial_conv(x, weight, bias, 1, 1)
    leaf = x.clone().requires_grad_()
    again = partial_conv(leaf, weight, bias, 1, 1)
    again.sum().backward()
    assert torch.equal(again, first)


def test_two_runs_give_the_same_bits() -> None:
    def run() -> tuple[Tensor, ...]:
        x, weight = (t.requires_grad_() for t in (draw(2, 3, 16, 17), draw(4, 3, 5, 5)))
        out = partial_conv(x, weight, None, 1, 2)
        return out, *torch.autograd.grad(out.square().sum(), (x, weight))

    torch.manual_seed(1)
    first = run()
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_backward_saves_nothing_of_the_size_of_a_feature_map() -> None:
    def saved(call: Any, *tensors: Tensor) -> list[torch.Size]:
        shapes: list[tuple[int, torch.Size]] = []

        def pack(t: Tensor) -> Tensor:
            shapes.append((t.untyped_storage().data_ptr(), t.shape))
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            call(*tensors)
        given = {t.untyped_storage().data_ptr() for t in tensors}
        return [shape for pointer, shape in shapes if pointer not in given]

    x, weight, bias = (t.requires_grad_() for t in (draw(4, 8, 20, 22), draw(8, 8, 3, 3), draw(8)))
    assert saved(lambda *t: F.conv2d(*t, 1, 1), x, weight, bias) == []
    for dilation in (1, 2):
        extra = saved(lambda *t, d=dilation: partial_conv(*t, 1, d, d), x, weight, bias)
        assert all(shape == (20, 22) for shape in extra), extra


# Around it


@pytest.mark.parametrize("padding", [0, (0, 0), "valid", ((0, 0), (0, 0))])
@pytest.mark.parametrize("outer", [None, ((0, 0), (0, 0))])
def test_unpadded_is_the_plain_call(padding: Any, outer: Any) -> None:
    x, weight, bias = draw(2, 3, 8, 9), draw(4, 3, 3, 3), draw(4)
    assert torch.equal(partial_conv(x, weight, bias, 2, padding, outer=outer), F.conv2d(x, weight, bias, 2))
    nodes = proxied(padding=0)[1]
    assert [node.target for node in nodes] == [torch.conv2d]


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_and_their_gradients(dilation: int, masked: bool) -> None:
    leaves = tuple(t.requires_grad_() for t in (draw(1, 2, 3, 3), draw(2, 1, 3, 2), draw(2)))
    mask = torch.rand(1, 1, 3, 3) < 0.6

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        out: Any = partial_conv(x, weight, bias, 1, (2, 1), dilation, 2, mask=mask if masked else None)
        return out[0] if masked else out

    assert torch.autograd.gradcheck(call, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def test_function_transforms() -> None:
    xs, weight, bias = draw(3, 2, 6, 7), draw(4, 2, 3, 3), draw(4)

    def loss(weight: Tensor, x: Tensor) -> Any:
        return partial_conv(x, weight, bias, 1, 1).square().sum()  # type: ignore[union-attr]

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, xs)
    one_by_one = torch.stack([torch.func.grad(loss)(weight, x) for x in xs])
    torch.testing.assert_close(per_sample, one_by_one, rtol=1e-12, atol=1e-12)

    def masked(x: Tensor, mask: Tensor) -> Any:
        return partial_conv(x, weight, bias, 1, 1, mask=mask)

    masks = torch.rand(3, 1, 6, 7) < 0.5
    out, new_masks = torch.func.vmap(masked)(xs, masks)
    want, want_masks = masked(xs, masks)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)
    assert torch.equal(new_masks, want_masks)


def test_jvp_is_linear_in_the_input() -> None:
    """Forward mode once came back as silent zeros from an opaque operator."""
    x, tangent, weight, bias = draw(2, 2, 6, 7), draw(2, 2, 6, 7), draw(4, 2, 3, 3), draw(4)
    _, got = torch.func.jvp(lambda t: partial_conv(t, weight, bias, 1, 1), (x,), (tangent,))
    torch.testing.assert_close(got, partial_conv(tangent, weight, None, 1, 1), rtol=1e-12, atol=1e-12)
    assert got.abs().min() > 0


def test_autocast_convolves_low_and_scales_in_float32() -> None:
    x, weight, bias = (draw(*s, dtype=torch.float32) for s in ((2, 3, 8, 9), (4, 3, 5, 5), (4,)))
    with torch.autocast("cpu", torch.bfloat16):
        got = partial_conv(x, weight, bias, 1, 2)
        plain = F.conv2d(x, weight, None, 1, 2)
        masked, _ = partial_conv(x, weight, bias, 1, 2, mask=torch.ones(1, 1, 8, 9))
    assert isinstance(got, Tensor)
    assert got.dtype == plain.dtype == masked.dtype == torch.bfloat16
    ones = naive_conv(torch.ones(1, 1, 8, 9), torch.ones(1, 1, 5, 5), padding=((2, 2), (2, 2)))
    want = (plain.double() * 25 / ones + bias.double().reshape(-1, 1, 1)).float().bfloat16()  # type: ignore[operator]
    assert torch.equal(got, want)
    assert torch.equal(masked, want)


def test_memory_format_survives() -> None:
    x = draw(2, 8, 8, 9, dtype=torch.float32).to(memory_format=torch.channels_last)
    weight, bias = draw(8, 8, 3, 3, dtype=torch.float32), draw(8, dtype=torch.float32)
    weight = weight.to(memory_format=torch.channels_last)
    mask = torch.rand(2, 1, 8, 9) < 0.5
    for numbers in ({"padding": 1}, {"padding": 2, "dilation": 2}):
        for given in (bias, None):
            plain: Any = partial_conv(x, weight, given, **numbers)
            masked, _ = partial_conv(x, weight, given, **numbers, mask=mask)
            for out in (plain, masked):
                assert out.is_contiguous(memory_format=torch.channels_last), numbers


def test_meta_tensors() -> None:
    x, weight, bias = (draw(*s).to("meta") for s in ((2, 3, 8, 9), (4, 3, 3, 3), (4,)))
    out = partial_conv(x, weight, bias, 2, 1)
    assert isinstance(out, Tensor)
    assert (out.device.type, out.shape) == ("meta", (2, 4, 4, 5))
    out, new_mask = partial_conv(x, weight, bias, 2, 1, mask=torch.ones(2, 1, 8, 9, device="meta"))
    assert (out.shape, new_mask.shape) == ((2, 4, 4, 5), (2, 1, 4, 5))


class Recorder(TorchFunctionMode):
    """Keeps what it is asked to run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append((func, args, kwargs))
        return func(*args, **(kwargs or {}))


def test_a_function_mode_sees_one_call_with_every_argument() -> None:
    x, weight, bias = draw(2, 4, 8, 9), draw(4, 2, 3, 3), draw(4)
    with Recorder() as recorder:
        out = partial_conv(x, weight, bias, 2, 1, groups=2, scale="sqrt")
    ((func, args, kwargs),) = recorder.calls
    assert func is partial_conv
    assert torch.equal(func(*args, **kwargs), out)


def test_default_device_does_not_leak_in() -> None:
    x, weight, bias, mask = draw(2, 3, 8, 9), draw(4, 3, 3, 3), draw(4), torch.ones(1, 1, 8, 9)
    with torch.device("meta"):
        out = partial_conv(x, weight, bias, 1, 1)
        masked, _ = partial_conv(x, weight, bias, 1, 1, mask=mask)
    assert torch.equal(out, partial_conv(x, weight, bias, 1, 1))
    assert masked.device.type == "cpu"


def proxied(dtype: torch.dtype = torch.float64, **numbers: Any) -> tuple[fx.GraphModule, list[fx.Node]]:
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    x, weight, bias = (fx.Proxy(graph.placeholder(name), tracer) for name in ("x", "weight", "bias"))
    window = read_window((3, 3), numbers.get("stride", 1), numbers["padding"], numbers.get("dilation", 1))
    graph.output(border_form(x, weight, bias, window, dtype=dtype).node)
    calls = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    return fx.GraphModule(torch.nn.Module(), graph), calls


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "numbers", [{"padding": 1}, {"padding": ((2, 1), (0, 3)), "stride": 2, "dilation": 2}]
)
def test_proxies_become_plain_torch_calls(dtype: torch.dtype, numbers: dict[str, Any]) -> None:
    module, calls = proxied(dtype, **numbers)
    assert {node.op for node in calls} == {"call_function"}
    assert not any(node.target is partial_conv for node in calls)
    for size in ((8, 9), (5, 12)):
        x, weight, bias = (draw(*s, dtype=dtype) for s in ((2, 3, *size), (4, 3, 3, 3), (4,)))
        assert torch.equal(module(x, weight, bias), partial_conv(x, weight, bias, **numbers))


# Compiled and exported


class Layer(torch.nn.Module):
    def __init__(self, **numbers: Any) -> None:
        super().__init__()
        self.weight, self.bias = (torch.nn.Parameter(draw(*s)) for s in ((4, 3, 3, 3), (4,)))
        self.numbers = numbers

    def forward(self, x: Tensor) -> Any:
        return partial_conv(x, self.weight, self.bias, **self.numbers)


NUMBERS = [
    {"padding": 1},
    {"padding": 1, "stride": 2},
    {"padding": ((1, 4), (0, 3)), "stride": 3, "dilation": 2},
]


@pytest.mark.compile
@pytest.mark.parametrize("numbers", NUMBERS)
def test_one_dynamic_graph_serves_32_sizes(numbers: dict[str, Any]) -> None:
    counter, layer = CompileCounter(), Layer(**numbers)
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=True)
    for height, width in itertools.product(range(8, 16), range(9, 13)):
        x = draw(2, 3, height, width)
        assert torch.equal(compiled(x), layer(x))
    assert counter.frame_count == 1


@pytest.mark.compile
def test_repeated_new_sizes_cost_no_more_compilations_than_a_plain_convolution() -> None:
    def compilations(call: Any) -> int:
        torch._dynamo.reset()
        counter, weight = CompileCounter(), draw(4, 3, 3, 3)
        compiled = torch.compile(lambda x: call(x, weight, None, 1, 1), backend=counter, fullgraph=True)
        for n in range(32):
            compiled(draw(2, 3, 8 + n, 9 + n // 2))
        return counter.frame_count

    assert compilations(partial_conv) <= compilations(F.conv2d) + 1


@pytest.mark.compile
def test_one_graph_serves_every_size_of_an_earlier_pad() -> None:
    """Symbolic ``outer``, as a TensorFlow-like "same" computes it from the input's size."""

    def call(x: Tensor, weight: Tensor) -> Any:
        total = (-x.shape[-1]) % 4 + 1
        padded = F.pad(x, (total // 2, total - total // 2))
        return partial_conv(padded, weight, None, 2, 0, outer=((total // 2, total - total // 2),))

    counter, weight = CompileCounter(), draw(4, 3, 5)
    compiled = torch.compile(call, backend=counter, fullgraph=True, dynamic=True)
    for n in range(8, 24):
        x = draw(2, 3, n)
        total = -n % 4 + 1
        pair = (total // 2, total - total // 2)
        want = naive_conv(x, weight, stride=(2,), padding=(pair,), partial="mean")
        torch.testing.assert_close(compiled(x, weight), want, rtol=1e-12, atol=1e-12)
    assert counter.frame_count == 1


@pytest.mark.compile
@pytest.mark.parametrize("mode", [None, Recorder])
def test_whole_graph_with_a_mask_and_under_a_mode(mode: Any) -> None:
    x, weight, bias, mask = draw(2, 3, 8, 9), draw(4, 3, 3, 3), draw(4), torch.rand(2, 1, 8, 9) < 0.5

    def call(x: Tensor, mask: Tensor) -> Any:
        return partial_conv(x, weight, bias, 1, 1, mask=mask)

    compiled = torch.compile(call, backend="eager", fullgraph=True)
    with torch.device("cpu") if mode is None else mode():
        got = compiled(x, mask)
    assert all(torch.equal(a, b) for a, b in zip(got, call(x, mask), strict=True))


@pytest.mark.compile
@pytest.mark.parametrize("numbers", NUMBERS)
def test_inductor_computes_the_same(numbers: dict[str, Any]) -> None:
    layer = Layer(**numbers)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for size in ((8, 9), (13, 11)):
        x = draw(2, 3, *size)
        torch.testing.assert_close(compiled(x), layer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.compile
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("numbers", NUMBERS)
def test_exported_at_one_size_runs_at_another(strict: bool, numbers: dict[str, Any]) -> None:
    layer, dim = Layer(**numbers), torch.export.Dim
    shapes = ({0: dim("n"), 2: dim("h", min=8), 3: dim("w", min=8)},)
    partial_conv(draw(2, 3, 9, 10), layer.weight, layer.bias, **numbers)
    exported = torch.export.export(layer, (draw(2, 3, 9, 10),), dynamic_shapes=shapes, strict=strict).module()
    for x in (draw(7, 3, 14, 11), draw(1, 3, 8, 21)):
        torch.testing.assert_close(exported(x), layer(x), rtol=1e-12, atol=1e-12)


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
