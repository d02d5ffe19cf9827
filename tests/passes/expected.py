"""What the tests of the passes compare with: rows of refusals, small models, a network's naive reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import settings
from strategies import Convolve, LayerSpec, Net, NetSpec
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.checks.naive import naive_conv

# Recording and a full verification take most of a second for each network.
FEW = settings(max_examples=max(5, settings.default.max_examples // 3))
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


@dataclass(frozen=True)
class Row:
    """One way not to be rewritten, shown by the first convolution of a model."""

    code: str
    status: str
    passes: str
    model: Callable[[], nn.Module]
    sizes: tuple[int, ...] | None = None
    """Of an input with 3 channels; None to read the module tree alone."""

    def decide(self) -> pr.Decision:
        x = None if self.sizes is None else torch.ones(2, 3, *self.sizes)
        return pr.plan(self.model(), [self.passes], example_inputs=x, allow_no_effect=True).decisions[0]


def image(*sizes: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, *sizes, dtype=torch.float64)


class Borrowed(nn.Module):
    """A functional convolution behind an explicit pad, its weight a parameter of the net."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 2, 0, 1)), self.weight, self.bias)


class TensorflowSame(nn.Conv2d):
    """Pads by amounts that depend on the input's size, the odd pixel after, in a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (
            same_padding(n, k, s) for n, k, s in zip(x.shape[-2:], self.kernel_size, self.stride)
        )
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Twice(nn.Module):
    """One layer at two places."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.between(self.conv(x)))


@dataclass(frozen=True)
class Single:
    """A model with one convolution, and all that pads it for an input of (height, width)."""

    model: Callable[[], nn.Module]
    padding: Callable[[int, int], tuple[tuple[int, int], ...]]
    stride: tuple[int, int] = (1, 1)

    def reference(self, model: nn.Module, x: Tensor, modes: Sequence[str], partial: str | None) -> Tensor:
        weight, bias = model.parameters()
        padding = self.padding(*x.shape[-2:])
        out = naive_conv(x, weight, bias, stride=self.stride, padding=padding, modes=modes, partial=partial)
        assert isinstance(out, Tensor)
        return out


SINGLES = {
    "layer": Single(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), lambda h, w: ((1, 1), (1, 1))),
    "the model itself": Single(lambda: nn.Conv2d(3, 4, (3, 5), padding=(1, 2)), lambda h, w: ((1, 1), (2, 2))),
    "ZeroPad2d": Single(
        lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(3, 4, 3)), lambda h, w: ((0, 1), (1, 2))
    ),
    "ZeroPad2d and padding": Single(
        lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 0, 0)), nn.Conv2d(3, 4, 3, padding=1)),
        lambda h, w: ((1, 1), (2, 1)),
    ),
    "F.pad and F.conv2d": Single(Borrowed, lambda h, w: ((0, 1), (1, 2))),
    "same, even kernel": Single(lambda: nn.Conv2d(3, 4, 4, padding="same"), lambda h, w: ((1, 2), (1, 2))),
    "TensorFlow's SAME": Single(
        lambda: nn.Sequential(TensorflowSame(3, 4, 3, stride=2)),
        lambda h, w: (same_padding(h, 3, 2), same_padding(w, 3, 2)),
        (2, 2),
    ),
}


def total_padding(spec: NetSpec, step: Convolve) -> list[tuple[int, int]]:
    """Explicit and own padding of a call together."""
    explicit = step.explicit or ((0, 0),) * spec.rank
    own = spec.layers[step.layer].pads
    return [(before + lo, after + hi) for (before, after), (lo, hi) in zip(own, explicit)]


def with_shared_modules(spec: NetSpec, alone: Sequence[str]) -> list[str]:
    """The codes of all calls, from what each would get alone: a module's calls change alike or not at all."""
    codes: list[str] = []
    for step, code in zip(spec.calls, alone, strict=True):
        others = [(o.explicit, c) for o, c in zip(spec.calls, alone) if o.layer == step.layer]
        functional = spec.layers[step.layer].functional
        alike = functional or all(other == (step.explicit, "rewritten") for other in others)
        codes.append(code if code != "rewritten" or alike else "shared-module")
    return codes


def naive_outputs(
    spec: NetSpec, new: Net, x: Tensor, options: Callable[[int, LayerSpec], dict[str, object]]
) -> tuple[Tensor, ...]:
    """The network with every convolution computed naively; ``options`` are those of its n-th call."""
    count = iter(range(len(spec.calls)))

    def conv(step: Convolve, x: Tensor) -> Tensor:
        layer, module = spec.layers[step.layer], new.get_submodule(f"layers.{step.layer}")
        out = naive_conv(
            x,
            module.weight,
            module.bias,
            stride=layer.stride,
            dilation=layer.dilation,
            padding=total_padding(spec, step),
            groups=layer.groups,
            **options(next(count), layer),
        )
        assert isinstance(out, Tensor)
        return out

    return new.run(x, conv)
