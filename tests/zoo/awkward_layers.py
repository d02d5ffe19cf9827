"""Convolutions that are awkward to find or to rewrite: by padding, spelling, sharing or parametrisation."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import weight_norm as old_weight_norm

from .networks import Inputs, Network, noise, tabulate

LAYERS: dict[str, Network] = {}


def one_per_rank() -> Inputs:
    """A 1-D, a 2-D and a 3-D batch."""
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(shape, generator=generator) for shape in ((2, 4, 9), (1, 4, 7, 6), (1, 4, 4, 5, 6))
    )


@tabulate(LAYERS, noise(2, 3, 12, 10))
class SharedAtTwoResolutions(nn.Module):
    """One convolution called twice, on inputs of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.shared(self.stem(x))
        return fine, self.shared(F.max_pool2d(fine, 2))


@tabulate(LAYERS, noise(1, 4, 9, 11))
class TwoNamesOneConv(nn.Module):
    """The same module under two names, called through both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


@tabulate(LAYERS, noise(1, 3, 9, 11))
class RawParameter(nn.Module):
    """No convolution module at all: F.conv2d with a bare parameter, twice with different paddings."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.offset = nn.Parameter(torch.randn(3, 3, 3, 3)), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.kernel, self.offset, padding=1)
        return F.conv2d(
            input=y, weight=self.kernel, bias=None, stride=(2, 1), padding=(2, 1), dilation=(2, 1)
        )


@tabulate(LAYERS, noise(1, 3, 10, 11))
class BorrowedWeight(nn.Module):
    """F.conv2d with another module's weight, and a transposed convolution tied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) + F.conv2d(x, self.conv.weight, padding=2, dilation=2)
        return F.conv_transpose2d(y, self.conv.weight, padding=1)


@tabulate(LAYERS, noise(1, 3, 9, 11))
class HooksBypassed(nn.Module):
    """conv.forward and conv._conv_forward called by hand: no module hook ever fires."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv.forward(x))
        return self.last._conv_forward(y, self.last.weight * 2, self.last.bias)


@tabulate(LAYERS, noise(1, 3, 9, 11))
class SpelledInFull(nn.Module):
    """The same convolution through each of torch's names for it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.offset = nn.Parameter(torch.randn(3, 3, 3, 3) / 5), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.conv2d(x, self.kernel, self.offset, 1, 1)
        x = torch.convolution(x, self.kernel, self.offset, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        x = torch.ops.aten.conv2d.default(x, self.kernel, self.offset, [1, 1], [1, 1])
        x = torch.ops.aten.convolution(x, self.kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        return x.relu()


class SameConv(nn.Conv2d):
    """TensorFlow's SAME padding, computed in forward."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):
            n, s, k = input.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            missing = max((math.ceil(n / s) - 1) * s + (k - 1) * self.dilation[axis] + 1 - n, 0)
            pads += [missing // 2, missing - missing // 2]
        input = F.pad(input, pads)
        return F.conv2d(input, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class StandardisedConv(nn.Conv2d):
    """Weight standardisation: the kernel is normalised in each forward."""

    def forward(self, input: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(input, centred / (centred.std((1, 2, 3), keepdim=True) + 1e-5), self.bias)


@tabulate(LAYERS, noise(1, 3, 11, 14))
class Subclasses(nn.Module):
    """Subclasses of nn.Conv2d whose forward pads by hand or changes the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.strided = SameConv(3, 4, 4), SameConv(4, 4, 3, stride=2)
        self.standardised = StandardisedConv(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.standardised(self.strided(self.same(x)))


@tabulate(LAYERS, noise(1, 3, 11, 14))
class PadModules(nn.Module):
    """Zero, reflecting, constant and cropping pads as modules in front of convolutions that pad again."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, stride=2))
        self.reflect = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(4, 4, 3))
        self.ones = nn.Sequential(nn.ConstantPad2d(1, 1.0), nn.Conv2d(4, 4, 3))
        self.both = nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(4, 4, 3, padding=1))
        self.crop = nn.Sequential(nn.ZeroPad2d((-1, 1, 0, -2)), nn.Conv2d(4, 4, 3, padding=(1, 0)))

    def forward(self, x: Tensor) -> Tensor:
        return self.crop(self.both(self.ones(self.reflect(self.zero(x)))))


@tabulate(LAYERS, noise(1, 3, 10, 13))
class PadInTheParent(nn.Module):
    """Pads in the parent's forward: asymmetric, of zero width, over channels, one for two consumers."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.plain = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 4, 3), nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(F.pad(x, (0, 1, 0, 1)))
        x = self.plain(F.pad(x, (0, 0, 0, 0)))
        wide = F.pad(x, (1, 1, 1, 1))
        x = self.left(wide) + F.max_pool2d(wide, 3, 1)
        return self.right(F.pad(x, (0, 0, 0, 0, 1, 1)))


@tabulate(LAYERS, noise(1, 3, 9, 12))
class PadWrittenByHand(nn.Module):
    """A zero pad whose columns are then overwritten, in place and through a view: wrapping around by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.pad(x, (1, 1, 1, 1))
        wide[:, :, 1:-1, 0], wide[:, :, 1:-1, -1] = x[..., -1], x[..., 0]
        wide = F.pad(self.first(wide), (1, 1, 0, 0))
        wide[..., :1].copy_(wide[..., -2:-1])
        wide = F.pad(self.second(wide), (1, 1, 0, 0)).add_(1)
        return self.third(wide)


@tabulate(LAYERS, noise(1, 3, 9, 12))
class StringPaddings(nn.Module):
    """'same' with even kernels and dilation, which torch pads unevenly, and 'valid'."""

    def __init__(self) -> None:
        super().__init__()
        self.even = nn.Conv2d(3, 4, (4, 2), padding="same")
        self.dilated = nn.Conv2d(4, 4, (2, 3), dilation=(3, 2), padding="same")
        self.reflected = nn.Conv2d(4, 4, 4, padding="same", padding_mode="reflect")
        self.valid = nn.Conv2d(4, 4, 3, padding="valid")

    def forward(self, x: Tensor) -> Tensor:
        return self.valid(self.reflected(self.dilated(self.even(x))))


@tabulate(LAYERS, noise(1, 3, 9, 12))
class PaddingModes(nn.Module):
    """Every padding_mode, with a different width on each axis."""

    def __init__(self) -> None:
        super().__init__()
        modes = ("zeros", "reflect", "replicate", "circular")
        self.convs = nn.ModuleList(
            nn.Conv2d(3, 3, (5, 3), padding=(2, 1), padding_mode=mode) for mode in modes
        )

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        return x


@tabulate(LAYERS, noise(1, 2, 1, 5))
class PaddingBeyondTheKernel(nn.Module):
    """Windows that see no input at all: at the rim, and (kernel 2, dilation 2) in the middle of the map."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(2, 3, 1, padding=1)
        self.comb = nn.Conv2d(2, 3, (2, 3), padding=(1, 4), dilation=(2, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.pointwise(x), self.comb(x)


@tabulate(LAYERS, one_per_rank)
class TransposedEveryRank(nn.Module):
    """Transposed convolutions in 1-D to 3-D: output_padding, groups, output_size given at the call."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.ConvTranspose1d(4, 2, 4, stride=2, padding=1)
        self.image = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=(1, 0), groups=2)
        self.volume = nn.ConvTranspose3d(4, 2, 3, stride=2, padding=1, dilation=(1, 2, 1))
        self.after = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, line: Tensor, image: Tensor, volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        exact = [2 * n for n in volume.shape[2:]]
        exact[1] = self.volume(volume).shape[3]
        return self.line(line), self.after(self.image(image)), self.volume(volume, output_size=exact)


