"""The partial layers: drop-in for torch's, from scratch and by class swap."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from padrewrite.nn.partial import PartialConv1d, PartialConv2d, PartialConv3d, PartialConvMixin, partial_class
from padrewrite.ops.partial import partial_conv

PAIRS: list[tuple[Any, Any, tuple[int, ...]]] = [
    (nn.Conv1d, PartialConv1d, (2, 4, 9)),
    (nn.Conv2d, PartialConv2d, (2, 4, 9, 8)),
    (nn.Conv3d, PartialConv3d, (2, 4, 6, 7, 5)),
]


class Tagged(nn.Conv2d):
    """A user's subclass with a constructor of its own and the stock forward."""

    def __init__(self, channels: int, tag: str) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.tag = tag


def swapped(conv: nn.Module) -> Any:
    conv.__class__ = partial_class(type(conv))
    return conv


def expected(conv: Any, x: Tensor, weight: Tensor | None = None) -> Any:
    weight = conv.weight if weight is None else weight
    return partial_conv(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


# From scratch


@pytest.mark.parametrize(("stock", "partial", "shape"), PAIRS)
@pytest.mark.parametrize("scale", ["mean", "sqrt"])
def test_layer_is_the_functional_form(stock: Any, partial: Any, shape: tuple[int, ...], scale: str) -> None:
    layer = partial(4, 6, 3, 2, 1, 2, 2, bias=True, dtype=torch.float64, scale=scale)
    x = torch.randn(shape, dtype=torch.float64)
    want = partial_conv(x, layer.weight, layer.bias, 2, 1, 2, 2, scale=scale)
    assert torch.equal(layer(x), want)
    assert isinstance(layer, stock)


@pytest.mark.parametrize(("stock", "partial", "shape"), PAIRS)
def test_checkpoints_are_those_of_the_stock_layer(stock: Any, partial: Any, shape: tuple[int, ...]) -> None:
    plain, layer = stock(4, 6, 3, padding=1), partial(4, 6, 3, padding=1)
    assert list(layer.state_dict()) == list(plain.state_dict()) == ["weight", "bias"]
    layer.load_state_dict(plain.state_dict(), strict=True)
    plain.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(shape)
    inside = (..., *(slice(1, -1) for _ in shape[2:]))
    torch.testing.assert_close(layer(x)[inside], plain(x)[inside])


@pytest.mark.parametrize("padding", ["same", "valid", 2, (1, 2)])
def test_paddings_of_the_stock_layer(padding: Any) -> None:
    layer, x = PartialConv2d(4, 4, (3, 5), padding=padding), torch.randn(1, 4, 9, 8)
    assert layer(x).shape == nn.Conv2d(4, 4, (3, 5), padding=padding)(x).shape
    assert torch.equal(layer(x), expected(layer, x))


def test_mask_goes_in_and_comes_out() -> None:
    layer, x = PartialConv2d(4, 4, 3, padding=1, scale="sqrt"), torch.randn(2, 4, 9, 8)
    mask = torch.rand(2, 1, 9, 8) < 0.5
    out, new_mask = layer(x, mask)
    want, want_mask = partial_conv(x, layer.weight, layer.bias, 1, 1, mask=mask, scale="sqrt")
    assert torch.equal(out, want)
    assert torch.equal(new_mask, want_mask)
    torch.testing.assert_close(layer(x), partial_conv(x, layer.weight, layer.bias, 1, 1, scale="sqrt"))


def test_outer_names_the_pixels_of_an_earlier_pad() -> None:
    layer, x = PartialConv2d(4, 4, 3, dtype=torch.float64), torch.randn(1, 4, 9, 8, dtype=torch.float64)
    layer.outer = ((1, 1), (0, 2))
    want = partial_conv(x, layer.weight, layer.bias, 1, ((1, 1), (0, 2)))
    torch.testing.assert_close(layer(nn.ZeroPad2d((0, 2, 1, 1))(x)), want, rtol=1e-12, atol=1e-12)


def test_repr_shows_the_scale() -> None:
    assert repr(PartialConv2d(4, 6, 3, padding=1, scale="sqrt")) == (
        "PartialConv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), scale='sqrt')"
    )
    layer = swapped(nn.Conv1d(4, 4, 3))
    layer.outer = ((1, 1),)
    assert repr(layer).endswith("scale='mean', outer=((1, 1),))")


def test_errors_name_the_argument_and_the_fix() -> None:
    with pytest.raises(ValueError, match=r"padding_mode='reflect' fills .* use padding_mode='zeros'"):
        PartialConv2d(4, 4, 3, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match=r"scale='max' is unknown; choose one of 'mean', 'sqrt'"):
        PartialConv2d(4, 4, 3, scale="max")
    with pytest.raises(ValueError, match=r"Linear is no nn\.Conv1d/2d/3d"):
        partial_class(nn.Linear)
    with pytest.raises(ValueError, match=r"ConvTranspose2d is no nn\.Conv1d/2d/3d"):
        partial_class(nn.ConvTranspose2d)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_padding_modes_are_never_corrected(mode: Any) -> None:
    layer = swapped(nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode))
    with pytest.raises(ValueError, match=f"padding_mode='{mode}' fills"):
        layer(torch.randn(1, 4, 9, 8))


