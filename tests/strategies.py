"""Hypothesis strategies of the whole suite. New features join this file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from padrewrite.fuzzing.drawing import KINDS, networks
from padrewrite.fuzzing.networks import Convolve, LayerSpec, Net, NetSpec, Step

__all__ = ["ConvSpec", "Convolve", "LayerSpec", "Net", "NetSpec", "Step", "conv_specs", "nets", "windows_1d"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class ConvSpec:
    """One convolution call: its window, channels and input, small enough to brute-force."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int
    in_channels: int
    out_channels: int
    bias: bool
    dtype: torch.dtype
    batch: int
    size: tuple[int, ...]
    seed: int

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def terms(self) -> int:
        """Products that are added up for one output."""
        return self.in_channels // self.groups * torch.Size(self.kernel).numel()

    @property
    def numbers(self) -> dict[str, object]:
        """The arguments that both ``partial_conv`` and ``naive_conv`` take."""
        names = ("stride", "dilation", "padding", "groups")
        return {name: getattr(self, name) for name in names}

    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias: normal random numbers, rounded to the dtype."""
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype)

        x = draw(self.batch, self.in_channels, *self.size)
        weight = draw(self.out_channels, self.in_channels // self.groups, *self.kernel)
        return x, weight, draw(self.out_channels) if self.bias else None


@st.composite
def windows_1d(draw: st.DrawFn, max_kernel: int = 5) -> tuple[int, int, int, tuple[int, int], int]:
    """(kernel, stride, dilation, (lo, hi), size) of one axis with some output; padding may be huge."""
    kernel = draw(st.integers(1, max_kernel))
    stride = draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 3))
    span = dilation * (kernel - 1) + 1
    modest = st.integers(0, max(1, span // 2))
    lo, hi = draw(st.tuples(modest, modest) | st.tuples(st.integers(0, span + 2), st.integers(0, span + 2)))
    least = max(1, span - lo - hi)
    return kernel, stride, dilation, (lo, hi), draw(st.integers(least, least + 5))


@st.composite
def conv_specs(
    draw: st.DrawFn,
    ranks: Sequence[int] = (1, 2, 3),
    dtypes: Sequence[torch.dtype] = DTYPES,
) -> ConvSpec:
    """Convolutions of rank 1 to 3: odd and even kernels, strides, dilations, asymmetric padding, groups."""
    rank = draw(st.sampled_from(ranks))
    axes = [draw(windows_1d(max_kernel={1: 7, 2: 5, 3: 3}[rank])) for _ in range(rank)]
    kernel, stride, dilation, padding, size = zip(*axes)
    groups = draw(st.integers(1, 3))
    return ConvSpec(
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        in_channels=groups * draw(st.integers(1, 3)),
        out_channels=groups * draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from(dtypes)),
        batch=draw(st.integers(1, 3)),
        size=size,
        seed=draw(st.integers(0, 2**31)),
    )


FOLLOWED = tuple(kind for kind in KINDS if kind not in ("pad", "pad_to", "transposed_conv", "symmetric_conv"))
"""Kinds after which every pad that reaches a convolution is part of its step, and all are steps of one kind."""


def nets(
    ranks: Sequence[int] = (1, 2, 3),
    padded: bool = True,
    kinds: Sequence[str] = FOLLOWED,
    linear_only: bool = False,
    parts: tuple[int, int] = (2, 6),
) -> st.SearchStrategy[NetSpec]:
    """Small acyclic networks. Without ``padded``: no explicit pads, and convolutions pad with zeros by numbers."""
    return networks(ranks=ranks, padded=padded, kinds=kinds, linear_only=linear_only, parts=parts)
