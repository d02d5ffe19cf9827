"""The symmetric layers: drop-in for torch's, from scratch and by class swap."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from padrewrite.nn.axis_padding import conv_op
from padrewrite.nn.symmetric import (
    SymmetricConv1d,
    SymmetricConv2d,
    SymmetricConv3d,
    SymmetricConvMixin,
    symmetric_class,
)
from padrewrite.ops.conv import emit_conv
from padrewrite.ops.symmetric import symmetric_conv

PAIRS: list[tuple[Any, Any, tuple[int, ...]]] = [
    (nn.Conv1d, SymmetricConv1d, (2, 4, 9)),
    (nn.Conv2d, SymmetricConv2d, (2, 4, 9, 8)),
    (nn.Conv3d, SymmetricConv3d, (2, 4, 6, 7, 5)),
]


class Tagged(nn.Conv2d):
    """A user's subclass with a constructor of its own and the stock forward."""

    def __init__(self, channels: int, tag: str) -> None:
        super().__init__(channels, channels, 2, padding=1)
        self.tag = tag


def swapped(conv: nn.Module) -> Any:
    conv.__class__ = symmetric_class(type(conv))
    return conv


@pytest.mark.parametrize(("stock", "ours", "shape"), PAIRS)
@pytest.mark.parametrize("order", ["balanced", "raster"])
def test_layer_is_the_functional_form(stock: Any, ours: Any, shape: tuple[int, ...], order: str) -> None:
    layer = ours(4, 6, 2, 2, "same", 2, 2, bias=True, dtype=torch.float64, order=order)
    x = torch.randn(shape, dtype=torch.float64)
    assert torch.equal(layer(x), symmetric_conv(x, layer.weight, layer.bias, 2, 2, 2, order=order))
    assert isinstance(layer, stock)


@pytest.mark.parametrize(("stock", "ours", "shape"), PAIRS)
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_by_default_the_size_stays(stock: Any, ours: Any, shape: tuple[int, ...], kernel: int) -> None:
    assert ours(4, 6, kernel)(torch.randn(shape)).shape == (2, 6, *shape[2:])


@pytest.mark.parametrize("padding", ["same", "valid", 2, (1, 2), ((1, 0), (2, 3))])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_padding_goes_around_all_channels(padding: Any, mode: str) -> None:
    layer, x = SymmetricConv2d(4, 4, (2, 4), padding=padding, padding_mode=mode), torch.randn(1, 4, 9, 8)
    want = symmetric_conv(x, layer.weight, layer.bias, padding=padding, modes=(mode, mode))
    assert torch.equal(layer(x), want)
    assert torch.equal(emit_conv(x, layer.weight, layer.bias, conv_op(layer)), want)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stock", "ours", "shape"), PAIRS)
def test_checkpoints_are_those_of_the_stock_layer(stock: Any, ours: Any, shape: tuple[int, ...]) -> None:
    plain, layer = stock(4, 6, 2, padding=1), ours(4, 6, 2)
    assert list(layer.state_dict()) == list(plain.state_dict()) == ["weight", "bias"]
    layer.load_state_dict(plain.state_dict(), strict=True)
    plain.load_state_dict(layer.state_dict(), strict=True)


def test_repr() -> None:
    assert repr(SymmetricConv2d(4, 6, 2, padding=1, order="author")) == (
        "SymmetricConv2d(4, 6, kernel_size=(2, 2), stride=(1, 1), padding=(1, 1), order='author')"
    )
    layer = swapped(nn.Conv1d(4, 4, 2))
    layer.symmetric_axes, layer.partial_scale = (0,), "mean"
    assert repr(layer).endswith("order='balanced', symmetric_axes=(0,), partial_scale=mean)")


def test_errors_name_the_argument_and_the_fix() -> None:
    with pytest.raises(ValueError, match=r"order='spiral' is unknown"):
        SymmetricConv2d(4, 4, 2, order="spiral")
    with pytest.raises(ValueError, match=r"padding='full' is unknown"):
        SymmetricConv2d(4, 4, 2, padding="full")
    with pytest.raises(ValueError, match=r"ConvTranspose2d is no nn\.Conv1d/2d/3d"):
        symmetric_class(nn.ConvTranspose2d)