@tabulate(LAYERS, one_per_rank)
class EveryRank(nn.Module):
    """1-D to 3-D convolutions: grouped, depthwise with a multiplier, non-square, strided, dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.causal = nn.Conv1d(4, 6, 3, padding=4, dilation=2)
        self.grouped = nn.Conv2d(4, 8, (5, 1), stride=(2, 1), padding=(2, 0), groups=2)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8, bias=False)
        self.volume = nn.Conv3d(4, 3, (1, 3, 2), padding=(0, 1, 1))

    def forward(self, line: Tensor, image: Tensor, volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        causal = self.causal(line)[..., : line.shape[-1]]
        return causal, self.depthwise(self.grouped(image)), self.volume(volume)


def double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * 2


@tabulate(LAYERS, noise(1, 3, 9, 12))
class Parametrised(nn.Module):
    """weight_norm of both styles, spectral_norm, and a forward hook on one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.old = old_weight_norm(nn.Conv2d(3, 4, 3, padding=1))
        self.new = parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1))
        self.spectral = parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1))
        self.new.register_forward_hook(double)

    def forward(self, x: Tensor) -> Tensor:
        return self.spectral(self.new(self.old(x)))


@tabulate(LAYERS, noise(3, 9, 12))
class Unbatched(nn.Module):
    """An input without batch axis, and pads and pools on it."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.max_pool2d(self.down(F.pad(x, (1, 1, 1, 1))), 2))


class ScaledSequential(nn.Sequential):
    """A Sequential with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 0.5 + input


@tabulate(LAYERS, noise(1, 4, 9, 12))
class SequentialSubclass(nn.Module):
    """Convolutions inside a subclass of nn.Sequential, reached by iteration and index too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ScaledSequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body.children():
            x = layer(x)
        return self.body[-1](self.body(x))


@tabulate(LAYERS, noise(2, 4, 9, 12))
class ComputedKernels(nn.Module):
    """Kernels that are no parameter: a blur buffer expanded per channel, and one computed from the input."""

    blur: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("blur", torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16)
        self.predict = nn.Linear(4, 4 * 4 * 9)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = F.conv2d(x, self.blur.expand(c, 1, 3, 3), padding=1, groups=c)
        kernels = self.predict(y.mean((2, 3))).reshape(n * c, c, 3, 3)
        return F.conv2d(y.reshape(1, n * c, h, w), kernels, padding=1, groups=n).reshape(n, c, h, w)


def _double() -> Any:
    return noise(1, 3, 9, 12)()[0].double(), 2


@tabulate(LAYERS, _double)
class DoublePrecision(nn.Module):
    """Float64 parameters and inputs, and a stride that the caller chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.double()

    def forward(self, x: Tensor, stride: int) -> Tensor:
        return F.conv2d(self.conv(x), self.conv.weight.transpose(0, 1), stride=stride, padding=1)
