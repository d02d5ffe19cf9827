"""What zeros at the border take away, against networks of averages; what they touch, against NaNs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import NetSpec, nets
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import padrewrite as pr
from analyses.oracles import Marking, tensors_of, without_cancelling
from padrewrite.analyses.border import Border, Borders, Clean
from padrewrite.analyses.layout import Layout, read_layout
from padrewrite.fuzzing.networks import AdaptivePool, Interpolate, LayerSpec, Pad, TransposedSpec
from padrewrite.ops.partial import partial_conv

EXACT = 1e-12


def layout_of(model: nn.Module, x: Tensor) -> Layout:
    return read_layout(pr.record(model, example_inputs=x))


# Moments


AVERAGED = (
    "conv",
    "batch_norm",
    "avg_pool",
    "add",
    "cat",
    "pad",
    "crop",
    "interpolate",
    "transposed_conv",
    "downsample",
)
"""Kinds of which the mean-field moment is what a network of averages makes of ones."""


def averaging(spec: NetSpec) -> NetSpec:
    """Resizes that pick a pixel, pads with zeros, sums, and no groups, which would tell channels apart."""
    steps: list[Any] = []
    for step in without_cancelling(spec).steps:
        if isinstance(step, Interpolate):
            step = replace(step, mode="nearest", align_corners=None, recompute=True if step.factors else None)
        if isinstance(step, Pad) and step.value:
            step = replace(step, value=0.0)
        steps.append(step)
    layers: list[Any] = []
    for layer in spec.layers:
        if isinstance(layer, (LayerSpec, TransposedSpec)):
            layer = replace(layer, groups=1)
        if getattr(layer, "value", 0.0):
            layer = replace(layer, value=0.0)
        layers.append(layer)
    return replace(spec, steps=tuple(steps), layers=tuple(layers), batch=1)


def average_net(spec: NetSpec) -> nn.Module:
    """Every weight such that a window of ones gives one."""
    model = spec.build()
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            shares = module.weight[0].numel() if not module.transposed else module.weight[:, 0].numel()
            module.weight.data.fill_(1 / shares)
            if module.transposed:
                module.weight.data.mul_(torch.Size(module.stride).numel())
            if module.bias is not None:
                module.bias.data.zero_()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 0.0
            for value, number in ((module.weight, 1.0), (module.bias, 0.0)):
                value.data.fill_(number)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.zero_()
            module.running_var.fill_(1.0)
    return model


class Averaging(TorchFunctionMode):
    """The mean of two values in the place of their sum."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result / 2 if getattr(func, "__name__", "").strip("_") == "add" else result