@pytest.mark.parametrize(("channels", "groups", "kernel"), [(8, 8, 2), (4, 4, (3, 2)), (1, 1, 4)])
def test_one_channel_per_output_is_refused_where_it_would_be_shifted(channels: int, groups: int, kernel: Any) -> None:
    with pytest.raises(ValueError, match=rf"in_channels={channels}, groups={groups}: .* give an odd kernel_size"):
        SymmetricConv2d(channels, 8, kernel, groups=groups)


def test_one_channel_per_output_is_not_shifted_by_an_odd_kernel() -> None:
    layer, x = SymmetricConv2d(4, 8, 3, groups=4), torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias, padding=1, groups=4))


@pytest.mark.parametrize(("stock", "ours", "shape"), PAIRS)
def test_swapped_stock_layer(stock: Any, ours: Any, shape: tuple[int, ...]) -> None:
    conv, x = stock(4, 6, 2, padding=1), torch.randn(shape)
    weight = conv.weight
    assert type(swapped(conv)) is ours
    assert conv.weight is weight
    assert torch.equal(conv(x), symmetric_conv(x, conv.weight, conv.bias))
    assert "order" not in vars(conv)


def test_swapped_user_class_is_still_one() -> None:
    conv, x = swapped(Tagged(4, "stem")), torch.randn(2, 4, 9, 8)
    assert isinstance(conv, Tagged)
    assert isinstance(conv, SymmetricConvMixin)
    assert (type(conv).__name__, conv.tag) == ("SymmetricTagged", "stem")
    assert symmetric_class(Tagged) is type(conv)
    assert torch.equal(conv(x), symmetric_conv(x, conv.weight, conv.bias))


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm])
def test_swapped_parametrized_layer(norm: Any) -> None:
    conv = norm(nn.Conv2d(4, 4, 2, padding=1))
    conv.eval()
    keys, x, weight = list(conv.state_dict()), torch.randn(2, 4, 9, 8), conv.weight.detach().clone()
    swapped(conv)
    assert list(conv.state_dict()) == keys
    torch.testing.assert_close(conv(x), symmetric_conv(x, weight, conv.bias))
    torch.testing.assert_close(copy.deepcopy(conv)(x), conv(x))
    before = conv(x)
    parametrize.remove_parametrizations(conv, "weight")
    assert type(conv) is SymmetricConv2d
    torch.testing.assert_close(conv(x), before)


def test_hooks_keep_working() -> None:
    calls: list[str] = []
    conv = nn.Conv2d(4, 4, 2, padding=1)
    conv.register_forward_pre_hook(lambda *_: calls.append("pre"))
    conv.register_forward_hook(lambda *_: calls.append("forward"))
    conv.register_full_backward_hook(lambda *_: calls.append("backward"))
    swapped(conv)(torch.randn(2, 4, 9, 8, requires_grad=True)).sum().backward()
    assert calls == ["pre", "forward", "backward"]


def test_copies_and_files_and_nothing_left_behind() -> None:
    layer, x = SymmetricConv2d(4, 4, 4, order="raster"), torch.randn(2, 4, 9, 8)
    fresh = pickle.dumps(layer)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), loaded):
        assert type(other) is SymmetricConv2d
        assert torch.equal(other(x), layer(x))
    assert pickle.dumps(layer) == fresh


def test_layer_moves_between_dtypes_and_devices() -> None:
    layer, x = SymmetricConv2d(4, 4, 2), torch.randn(2, 4, 9, 8)
    for dtype in (torch.float64, torch.bfloat16):
        assert layer.to(dtype)(x.to(dtype)).dtype == dtype
    out: Tensor = layer.float().to("meta")(x.to("meta"))
    assert out.shape == (2, 4, 9, 8)
