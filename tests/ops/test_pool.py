"""Max and average pools: read from torch's calls, emitted as torch's calls, against torch itself and by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import windows_1d
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.checks.naive import naive_pool
from padrewrite.ops.pool import Pool, emit_pool, pool_family, read_pool
from padrewrite.ops.window import Window

TIGHT = {"rtol": 1e-12, "atol": 1e-12}
NEGATIVE = -3.0
"""Mean of the inputs: a zero that takes part in a maximum would show."""


def image(*sizes: int) -> Tensor:
    return torch.randn(2, 3, *sizes, dtype=torch.float64) + NEGATIVE


CALLS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "max 1-D": (F.max_pool1d, (3,), {}),
    "max 2-D": (F.max_pool2d, (3, 2, 1), {}),
    "max 2-D by name": (F.max_pool2d, (), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": 2}),
    "max 2-D, the function behind it": (torch.max_pool2d, ((3, 3), (2, 2), (1, 1)), {}),
    "max 2-D, stride left out": (torch.max_pool2d, ((2, 3), []), {}),
    "max 3-D, rounded up": (F.max_pool3d, (2,), {"stride": (2, 1, 2), "ceil_mode": True}),
    "mean 1-D": (F.avg_pool1d, (3, 2, 1), {}),
    "mean 2-D": (F.avg_pool2d, ((2, 3),), {}),
    "mean 2-D, padding left out": (F.avg_pool2d, (3, 2, 1, False, False), {}),
    "mean 2-D, rounded up": (F.avg_pool2d, (3, 2), {"ceil_mode": True}),
    "mean 3-D": (F.avg_pool3d, (3, 1, 1), {"count_include_pad": False}),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_read_is_emitted_alike(name: str) -> None:
    target, args, kwargs = CALLS[name]
    rank = int(name.split("-D")[0][-1])
    x = image(*(8, 7, 6)[:rank])
    read = read_pool(target, (x, *args), kwargs)
    assert read is not None
    assert read.x is x
    assert (read.op.average, read.op.window.rank) == (name.startswith("mean"), rank)
    assert torch.equal(emit_pool(x, read.op), target(x, *args, **kwargs))
    assert pool_family(target) == f"{'avg' if read.op.average else 'max'}_pool{rank}d"


def test_what_is_no_such_pool_is_not_read() -> None:
    x = image(6, 6)
    assert read_pool(F.max_pool2d, (x, 2), {"return_indices": True}) is None
    assert read_pool(F.avg_pool2d, (x, 2), {"divisor_override": 3}) is None
    assert read_pool(F.lp_pool2d, (x, 2, 2), {}) is None
    assert read_pool(F.adaptive_avg_pool2d, (x, 2), {}) is None
    assert pool_family(F.relu) is None


def test_the_fields_of_a_call() -> None:
    read = read_pool(F.avg_pool2d, (image(6, 6), (3, 2)), {"stride": (2, 1), "padding": (1, 0)})
    assert read is not None
    assert read.op == Pool(Window((3, 2), (2, 1), (1, 1), (1, 0), (1, 0)), average=True)
    assert read.op.spec() == {
        "kernel_size": (3, 2),
        "stride": (2, 1),
        "dilation": (1, 1),
        "padding": ((1, 1), (0, 0)),
        "pool": "avg",
        "transposed": False,
    }
    assert read.op.macs((6, 6)) == 0


def dilated_mean(x: Tensor, op: Pool) -> Tensor:
    """Depthwise convolution with ones: torch's own answer to an average with dilation."""
    w, channels = op.window, x.shape[1]
    conv: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[w.rank]
    ones = torch.ones(channels, 1, *w.kernel, dtype=x.dtype)
    flat = [side for pair in reversed(w.padding) for side in pair]

    def total(t: Tensor) -> Tensor:
        return conv(F.pad(t, flat), ones, None, w.stride, 0, w.dilation, channels)

    return total(x) / (ones[0].numel() if op.counted else total(torch.ones_like(x)))


def dilated_max(x: Tensor, op: Pool) -> Tensor:
    """One position after the other, over the taps that are inside."""
    w = op.window
    shape = [w.size(a, n) for a, n in enumerate(x.shape[2:])]
    out = torch.full((*x.shape[:2], *shape), float("-inf"), dtype=x.dtype)
    for place in product(*map(range, shape)):
        taps = [w.taps(a, i) for a, i in enumerate(place)]
        inside = [[t for t in along if 0 <= t < n] for along, n in zip(taps, x.shape[2:])]
        for position in product(*inside):
            out[(..., *place)] = torch.maximum(out[(..., *place)], x[(..., *position)])
    return out


