"""Partial convolution among torch's features: autograd, transforms, autocast, modes, fx, compile, export."""

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
from padrewrite.ops.arguments import read_window
from padrewrite.ops.partial import border_form, partial_conv


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype)


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
@pytest.mark.parametrize("numbers", [{"padding": 1}, {"padding": ((2, 1), (0, 3)), "stride": 2, "dilation": 2}])
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
def test_compilers_are_told_to_store_the_ratio_and_exporters_are_not() -> None:
    layer, x, graphs = Layer(padding=1), draw(2, 3, 8, 9), []

    def backend(module: fx.GraphModule, example_inputs: Any) -> Any:
        graphs.append(module.graph)
        return module.forward

    assert torch.equal(torch.compile(layer, backend=backend, fullgraph=True)(x), layer(x))
    assert [node.target for node in graphs[0].nodes].count(torch.as_strided) == 1
    for strict in (True, False):
        graph = torch.export.export(layer, (x,), strict=strict).graph
        assert torch.ops.aten.as_strided.default not in [node.target for node in graph.nodes]


@pytest.mark.compile
def test_compiled_transforms_of_the_mask_form() -> None:
    xs, weight, bias, masks = draw(3, 2, 6, 7), draw(4, 2, 3, 3), draw(4), torch.rand(3, 1, 6, 7) < 0.5

    def masked(x: Tensor, mask: Tensor) -> Any:
        return partial_conv(x, weight, bias, 1, 1, mask=mask)

    compiled = torch.compile(torch.func.vmap(masked), backend="aot_eager", fullgraph=True)
    for got, want in zip(compiled(xs, masks), masked(xs, masks), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


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
