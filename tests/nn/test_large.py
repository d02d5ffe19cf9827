"""The layers of *Large Kernel Matters*: the paper's counts, the naive reference, and what torch expects of layers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from padrewrite.checks.naive import naive_conv
from padrewrite.nn import BoundaryRefinement, GlobalConv2d

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def count(*layers: nn.Module) -> int:
    return sum(p.numel() for layer in layers for p in layer.parameters())


@pytest.mark.parametrize(
    ("k", "gcn", "dense"), [(3, 260694, 387072), (5, 434490, 1075200), (7, 608286, 2107392), (9, 782082, 3483648)]
)
def test_parameters_are_those_of_the_paper(k: int, gcn: int, dense: int) -> None:
    """2048 channels to 21 classes, without biases: Table 3 of the paper's GCN and of its k x k convolution."""
    assert count(GlobalConv2d(2048, 21, k, bias=False, device="meta")) == gcn
    assert count(nn.Conv2d(2048, 21, k, bias=False, device="meta")) == dense


@pytest.mark.parametrize(("mid", "parameters"), [(2048, 75884544), (1024, 28505088), (210, 4307310)])
def test_stacks_of_small_kernels_are_those_of_the_paper(mid: int, parameters: int) -> None:
    """Three 3 x 3 convolutions reach as far as one 7 x 7: Table 4."""
    channels = ((2048, mid), (mid, mid), (mid, 21))
    assert count(*(nn.Conv2d(a, b, 3, bias=False, device="meta") for a, b in channels)) == parameters


@pytest.mark.parametrize("bias", [True, False])
def test_biases_are_of_every_convolution(bias: bool) -> None:
    layer = GlobalConv2d(6, 4, 5, 3, bias=bias)
    assert {name for name, _ in layer.named_parameters() if name.endswith("bias")} == (
        {f"{branch}.{n}.bias" for branch in ("left", "right") for n in (0, 1)} if bias else set()
    )
    assert count(layer) == 2 * 5 * 3 * (6 + 4) + bias * 2 * (3 + 4)