WINDOWS = {
    "dilated": Window((3, 3), (1, 1), (2, 2), (2, 2), (2, 2)),
    "more padding than torch allows": Window((3, 3), (1, 1), (4, 4), (4, 4), (4, 4)),
    "even, uneven padding": Window((2, 4), (1, 2), (3, 1), (3, 0), (0, 3)),
    "line": Window((3,), (2,), (2,), (2,), (2,)),
    "volume": Window((2, 3, 1), (1, 2, 1), (2, 1, 1), (2, 1, 0), (2, 1, 0)),
}


@pytest.mark.parametrize("how", ["max", "mean", "mean of the input"])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_that_torch_has_not(name: str, how: str) -> None:
    window = WINDOWS[name]
    op = Pool(window, how != "max", how == "mean")
    for sizes in ((9, 8, 7), (13, 6, 9)):
        x = image(*sizes[: window.rank])
        want = dilated_mean(x, op) if op.average else dilated_max(x, op)
        torch.testing.assert_close(emit_pool(x, op), want, **TIGHT)
        numbers: Any = {"kernel": window.kernel, "stride": window.stride, "dilation": window.dilation}
        naive = naive_pool(x, **numbers, padding=window.padding, average=op.average, counted=op.counted)
        torch.testing.assert_close(naive, want, **TIGHT)


@given(st.lists(windows_1d(max_kernel=4), min_size=1, max_size=2), st.booleans(), st.booleans())
def test_any_window(axes: list[tuple[int, int, int, tuple[int, int], int]], average: bool, counted: bool) -> None:
    kernel, stride, dilation, padding, sizes = zip(*axes)
    window = Window(kernel, stride, dilation, *(tuple(side) for side in zip(*padding)))
    op = Pool(window, average, average and counted)
    x = image(*sizes)
    seen = all(min(window.counts(a, n)) > 0 for a, n in enumerate(sizes))
    if average and not counted and not seen:
        return  # an average of nothing
    want = dilated_mean(x, op) if average else dilated_max(x, op)
    torch.testing.assert_close(emit_pool(x, op), want, **TIGHT)


@pytest.mark.parametrize("how", ["max", "mean", "mean of the input"])
def test_gradients(how: str) -> None:
    op = Pool(WINDOWS["dilated"], how != "max", how == "mean")
    x = image(5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: emit_pool(t, op), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("average", [False, True])
def test_dtype_and_missing_batch(dtype: torch.dtype, average: bool) -> None:
    op = Pool(WINDOWS["more padding than torch allows"], average, False)
    x = image(9, 8).to(dtype)
    out = emit_pool(x, op)
    assert out.dtype == dtype
    assert torch.equal(torch.stack([emit_pool(one, op) for one in x]), out)
    assert torch.isfinite(out).all()


class Pooled(nn.Module):
    """A layer that is called twice, functional pools, and calls that are no sites."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.pool(self.conv(x)))
        x = F.avg_pool2d(F.max_pool2d(x, 2), 2, 1)
        x = F.max_pool2d(x, 2, 1, return_indices=True)[0]
        return F.max_pool2d(F.adaptive_avg_pool2d(x, 4), 2)


@pytest.mark.parametrize("mode", ["symbolic", "real inputs"])
def test_every_pool_call_is_a_site(mode: str) -> None:
    model = Pooled().eval()
    if mode == "real inputs":
        model.conv.register_forward_hook(lambda m, args, out: out * float(out.detach().sum() > -1e9))
    graph = pr.record(model, example_inputs=torch.randn(1, 3, 12, 14))
    assert graph.how == mode
    assert list(graph.pools) == ["pool", "pool@1", "#max_pool2d.0", "#avg_pool2d.0", "#max_pool2d.1"]
    assert [s.op.average for s in graph.pools.values()] == [False, False, False, True, False]
    assert graph.pools["pool"].input_shape == (1, 3, 12, 14)
    assert graph.pools["#max_pool2d.0"].op.window.stride == (2, 2)


def test_replacing_a_pool_in_a_graph() -> None:
    """The copy computes the new pool, whatever torch calls that takes; the graph itself is unchanged."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AvgPool2d(2, 1), nn.ReLU()).double().eval()
    x = image(7, 8)
    graph = pr.record(model, example_inputs=x)
    site = graph.pools["1"]
    wide = replace(site.op, window=WINDOWS["dilated"])
    new, before = graph.replace([(site, wide)]), graph.fingerprint
    want = dilated_mean(model[0](x), wide).relu()
    torch.testing.assert_close(run(new, model)(x), want, **TIGHT)
    torch.testing.assert_close(run(graph, model)(x), model(x), **TIGHT)
    assert graph.fingerprint == before != new.fingerprint


def run(graph: pr.Graph, model: nn.Module) -> Callable[[Tensor], Tensor]:
    assert graph.nodes is not None
    state = {**dict(model.named_parameters()), **dict(model.named_buffers()), **graph.constants}

    class Run(torch.fx.Interpreter):
        def fetch_attr(self, target: str) -> Any:
            return state[target]

    return lambda x: Run(nn.Module(), graph=graph.nodes).run(x)[0]