def test_masks_are_refused_where_an_axis_is_filled_otherwise() -> None:
    layer = PartialConv2d(4, 4, 3, padding=1)
    layer.axis_modes = ("zeros", "circular")
    with pytest.raises(ValueError, match=r"axes padded by \('zeros', 'circular'\); all need zeros"):
        layer(torch.randn(1, 4, 9, 8), torch.ones(1, 1, 9, 8))


# By class swap


@pytest.mark.parametrize(("stock", "partial", "shape"), PAIRS)
def test_swapped_stock_layer(stock: Any, partial: Any, shape: tuple[int, ...]) -> None:
    conv, x = stock(4, 6, 3, padding=1), torch.randn(shape)
    weight = conv.weight
    assert type(swapped(conv)) is partial
    assert conv.weight is weight
    assert torch.equal(conv(x), expected(conv, x))
    assert conv.partial_scale == "mean"
    assert "partial_scale" not in vars(conv)


def test_swapped_user_class_is_still_one() -> None:
    conv, x = swapped(Tagged(4, "stem")), torch.randn(2, 4, 9, 8)
    assert isinstance(conv, Tagged)
    assert isinstance(conv, PartialConvMixin)
    assert (type(conv).__name__, type(conv).__module__, conv.tag) == ("PartialTagged", __name__, "stem")
    assert torch.equal(conv(x), expected(conv, x))
    out, _ = conv(x, torch.ones(1, 1, 9, 8))
    torch.testing.assert_close(out, expected(conv, x))


def test_the_same_class_at_every_call() -> None:
    assert partial_class(Tagged) is partial_class(Tagged)
    assert partial_class(partial_class(Tagged)) is partial_class(Tagged)
    assert partial_class(PartialConv2d) is PartialConv2d
    assert partial_class(nn.Conv2d) is PartialConv2d


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm])
@pytest.mark.parametrize("make", [lambda: nn.Conv2d(4, 4, 3, padding=1), lambda: Tagged(4, "stem")])
def test_swapped_parametrized_layer(norm: Any, make: Any) -> None:
    conv = norm(make())
    conv.eval()
    base, keys, x = type(conv).__bases__[0], list(conv.state_dict()), torch.randn(2, 4, 9, 8)
    weight = conv.weight.detach().clone()
    swapped(conv)
    assert isinstance(conv, base)
    assert parametrize.is_parametrized(conv, "weight")
    assert list(conv.state_dict()) == keys
    torch.testing.assert_close(conv(x), expected(conv, x, weight))
    torch.testing.assert_close(copy.deepcopy(conv)(x), conv(x))


def test_parametrizations_can_be_removed_after_the_swap() -> None:
    conv, x = swapped(weight_norm(nn.Conv2d(4, 4, 3, padding=1))), torch.randn(2, 4, 9, 8)
    before = conv(x)
    parametrize.remove_parametrizations(conv, "weight")
    assert type(conv) is PartialConv2d
    torch.testing.assert_close(conv(x), before)


