"""Rewritten networks under everything that runs a network: autograd transforms, export, compile, autocast, threads."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from plain import far
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

import padrewrite as pr

from .nets import CIRCULAR, PARTIAL, Branchy, OwnForward, branchy_partial, picture


@pytest.fixture
def new() -> Any:
    return pr.transform(Branchy().eval(), PARTIAL, example_inputs=picture())


def test_jvp(new: Any) -> None:
    """Against a central difference in float64."""
    new = new.double()
    x, direction = picture().double(), picture(seed=2).double()
    value, slope = jvp(new, (x,), (direction,))
    step = 1e-6
    wanted = (new(x + step * direction) - new(x - step * direction)) / (2 * step)
    assert far(value, branchy_partial(new, x)) < 1e-10
    assert far(slope, wanted) < 1e-6


def test_gradcheck(new: Any) -> None:
    x = picture(1, 6, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(new.double(), (x,), fast_mode=True)


def test_per_sample_gradients(new: Any) -> None:
    """vmap(grad) equals one backward per sample."""
    state = dict(new.named_parameters())
    buffers = dict(new.named_buffers())

    def loss(parameters: Any, x: Tensor) -> Tensor:
        return functional_call(new, (parameters, buffers), (x[None],)).square().sum()

    together = vmap(grad(loss), (None, 0))(state, picture(3))
    for index, x in enumerate(picture(3)):
        new.zero_grad()
        loss(state, x).backward()
        for name, parameter in new.named_parameters():
            assert parameter.grad is not None
            assert far(together[name][index], parameter.grad) < 1e-4


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR])
@pytest.mark.filterwarnings("ignore")
def test_export_at_another_size(passes: list[str], strict: bool) -> None:
    new = pr.transform(Branchy().eval(), passes, example_inputs=picture())
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    exported = torch.export.export(new, (picture(),), dynamic_shapes=shapes, strict=strict).module()
    for height, width in ((11, 13), (20, 17), (31, 9)):
        x = picture(5, height, width)
        assert far(exported(x), new(x)) < 1e-5


@pytest.mark.compile
@pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR])
def test_compile_with_gradients(passes: list[str]) -> None:
    net = nn.Sequential(OwnForward(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).eval()
    new: Any = pr.transform(net, passes, example_inputs=picture())
    plain = copy.deepcopy(new)
    compiled = torch.compile(new, backend="aot_eager", fullgraph=True, dynamic=True)
    for height, width in ((11, 13), (20, 17)):
        x, y = (picture(2, height, width).requires_grad_() for _ in range(2))
        compiled(x).square().sum().backward()
        plain(y).square().sum().backward()
        assert x.grad is not None
        assert y.grad is not None
        assert far(x.grad, y.grad) < 1e-5
    for a, b in zip(new.parameters(), plain.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert far(a.grad, b.grad) < 1e-5


@pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR])
def test_autocast(passes: list[str]) -> None:
    """The dtype of the original under autocast, and its values to bfloat16's precision."""
    net = Branchy().eval()
    new = pr.transform(net, passes, example_inputs=picture())
    with torch.autocast("cpu", torch.bfloat16):
        assert new(picture()).dtype == net(picture()).dtype == torch.bfloat16
        low = new(picture())
    assert far(low.float(), new(picture())) < 0.05


def test_inference_mode_then_training(new: Any) -> None:
    with torch.inference_mode():
        first = new(picture())
    loss = new(picture()).square().sum()
    loss.backward()
    assert torch.equal(first.clone(), new(picture()).detach())


def test_threads(new: Any) -> None:
    """Two threads in the same model at once, at different sizes."""
    sizes = [(8 + i % 5, 9 + i % 3) for i in range(24)]
    with torch.no_grad():
        wanted = [new(picture(1, *size)) for size in sizes]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda size: new(picture(1, *size)).detach(), sizes))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes become constants, as tracing does
@pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR])
def test_traced(passes: list[str]) -> None:
    new = pr.transform(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).eval(), passes)
    traced: Any = torch.jit.trace(new, picture())
    assert far(traced(picture()), new(picture())) < 1e-6
