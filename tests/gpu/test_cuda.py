"""The op and rewritten models on CUDA: the naive reference, every dtype, and Inductor's kernels."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from hypothesis import given
from strategies import ConvSpec, conv_specs
from torch import nn

import padrewrite
from padrewrite.checks.naive import naive_conv
from padrewrite.ops import partial_conv
from padrewrite.rewriting import Pass
from padrewrite_passes import PaddingMode, PartialPadding

pytestmark = pytest.mark.gpu


@given(spec=conv_specs())
def test_partial_conv_equals_the_naive_reference(spec: ConvSpec) -> None:
    x, weight, bias = (None if t is None else t.to("cuda", torch.float64) for t in spec.tensors())
    got = partial_conv(x, weight, bias, **spec.numbers)
    wanted = naive_conv(x, weight, bias, **spec.numbers, partial="mean")
    assert (got - wanted).abs().max() <= 1e-10 * max(1.0, wanted.abs().max().item())


def block() -> nn.Module:
    """A small residual net with what Inductor fuses: convolution, batch norm, ReLU, add."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 7, 2, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
    ).cuda()


@pytest.mark.compile
@pytest.mark.parametrize("one", [PartialPadding(), PaddingMode(mode="circular"), PaddingMode(axes=(-1,))])
@pytest.mark.parametrize("training", [False, True])
def test_compiled_model_equals_eager(one: Pass, training: bool) -> None:
    model = block().train(training).double()
    x = torch.randn(2, 3, 33, 46, device="cuda", dtype=torch.float64)
    new = padrewrite.transform(model, [one], example_inputs=x)
    torch._dynamo.reset()
    got, wanted = torch.compile(new, fullgraph=True)(x), new(x)
    assert (got - wanted).abs().max() < 1e-10
    got.sum().backward()


@pytest.mark.compile
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_stay_finite_and_near(dtype: torch.dtype) -> None:
    model = block().eval()
    new = padrewrite.transform(model, ["partial-padding"], example_inputs=torch.randn(1, 3, 32, 32, device="cuda"))
    x = torch.randn(2, 3, 33, 46, device="cuda")
    wanted = new(x)
    got = torch.compile(new.to(dtype), fullgraph=True)(x.to(dtype)).float()
    # Four roundings of the half type on values of order one.
    assert (got - wanted).abs().max() <= 16 * torch.finfo(dtype).eps * wanted.abs().max()


@pytest.mark.compile
def test_channels_last_is_kept() -> None:
    model = block().eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    new = padrewrite.transform(model, ["partial-padding"], example_inputs=x)
    assert new(x).is_contiguous(memory_format=torch.channels_last)