def test_old_style_weight_norm_and_hooks_keep_working() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        conv: Any = nn.utils.weight_norm(nn.Conv2d(4, 4, 3, padding=1))
    calls: list[str] = []
    conv.register_forward_pre_hook(lambda *_: calls.append("pre"))
    conv.register_forward_hook(lambda *_: calls.append("forward"))
    conv.register_full_backward_hook(lambda *_: calls.append("backward"))
    swapped(conv)
    with torch.no_grad():
        conv.weight_g.mul_(2)
    out = conv(torch.randn(2, 4, 9, 8, requires_grad=True))
    out.sum().backward()
    assert calls == ["pre", "forward", "backward"]
    assert conv.weight_g.grad is not None


# No state


def test_copies_and_files() -> None:
    layer, x = PartialConv2d(4, 4, 3, padding=1, scale="sqrt"), torch.randn(2, 4, 9, 8)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), loaded):
        assert type(other) is PartialConv2d
        assert torch.equal(other(x), layer(x))


def test_calls_leave_nothing_behind() -> None:
    """No cache in the pickle, in the state or on the class, whatever was run."""
    layer = PartialConv2d(4, 4, 3, padding=1)
    fresh, attributes, members = pickle.dumps(layer), set(vars(layer)), set(vars(PartialConv2d))
    with torch.no_grad():
        for size in ((9, 8), (5, 5), (17, 3)):
            layer(torch.randn(2, 4, *size))
            layer(torch.randn(2, 4, *size), torch.ones(2, 1, *size))
    with torch.inference_mode():
        layer(torch.randn(2, 4, 9, 8))
    assert pickle.dumps(layer) == fresh
    assert set(vars(layer)) == attributes
    assert set(vars(PartialConv2d)) == members


def test_layer_moves_between_dtypes_modes_and_devices() -> None:
    layer, x = PartialConv2d(4, 4, 3, padding=1), torch.randn(2, 4, 9, 8)
    first = layer(x)
    with torch.inference_mode():
        layer(x)
    for dtype in (torch.float64, torch.bfloat16):
        assert layer.to(dtype)(x.to(dtype)).dtype == dtype
    layer.train()
    layer.float()(x).sum().backward()
    assert layer.weight.grad is not None
    fresh = PartialConv2d(4, 4, 3, padding=1)
    fresh.load_state_dict(layer.state_dict())  # the weights as bfloat16 has rounded them
    assert torch.equal(layer(x), fresh(x))
    assert layer.to("meta")(x.to("meta")).shape == first.shape


@pytest.mark.compile
@pytest.mark.parametrize("kind", ["stock", "user"])
def test_32_sizes_cost_no_more_compilations_than_a_plain_layer(kind: str) -> None:
    def make() -> nn.Module:
        return nn.Conv2d(4, 4, 3, padding=1) if kind == "stock" else Tagged(4, "stem")

    def compilations(conv: nn.Module) -> int:
        torch._dynamo.reset()
        counter = CompileCounter()
        compiled = torch.compile(conv, backend=counter, fullgraph=True)
        with torch.no_grad():
            for n in range(32):
                compiled(torch.randn(2, 4, 8 + n, 9 + n // 2))
        return counter.frame_count

    assert compilations(swapped(make())) <= compilations(make()) + 1


@pytest.mark.compile
@pytest.mark.parametrize("strict", [True, False])
def test_warm_layer_exports_for_every_size(strict: bool) -> None:
    layer, dim = PartialConv2d(4, 4, 3, 2, 1), torch.export.Dim
    layer(torch.randn(2, 4, 9, 8))
    shapes = ({0: dim("n"), 2: dim("h", min=4), 3: dim("w", min=4)},)
    exported = torch.export.export(layer, (torch.randn(2, 4, 9, 8),), dynamic_shapes=shapes, strict=strict)
    x = torch.randn(7, 4, 14, 21)
    torch.testing.assert_close(exported.module()(x), layer(x))
