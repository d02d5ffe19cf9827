"""The nearest even kernels, against least squares over all of them; and the layers that compute them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from padrewrite.analyses.evening import made_even
from padrewrite.nn.assembled import Assembled
from padrewrite.ops.carrying import carry_over
from padrewrite.ops.conv import Conv, read_conv
from padrewrite.ops.directions import ORDERS

LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "3": (nn.Conv1d, {"kernel_size": 3, "padding": 1}),
    "5, stride 3": (nn.Conv1d, {"kernel_size": 5, "padding": 2, "stride": 3}),
    "3x3": (nn.Conv2d, {"kernel_size": 3, "padding": 1}),
    "5x5, dilated": (nn.Conv2d, {"kernel_size": 5, "padding": 4, "dilation": 2}),
    "3x3, stride 2": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "stride": 2}),
    "5x3, stride 2": (nn.Conv2d, {"kernel_size": (5, 3), "padding": (2, 1), "stride": 2}),
    "3x3, stride 2x1": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "stride": (2, 1)}),
    "1x3": (nn.Conv2d, {"kernel_size": (1, 3), "padding": (0, 1)}),
    "1x1, stride 2": (nn.Conv2d, {"kernel_size": 1, "stride": 2}),
    "3x3, groups": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "groups": 2}),
    "3x3x3": (nn.Conv3d, {"kernel_size": 3, "padding": 1}),
}
CHANNELS = {1: 4, 2: 6, 3: 8}


def op_of(layer: Any) -> Conv:
    rank = len(layer.kernel_size)
    target = (torch.conv1d, torch.conv2d, torch.conv3d)[rank - 1]
    numbers = (layer.stride, layer.padding, layer.dilation, layer.groups)
    call = read_conv(target, (None, layer.weight, layer.bias, *numbers), {}, lambda t: t.shape)
    assert call is not None
    assert isinstance(call.op, Conv)
    return call.op


def seen_by(module: nn.Module, x: Tensor, at: int) -> Tensor:
    """The input pixels' weights in the first output channel, at an output away from the border."""
    given = x.clone().requires_grad_()
    out = module(given)
    (found,) = torch.autograd.grad(out[(0, 0, *(at,) * (x.dim() - 2))], given)
    return found.flatten()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_nearest_of_all_even_kernels(name: str, order: str) -> None:
    """Least squares over every parameter, each known by what the layer's output reads where it alone is 1."""
    make, options = LAYERS[name]
    rank = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[make]
    channels, groups = CHANNELS[rank], options.get("groups", 1)
    old = make(channels, groups, bias=False, **options).double()
    op = op_of(old)
    layer = Assembled(made_even(op, order), op).double()
    (key, weight), *rest = layer.named_parameters()
    assert not rest
    size, at = (6 * max(old.stride), 2) if max(old.stride) > 1 else (9, 4)
    x = torch.zeros(1, channels, *(size,) * rank, dtype=torch.float64)
    columns: list[Tensor] = []
    with torch.no_grad():
        weight.zero_()
    for index in range(weight[0].numel()):
        with torch.no_grad():
            weight[0].view(-1)[index] = 1
        columns.append(seen_by(layer, x, at))
        with torch.no_grad():
            weight.zero_()
    wanted = seen_by(old, x, at)
    best = torch.linalg.lstsq(torch.stack(columns, 1), wanted.unsqueeze(1)).solution.flatten()
    carried = carry_over(op, layer.assembly, old.weight, None)
    torch.testing.assert_close(carried.state[key][0].flatten(), best, rtol=1e-10, atol=1e-10)
    if groups == 1:
        left = (torch.stack(columns, 1) @ best - wanted).norm() / wanted.norm()
        assert carried.error == pytest.approx(left.item(), abs=1e-10)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_a_kernel_that_lies_in_its_corner_is_kept(kernel: int) -> None:
    """One channel per direction, bottom right first: what its corner lacks is zero, so nothing is lost."""
    old = nn.Conv2d(4, 3, kernel, padding=kernel // 2).double()
    with torch.no_grad():
        old.weight[:, (0, 2), 0] = 0  # these read from the second row on
        old.weight[:, (1, 3), -1] = 0
        old.weight[:, (0, 3), :, 0] = 0
        old.weight[:, (1, 2), :, -1] = 0
    op = op_of(old)
    layer = Assembled(made_even(op, "balanced"), op).double()
    layer.load_state_dict(old.state_dict(), strict=True)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), old(x), rtol=1e-10, atol=1e-10)
    assert carry_over(op, layer.assembly, old.weight, old.bias).bound == 1e-10
