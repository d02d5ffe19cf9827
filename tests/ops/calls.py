"""Torch calls as models make them, each with the letters of its result's dimensions.

``h`` and ``w`` stand for dimensions along which positions of the input's height and width are carried on; all other
letters for dimensions whose positions do not matter. The input is ``(1, 4, H, W)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class CallCase:
    name: str
    run: Callable[[Tensor], Any]
    dims: str = "nchw"
    maxima: bool = False

    def __str__(self) -> str:
        return self.name


class Running(nn.Module):
    """A call as a model, behind a 1x1 convolution, so that height and width count as positions."""

    def __init__(self, case: CallCase) -> None:
        super().__init__()
        self.case = case

    def forward(self, x: Tensor) -> Any:
        return self.case.run(F.conv2d(x, MIX))


def _weight(*shape: int) -> Tensor:
    return torch.linspace(0.5, 1.5, int(torch.Size(shape).numel()), dtype=torch.float64).reshape(shape)


WIDE, SQUARE, LONG = _weight(3, 4, 2, 3), _weight(4, 1, 3, 3), _weight(4, 2, 3, 2)
ROWS = _weight(5, 7)

MIX = _weight(4, 4, 1, 1)


def shuffle_by_hand(x: Tensor) -> Tensor:
    parts = x.view(1, 1, 2, 2, *x.shape[2:]).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(1, 1, 2 * x.shape[2], 2 * x.shape[3])


CONVOLUTIONS = (
    CallCase("conv2d", lambda x: F.conv2d(x, WIDE, None, (2, 1), (1, 2), (1, 2))),
    CallCase("conv2d same", lambda x: F.conv2d(x, WIDE, None, 1, "same")),
    CallCase("conv2d depthwise", lambda x: F.conv2d(x, SQUARE, None, 2, 1, 1, 4)),
    CallCase("conv2d behind pads", lambda x: F.conv2d(F.pad(F.pad(x, (1, 0, 0, 2)), (0, 1)), WIDE, None, 1, 1)),
    CallCase("conv2d behind reflection", lambda x: F.conv2d(F.pad(x, (1, 2, 0, 1), "reflect"), WIDE)),
    CallCase("conv2d behind ones", lambda x: F.conv2d(F.pad(x, (1, 2, 0, 1), value=1.0), WIDE)),
    CallCase("conv of one image", lambda x: F.conv2d(x[0], WIDE, None, 2, 1), "chw"),
    CallCase("conv_transpose2d", lambda x: F.conv_transpose2d(x, LONG, None, (2, 3), (1, 0), (1, 2), 2, (1, 2))),
    CallCase("conv1d of columns", lambda x: F.conv1d(x[0].permute(1, 0, 2), WIDE[:, :, 0], None, 1, 1), "hcw"),
)

POOLS = (
    CallCase("max_pool2d", lambda x: F.max_pool2d(x, 3, 2, 1), maxima=True),
    CallCase(
        "max_pool2d by name",
        lambda x: torch.max_pool2d(x, (2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1), ceil_mode=True),
        maxima=True,
    ),
    CallCase("max_pool2d with indices", lambda x: F.max_pool2d(x, 2, return_indices=True)[0], maxima=True),
    CallCase("avg_pool2d", lambda x: F.avg_pool2d(x, 3, 2, 1)),
    CallCase("avg_pool2d with ceil", lambda x: F.avg_pool2d(x, (2, 3), ceil_mode=True, count_include_pad=False)),
    CallCase("lp_pool2d", lambda x: F.lp_pool2d(x.abs(), 2.0, (2, 3), 2)),
    CallCase("lp_pool2d with ceil", lambda x: F.lp_pool2d(x.abs(), 2.0, 2, ceil_mode=True)),
    CallCase("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (4, 3))),
    CallCase("adaptive_avg_pool2d of one axis", lambda x: F.adaptive_avg_pool2d(x, (None, 3))),
    CallCase("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, 4), maxima=True),
    CallCase("global average pool", lambda x: F.adaptive_avg_pool2d(x, 1), "ncab"),
    CallCase("pooled along one axis", lambda x: F.adaptive_avg_pool2d(x, (1, 4)), "ncaw"),
)

RESIZES = (
    CallCase("interpolate", lambda x: F.interpolate(x, scale_factor=2)),
    CallCase("interpolate down", lambda x: F.interpolate(x, (3, 4), mode="bilinear")),
    CallCase("interpolate by two factors", lambda x: F.interpolate(x, None, (1.5, 0.7), "bilinear", True)),
    CallCase(
        "interpolate recomputed",
        lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", recompute_scale_factor=True),
    ),
    CallCase("interpolate exact", lambda x: F.interpolate(x, (9, 5), mode="nearest-exact")),
    CallCase("interpolate cubic", lambda x: F.interpolate(x, (9, 5), mode="bicubic")),
    CallCase("interpolate antialiased", lambda x: F.interpolate(x, (3, 9), mode="bilinear", antialias=True)),
    CallCase("interpolate area", lambda x: F.interpolate(x, scale_factor=0.5, mode="area")),
    CallCase("interpolate to a size", lambda x: F.interpolate(x[:, :, ::2, ::2], x.shape[2:], mode="bilinear")),
    CallCase("interpolate to a doubled size", lambda x: F.interpolate(x, [2 * n for n in x.shape[2:]])),
    CallCase("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2)),
    CallCase("pixel_unshuffle", lambda x: F.pixel_unshuffle(x[..., :6, :4], 2)),
    CallCase("shuffle by hand", shuffle_by_hand),
    CallCase("repeat_interleave", lambda x: x.repeat_interleave(3, dim=-1)),
    CallCase("channel_shuffle", lambda x: F.channel_shuffle(x, 2)),
)

SLICES = (
    CallCase("slice", lambda x: x[:, :, 1:, :-2]),
    CallCase("slice with steps", lambda x: x[..., 1::2, ::3]),
    CallCase("slice of the end", lambda x: x[..., -4:, -5:-1]),
    CallCase("slice past the end", lambda x: x[:, 1:3, :100]),
    CallCase("slice and a new dimension", lambda x: x[:, None, :, 2:, ...], "nachw"),
    CallCase("slice to a size", lambda x: x[:, :, : x.shape[2] - 1, : x.shape[3] // 2]),
    CallCase("one row", lambda x: x[:, :, 2], "ncw"),
    CallCase("the last column", lambda x: x[..., -1], "nch"),
    CallCase("one channel", lambda x: x[:, 1], "nhw"),
    CallCase("select", lambda x: x.select(2, -2), "ncw"),
    CallCase("narrow", lambda x: x.narrow(2, 1, 3)),
    CallCase("narrow from the end", lambda x: torch.narrow(x, -1, -3, 3)),
    CallCase("chunk", lambda x: x.chunk(3, 2)[1]),
    CallCase("the last chunk", lambda x: torch.chunk(x, chunks=2, dim=-1)[-1]),
    CallCase("chunk of channels", lambda x: x.chunk(2, dim=1)[1]),
    CallCase("split", lambda x: x.split(2, dim=3)[1]),
    CallCase("split into sizes", lambda x: torch.split(x, [1, 3, x.shape[2] - 4], 2)[1]),
    CallCase("split by name", lambda x: x.split(split_size=3, dim=2)[0]),
    CallCase("split_with_sizes", lambda x: x.split_with_sizes([2, x.shape[3] - 2], -1)[1]),
    CallCase("unbind", lambda x: x.unbind(2)[1], "ncw"),
    CallCase("unbind of channels", lambda x: torch.unbind(x, dim=1)[0], "nhw"),
    CallCase("pad", lambda x: F.pad(x, (1, 2, 0, 3))),
    CallCase("pad and crop", lambda x: F.pad(x, (-1, 2, 1, -2))),
    CallCase("pad with a border", lambda x: F.pad(x, (1, 2, 0, 3), "replicate")),
    CallCase("pad round", lambda x: F.pad(x, (1, 2, 2, 1), mode="circular")),
    CallCase("pad channels", lambda x: F.pad(x, (0, 0, 1, 0, 0, 2))),
    CallCase("roll", lambda x: x.roll((1, -2), (2, 3))),
    CallCase("roll of one axis", lambda x: torch.roll(x, 2, -1)),
)

RESHAPES = (
    CallCase("permute", lambda x: x.permute(0, 2, 3, 1), "nhwc"),
    CallCase("permute of a tuple", lambda x: torch.permute(x, (3, 0, 1, 2)), "wnch"),
    CallCase("transpose", lambda x: x.transpose(1, -1), "nwhc"),
    CallCase("swapaxes", lambda x: x.swapaxes(1, 2), "nhcw"),
    CallCase("movedim", lambda x: x.movedim(1, -1), "nhwc"),
    CallCase("movedim of two", lambda x: x.movedim((2, 3), (0, 1)), "hwnc"),
    CallCase("mT", lambda x: x.mT, "ncwh"),
    CallCase("t", lambda x: x[0, 0].t(), "wh"),
    CallCase("unsqueeze", lambda x: x.unsqueeze(2), "ncahw"),
    CallCase("unsqueeze at the end", lambda x: x.unsqueeze(-1), "nchwa"),
    CallCase("squeeze", lambda x: x[:, :1].squeeze(1), "nhw"),
    CallCase("squeeze of all", lambda x: x.squeeze(), "chw"),
    CallCase("flatten of channels", lambda x: x.flatten(0, 1), "chw"),
    CallCase("view of channels", lambda x: x.view(1, 2, 2, *x.shape[2:]), "nabhw"),
    CallCase("reshape", lambda x: x.reshape(4, -1, x.shape[3]), "chw"),
    CallCase("unflatten", lambda x: x.unflatten(1, (2, 2)), "nabhw"),
    CallCase("view_as", lambda x: (x + 1).view_as(x)),
    CallCase("expand", lambda x: x[:, :1].expand(2, 3, -1, -1)),
    CallCase("expand_as", lambda x: x[:, :1].expand_as(x)),
    CallCase("expand of a row", lambda x: x[:, :, :1].expand(-1, -1, 5, -1)),
    CallCase("broadcast_to", lambda x: x[0].broadcast_to(2, *x.shape[1:])),
    CallCase("repeat of channels", lambda x: x.repeat(2, 3, 1, 1)),
    CallCase("repeat of a row", lambda x: x[:, :, 1:2].repeat(1, 1, 4, 1)),
    CallCase("contiguous", lambda x: x.permute(0, 2, 3, 1).contiguous(), "nhwc"),
)

REDUCTIONS = (
    CallCase("mean", lambda x: x.mean((2, 3)), "nc"),
    CallCase("mean kept", lambda x: x.mean(dim=(2, 3), keepdim=True), "ncab"),
    CallCase("mean by axis", lambda x: x.mean(axis=2), "ncw"),
    CallCase("mean of channels", lambda x: x.mean(1, keepdim=True)),
    CallCase("mean of all", lambda x: x.mean(), ""),
    CallCase("sum of a column", lambda x: torch.sum(x, -2), "ncw"),
    CallCase("sum of all dimensions", lambda x: x.sum(dim=()), ""),
    CallCase("amax", lambda x: x.amax((1, 2)), "nw", maxima=True),
    CallCase("max along channels", lambda x: x.max(dim=1)[0], "nhw", maxima=True),
    CallCase("max of two", lambda x: torch.max(x, x[..., :1]), maxima=True),
    CallCase("std", lambda x: x.std((2, 3), keepdim=True), "ncab"),
    CallCase("std unbiased", lambda x: x.std(False), ""),
    CallCase("var of a row", lambda x: torch.var(x, 3), "nch"),
    CallCase("norm of channels", lambda x: x.norm(dim=1, keepdim=True)),
    CallCase("norm of order 2", lambda x: torch.norm(x, 2, 1), "nhw"),
    CallCase("vector_norm", lambda x: torch.linalg.vector_norm(x, 2, (2, 3)), "nc"),
    CallCase("logsumexp", lambda x: x.logsumexp(2), "ncw"),
    CallCase("prod", lambda x: x.prod(1), "nhw"),
)

POINTWISE = (
    CallCase("arithmetic", lambda x: (2 * x + 1 - x / 3) * x),
    CallCase("activations", lambda x: F.gelu(F.silu(F.leaky_relu(torch.tanh(x))))),
    CallCase("in place", lambda x: (x * 1).mul_(2).add_(x).sigmoid_()),
    CallCase("a row for all rows", lambda x: x * x[:, :, :1]),
    CallCase("a vector of channels", lambda x: x * _weight(4, 1, 1)),
    CallCase("where", lambda x: torch.where(x > 0, x, 2 * x)),
    CallCase("clamp", lambda x: x.clamp(-50, 50).double().to(torch.float64).clone()),
    CallCase("maximum", lambda x: torch.maximum(x, x.roll(1, 2)), maxima=True),
    CallCase("lerp", lambda x: torch.lerp(x, x.roll(1, 3), 0.3)),
    CallCase("batch_norm", lambda x: F.batch_norm(x, _weight(4), _weight(4))),
    CallCase("batch_norm of the batch", lambda x: F.batch_norm(x, None, None, training=True)),
    CallCase("instance_norm", lambda x: F.instance_norm(x)),
    CallCase(
        "instance_norm of kept statistics", lambda x: F.instance_norm(x, _weight(4), _weight(4), use_input_stats=False)
    ),
    CallCase("group_norm", lambda x: F.group_norm(x, 2)),
    CallCase("layer_norm of channels", lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)), "nhwc"),
    CallCase("layer_norm of images", lambda x: F.layer_norm(x, (4, 6, 7))),
    CallCase("layer_norm of rows", lambda x: F.layer_norm(x, (7,))),
    CallCase("rms_norm", lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)),
    CallCase("softmax of channels", lambda x: x.softmax(1)),
    CallCase("softmax of rows", lambda x: F.softmax(x, dim=-1)),
    CallCase("normalize", lambda x: F.normalize(x)),
    CallCase("glu", lambda x: F.glu(x, 1)),
    CallCase("linear of channels", lambda x: F.linear(x.permute(0, 2, 3, 1), _weight(3, 4)), "nhwc"),
    CallCase("linear of rows", lambda x: F.linear(x, ROWS), "ncha"),
    CallCase("squeeze and excite", lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
    CallCase(
        "coordinate attention", lambda x: x * x.mean(3, keepdim=True).sigmoid() * x.mean(2, keepdim=True).sigmoid()
    ),
)

MERGES = (
    CallCase("add", lambda x: x + x.roll(2, 2)),
    CallCase("cat", lambda x: torch.cat([x, x.roll(1, 3)], 1)),
    CallCase("cat of rows", lambda x: torch.cat((x, x[:, :, 1:3], x.roll(1, 3)), dim=2)),
    CallCase("cat with zeros", lambda x: torch.cat([torch.zeros_like(x[..., :2]), x, x.new_zeros(1, 4, 6, 1)], -1)),
    CallCase("stack", lambda x: torch.stack([x, x.roll(1, 2)], 1), "nachw"),
    CallCase("stack at the end", lambda x: torch.stack((x, 2 * x), dim=-1), "nchwa"),
    CallCase("space to depth", lambda x: torch.cat([x[..., ::2, :6:2], x[..., 1::2, 1:7:2], x[..., ::2, 1:7:2]], 1)),
    CallCase("transposed merge", lambda x: x[..., :6] + x[..., :6].transpose(2, 3)),
)

FOLLOWED = (*CONVOLUTIONS, *POOLS, *RESIZES, *SLICES, *RESHAPES, *REDUCTIONS, *POINTWISE, *MERGES)


def _written(x: Tensor) -> Tensor:
    x = x * 1
    x[:, :, ::2] = x[:, :, 1::2]
    return x * 2


def _written_by_view(x: Tensor) -> Tensor:
    x = x * 1
    x[:, :, 1:].add_(x[:, :, :-1].clone())
    return x * 2


LOST = (
    (CallCase("flip", lambda x: x.flip(-1)), "flip reverses dimension -1"),
    (CallCase("tile", lambda x: x.repeat(1, 1, 2, 1)), "repeat tiles dimension 2"),
    (CallCase("flatten", lambda x: x.flatten(2), "ncr"), "flatten regroups dimensions [2, 3]"),
    (CallCase("split by view", lambda x: x.view(1, 4, 3, 2, 7), "ncabw"), "view regroups dimensions [2]"),
    (CallCase("softmax of images", lambda x: x.flatten(2).softmax(-1), "ncr"), "flatten regroups dimensions [2, 3]"),
    (CallCase("matmul", lambda x: x @ x.transpose(2, 3), "ncab"), "matmul is not a call"),
    (CallCase("index", lambda x: x[:, :, [2, 0, 1]], "ncaw"), "indexed by a tensor or a list"),
    (CallCase("mask", lambda x: x[x > 0], "a"), "indexed by"),
    (CallCase("cumsum", lambda x: x.cumsum(2), "ncaw"), "cumsum reads along dimension 2 up to each position"),
    (CallCase("unfold", lambda x: F.unfold(x, 3), "nab"), "unfold is not a call"),
    (CallCase("write", _written, "ncaw"), "setitem__ writes into it"),
    (CallCase("write through a view", _written_by_view, "ncaw"), "add_ writes into it"),
    (CallCase("roll of all", lambda x: x.roll(3), "ncab"), "roll of the flattened tensor"),
    (CallCase("tensor_split", lambda x: x.tensor_split(3, 2)[0], "ncaw"), "tensor_split"),
)
"""With what the analysis says of it; what happens to ``w`` is known where the letter is there."""