@st.composite
def layers(draw: st.DrawFn) -> tuple[GlobalConv2d, tuple[int, int], int]:
    """Any layer that the constructor takes, the size of an input, and its channels."""
    groups, number = draw(st.integers(1, 2)), st.integers(1, 6)
    channels = [groups * draw(st.integers(1, 3)) for _ in range(3)]
    kernel = draw(number | st.tuples(number, number))
    options: dict[str, Any] = {"groups": groups, "branches": draw(st.integers(1, 2)), "bias": draw(st.booleans())}
    options["dilation"] = draw(st.integers(1, 2) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    if draw(st.booleans()):
        options["stride"] = draw(st.integers(1, 3))
        options["padding"] = draw(st.integers(0, 4) | st.tuples(st.integers(0, 3), st.integers(0, 3)))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    made = GlobalConv2d(channels[0], channels[1], kernel, channels[2], dtype=torch.float64, **options)
    return made, (draw(st.integers(16, 19)), draw(st.integers(16, 19))), channels[0]


@given(layers())
def test_it_is_two_naive_convolutions_each_way(drawn: tuple[GlobalConv2d, tuple[int, int], int]) -> None:
    layer, size, channels = drawn
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    w = layer.assembly.window
    total: Any = 0
    for name, axes in (("left", (0, 1)), ("right", (1, 0)))[: len(layer.assembly.branches)]:
        value: Any = x
        for n, axis in enumerate(axes):
            inner = layer.get_submodule(f"{name}.{n}")
            ones = [(1, 1), (1, 1), ((0, 0), (0, 0))]
            stride, dilation, padding = (
                tuple(v if a == axis else e for a, (v, e) in enumerate(zip(full, rest)))
                for full, rest in zip((w.stride, w.dilation, w.padding), ones)
            )
            numbers: Any = {"stride": stride, "dilation": dilation, "padding": padding}
            value = naive_conv(value, inner.weight, inner.bias, groups=layer.assembly.convs["left.0"].groups, **numbers)
        total = total + value
    torch.testing.assert_close(layer(x), total, **TIGHT)


@pytest.mark.parametrize("k", [3, 4, (5, 2), 15])
def test_it_keeps_the_size_of_the_map(k: Any) -> None:
    layer = GlobalConv2d(3, 2, k, dilation=2)
    assert layer(torch.randn(1, 3, 9, 40)).shape == (1, 2, 9, 40)
    assert layer(torch.randn(3, 9, 40)).shape == (2, 9, 40)


def test_it_is_linear() -> None:
    """No nonlinearity lies between: only biases part it from a linear map."""
    layer = GlobalConv2d(3, 2, 5, dtype=torch.float64)
    a, b, nothing = torch.randn(1, 3, 9, 9).double(), torch.randn(1, 3, 9, 9).double(), torch.zeros(1, 3, 9, 9).double()
    torch.testing.assert_close(layer(a + b) - layer(b), layer(a) - layer(nothing), **TIGHT)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, 2, 5), {"groups": 2}, "in_channels=3 is not a positive multiple of groups=2"),
        ((4, 2, 5, 3), {"groups": 2}, "mid_channels=3 is not a positive multiple"),
        ((4, 2, 5, 0), {}, "mid_channels=0 is not"),
        ((4, 2, 5), {"branches": 3}, "branches=3 is neither 1 nor 2"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlobalConv2d(*arguments, **options)


def test_boundary_refinement_adds_a_residual() -> None:
    layer = BoundaryRefinement(3, dtype=torch.float64)
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    state = layer.state_dict()
    first = F.conv2d(x, state["residual.0.weight"], state["residual.0.bias"], padding=1)
    second = F.conv2d(first.clamp(min=0), state["residual.2.weight"], state["residual.2.bias"], padding=1)
    torch.testing.assert_close(layer(x), x + second, **TIGHT)
    assert (layer(x) < 0).any(), "no nonlinearity comes last"
    assert count(layer) == 2 * (9 * 3 * 3 + 3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in layer.modules())


def test_boundary_refinement_can_begin_as_the_identity_and_learn() -> None:
    layer = BoundaryRefinement(3, identity=True, dtype=torch.float64)
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    assert torch.equal(layer(x), x)
    target = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    losses: list[float] = []
    for _ in range(3):
        loss = (layer(x) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]
    assert all(not torch.equal(p, before[name]) for name, p in layer.named_parameters())


@pytest.mark.parametrize("make", [lambda: GlobalConv2d(3, 2, 5), lambda: BoundaryRefinement(3)])
def test_they_copy_pickle_move_and_convert(make: Any) -> None:
    layer, x = make(), torch.randn(1, 3, 9, 9)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(again(x), layer(x))
    assert layer.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert {p.device.type for p in make().to("meta").parameters()} == {"meta"}
    fresh = make()
    fresh.load_state_dict(layer.float().state_dict(), strict=True)
    assert torch.equal(fresh(x), layer(x))


def test_they_are_seen_through() -> None:
    """A recording sees ordinary convolutions, so every pass and analysis applies to them."""
    import padrewrite as pr

    model = nn.Sequential(GlobalConv2d(3, 4, 7), BoundaryRefinement(4)).double()
    x = torch.randn(1, 3, 11, 13, dtype=torch.float64)
    sites = [f"0.{b}.{n}" for b in ("left", "right") for n in (0, 1)] + ["1.residual.0", "1.residual.2"]
    assert list(pr.record(model, example_inputs=x).sites) == sites
    new = pr.transform(model, ["partial-padding"], example_inputs=x, verify="full")
    assert {d.status for d in pr.report(new).decisions} == {"rewritten"}


def test_deep_in_a_compiled_model() -> None:
    model = nn.Sequential(GlobalConv2d(3, 4, 7), BoundaryRefinement(4)).eval()
    x = torch.randn(1, 3, 11, 13)
    compiled: Tensor = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(compiled, model(x))