def signal(moments: Tensor) -> Border:
    """Read off a map ``(1, C, *sizes)`` of second moments."""
    flat = moments[0].mean(0).sqrt()
    ends = [flat[index] for index in product(*((0, -1) for _ in flat.shape))]
    sides: list[Tensor] = []
    for axis in range(flat.dim()):
        across = flat.movedim(axis, 0)
        middle = tuple(n // 2 for n in across.shape[1:])
        sides += [across[(0, *middle)], across[(-1, *middle)]]
    middle = flat[tuple(n // 2 for n in flat.shape)]
    return Border(*(float(v) for v in (flat.mean(), torch.stack(ends).mean(), torch.stack(sides).mean(), middle)))


def check_signal(found: Border | None, wanted: Border, kept: Tensor) -> None:
    assert found is not None
    if 1 in kept.shape[2:]:
        assert found.q == pytest.approx(wanted.q, abs=EXACT)  # an axis of one pixel has no sides
    else:
        assert vars(found) == pytest.approx(vars(wanted), abs=EXACT)


@settings(max_examples=max(30, settings.default.max_examples))
@given(nets(ranks=(1, 2), kinds=AVERAGED, linear_only=True, parts=(2, 6)))
def test_moments_of_random_networks(spec: NetSpec) -> None:
    spec = averaging(spec)
    model = average_net(spec)
    x = torch.ones(1, *spec.shape, dtype=torch.float64)
    layout = layout_of(model, x)
    nodes = [*layout.sites.values(), *layout.outputs]
    borders = Borders(layout, nodes)
    with torch.no_grad(), Averaging():
        tensors = tensors_of(model, x)
    for node, moments in zip(nodes, tensors):
        check_signal(borders.of(node), signal(moments), moments)


class Chain(nn.Module):
    """Convolutions in series, of averages."""

    def __init__(self, windows: tuple[tuple[int, int, int, int], ...], convolve: Any) -> None:
        super().__init__()
        self.windows, self.convolve = windows, convolve

    def forward(self, x: Tensor) -> Tensor:
        for window in self.windows:
            x = self.convolve(x, *window)
        return x


def plain(x: Tensor, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    weight = torch.full((1, 1, kernel, kernel), 1 / kernel**2, dtype=x.dtype)
    return F.conv2d(x, weight, None, stride, padding, dilation)


def partial_moments(power: int) -> Any:
    """The second moment behind partial padding: ratio^2 times the mean (mean), ratio times it (sqrt)."""

    def convolve(x: Tensor, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
        share = plain(torch.ones_like(x), kernel, stride, padding, dilation)
        return plain(x, kernel, stride, padding, dilation) / share.where(share > 0, torch.ones_like(share)) ** power

    return convolve


def partial_layer(scale: str) -> Any:
    def convolve(x: Tensor, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
        weight = torch.ones(1, 1, kernel, kernel, dtype=x.dtype)
        return partial_conv(x, weight, None, stride, padding, dilation, scale=scale)

    return convolve


CHAINS = [
    ((3, 1, 1, 1),) * 4,
    ((7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 1, 1), (1, 1, 0, 1), (3, 1, 2, 2)),
    ((2, 1, 1, 1), (4, 2, 1, 1), (3, 1, 4, 4), (5, 1, 2, 1)),
]


@pytest.mark.parametrize(("scale", "power"), [("mean", 2), ("sqrt", 1)])
@pytest.mark.parametrize("windows", CHAINS)
def test_partial_padding(windows: Any, scale: str, power: int) -> None:
    """The same whether the layers pad so, or zero padding is asked to be taken for it."""
    x = torch.ones(1, 1, 21, 18, dtype=torch.float64)
    wanted = signal(Chain(windows, partial_moments(power))(x))
    for convolve, partial in ((plain, scale), (partial_layer(scale), None)):
        layout = layout_of(Chain(windows, convolve), x)
        borders = Borders(layout, layout.outputs, partial)
        check_signal(borders.of(layout.outputs[0]), wanted, x)
    zeros = Borders(layout_of(Chain(windows, plain), x), layout.outputs)
    assert zeros.of(layout.outputs[0]) is None  # a tensor of another layout
    layout = layout_of(Chain(windows, plain), x)
    check_signal(Borders(layout, layout.outputs).of(layout.outputs[0]), signal(Chain(windows, plain)(x)), x)


def test_erosion_of_three_by_three() -> None:
    """One zero-padded 3x3: corners keep 4/9, edges 6/9 of the second moment."""
    x = torch.ones(1, 1, 9, 9, dtype=torch.float64)
    layout = layout_of(Chain(CHAINS[0][:1], plain), x)
    border = Borders(layout, layout.outputs).of(layout.outputs[0])
    assert border is not None
    assert (border.corner, border.edge, border.centre) == pytest.approx(((4 / 9) ** 0.5, (6 / 9) ** 0.5, 1), abs=EXACT)


def test_gates_and_single_images() -> None:
    def gated(x: Tensor) -> Tensor:
        x = plain(x, 3, 1, 1, 1)
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return gated(x)

    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, torch.ones(2, 1, 3, 3, dtype=x.dtype), None, 1, 1)

    x = torch.ones(1, 1, 9, 8, dtype=torch.float64)
    wanted = signal(plain(x, 3, 1, 1, 1))
    for model, given_x in ((Gated(), x), (Single(), x[0])):
        layout = layout_of(model, given_x)
        check_signal(Borders(layout, layout.outputs).of(layout.outputs[0]), wanted, x)


# Touched by made-up values


TOUCHED = (
    *("conv", "pointwise", "batch_norm", "max_pool", "avg_pool", "add", "cat", "pad", "crop", "interpolate", "mul"),
    *("transposed_conv", "residual", "skip", "adaptive_pool", "pixel_shuffle", "downsample"),
)
"""Kinds without a path that reads everything."""


def has_global_pool(spec: NetSpec) -> bool:
    return any(isinstance(s, AdaptivePool) and 1 in s.size for s in spec.steps)


def has_gaps(spec: NetSpec) -> bool:
    """Whether a transposed convolution makes positions of nothing, as kernels smaller than their stride do."""
    return any(
        isinstance(layer, TransposedSpec)
        and any(
            0 in F.conv_transpose1d(torch.ones(1, 1, 9), torch.ones(1, 1, k), None, s, 0, more, 1, d)
            for k, s, more, d in zip(layer.kernel, layer.stride, layer.output_padding, layer.dilation)
        )
        for layer in spec.layers
    )


def touched(model: nn.Module, x: Tensor) -> list[float]:
    """Per convolution and output the share of positions at which some channel is NaN."""
    with torch.no_grad(), Marking():
        values = tensors_of(model, torch.ones_like(x))
    return [float(v.isnan().any(1)[0].double().mean()) for v in values]


def check_clean(model: nn.Module, x: Tensor, pooled: bool = False, gaps: bool = False) -> None:
    """``pooled``: an axis may be pooled away, and then what was touched along it is not followed."""
    layout = layout_of(model, x)
    clean = Clean(layout)
    for node, wanted in zip([*layout.sites.values(), *layout.outputs], touched(model, x)):
        share = clean.share(node)
        if share is None:
            assert pooled, node.name
        elif gaps:
            assert share > wanted - EXACT, node.name
        else:
            assert share == pytest.approx(wanted, abs=EXACT), node.name


@pytest.mark.slow
@settings(max_examples=max(40, settings.default.max_examples))
@given(nets(ranks=(1, 2), kinds=TOUCHED, parts=(2, 6)))
def test_touched_in_random_networks(spec: NetSpec) -> None:
    spec = without_cancelling(spec)
    check_clean(spec.build(), spec.draw_input(), has_global_pool(spec), has_gaps(spec))


@settings(max_examples=max(8, settings.default.max_examples // 4))
@given(nets(ranks=(3,), kinds=TOUCHED, parts=(1, 4)))
def test_touched_in_random_volumes(spec: NetSpec) -> None:
    spec = without_cancelling(spec)
    check_clean(spec.build(), spec.draw_input(), has_global_pool(spec), has_gaps(spec))


def test_padding_along_an_axis_that_was_pooled_away() -> None:
    """All rows become one, and the padding above and below it then touches every position: nothing is claimed."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d((1, 3)), nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1))
    model, x = model.double(), torch.ones(1, 1, 9, 9, dtype=torch.float64)
    assert touched(model, x) == [1, 1, 1]
    layout = layout_of(model, x)
    assert [Clean(layout).share(node) for node in layout.sites.values()] == [None, None]
    check_clean(model, x, pooled=True)


@pytest.mark.parametrize("pad", ["zeros", "reflect", "replicate", "circular"])
def test_only_made_up_values_touch(pad: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1, padding_mode=pad), nn.Conv2d(1, 1, 5, padding=2, padding_mode=pad)
    )
    model, x = model.double(), torch.ones(1, 1, 12, 11, dtype=torch.float64)
    layout = layout_of(model, x)
    shares = [Clean(layout).share(node) for node in layout.sites.values()]
    assert shares == pytest.approx([1 - 90 / 132, 1 - 30 / 132] if pad == "zeros" else [0, 0], abs=EXACT)
    check_clean(model, x)


def test_partial_padding_makes_nothing_up() -> None:
    layout = layout_of(Chain(CHAINS[0], partial_layer("mean")), torch.ones(1, 1, 9, 9, dtype=torch.float64))
    assert Clean(layout).share(layout.outputs[0]) == 0


def test_unknown_where_positions_are_lost_or_pooled() -> None:
    class Ending(nn.Module):
        def __init__(self, end: Any) -> None:
            super().__init__()
            self.end, self.conv = end, nn.Conv2d(1, 1, 3, padding=1).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.conv(x))

    for end in (
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x.flip(2),
        lambda x: x + x.flip(2),
        lambda x: x @ x.transpose(2, 3),
    ):
        layout = layout_of(Ending(end), torch.ones(1, 1, 9, 9, dtype=torch.float64))
        assert Clean(layout).share(layout.outputs[0]) is None
        assert Borders(layout, layout.outputs).of(layout.outputs[0]) is None or "flip" in str(layout.steps)
