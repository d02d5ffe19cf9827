"""Forwards that are awkward to follow: control flow, side effects, tensors from nowhere, hidden steps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .networks import Network, conv, noise, tabulate

FORWARDS: dict[str, Network] = {}


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class DataDependentBranch(nn.Module):
    """Python branches and loops on values: if x.mean() > 0, and a count read with .item()."""

    def __init__(self) -> None:
        super().__init__()
        self.yes, self.no, self.again = conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.yes(x) if x.mean() > 0 else self.no(x)
        for _ in range(int((x.abs().amax() > 0).sum().item()) + 1):
            x = torch.tanh(self.again(x))
        return x


@tabulate(FORWARDS, noise(2, 4, 9, 11))
class WrittenInPlace(nn.Module):
    """In-place ops, and writes through views, slices, masks and .data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = conv(), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu_()
        y[:, :2] += 1
        half = y.view(2, 2, 2, 9, 11)[:, 1]
        half.mul_(0.5)
        y[y > 1.5] = 1.5
        z = self.second(y)
        z[..., ::2] = z[..., ::2].clone() - 1
        z.data.add_(0.25)
        z.transpose(2, 3)[:, 0].clamp_(min=0)
        return self.third(z).add_(y)


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class OutArguments(nn.Module):
    """Results written into tensors made earlier with empty, through out=."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        buffer = torch.empty_like(y)
        torch.add(y, x, out=buffer)
        both = x.new_empty(1, 8, 9, 11)
        torch.cat([buffer, y], 1, out=both)
        values, _ = torch.max(both, 1, keepdim=True)
        return self.second(buffer) + values


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class Checkpointed(nn.Module):
    """A block under torch.utils.checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv()
        self.block = nn.Sequential(conv(), nn.ReLU(), conv())

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, self.first(x), use_reentrant=False)  # pyright: ignore[reportReturnType]


class Swish(torch.autograd.Function):
    """x * sigmoid(x) that saves its input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grad * (s + x * s * (1 - s))


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class CustomFunction(nn.Module):
    """A torch.autograd.Function between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(Swish.apply(self.first(x)))  # pyright: ignore[reportArgumentType]


@tabulate(FORWARDS, noise(2, 4, 9, 11))
class BornInForward(nn.Module):
    """Tensors that come from no input: coordinate grids, zeros, constant lists, a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.coord, self.warp = conv(6), conv()
        self.mean = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        rows, columns = torch.linspace(-1, 1, h, dtype=x.dtype), torch.arange(w).to(x) / w
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
        y = self.coord(torch.cat([x - self.mean, grid], 1)) + x.new_zeros(4, 1, 1)
        y = F.grid_sample(y, grid.permute(0, 2, 3, 1), align_corners=False)
        return self.warp(y) * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class CachedByShape(nn.Module):
    """A mask made at the first call of each size and kept on self."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cache = conv(), {}

    def forward(self, x: Tensor) -> Tensor:
        key = tuple(x.shape[-2:])
        if key not in self.cache:
            self.cache[key] = torch.ones(1, 1, *key).cumsum(-1) / key[1]
        return self.conv(x * self.cache[key])


@tabulate(FORWARDS, noise(4, 4, 9, 11), train=True)
class TrainMode(nn.Module):
    """Train mode: batch statistics, running statistics that change, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.second = conv(), nn.BatchNorm2d(4), nn.Dropout2d(0.3), conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(F.relu(self.norm(self.first(x)))))


@tabulate(FORWARDS, noise(1, 4, 16, 12))
class ModuleLoops(nn.Module):
    """Branches from zip over a ModuleList and a ModuleDict; all are resized to the first one's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([conv(), conv(stride=2)])
        self.norms = nn.ModuleDict({"a": nn.GroupNorm(2, 4), "b": nn.InstanceNorm2d(4)})

    def forward(self, x: Tensor) -> Tensor:
        outs = [norm(layer(x)) for layer, norm in zip(self.convs, self.norms.values(), strict=True)]
        size = outs[0].shape[2:]
        return sum(
            (F.interpolate(o, size, mode="bilinear", align_corners=True) for o in outs), torch.zeros(1)
        )


def blur(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return F.avg_pool2d(output, 3, 1, 1)


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class HooksThatChange(nn.Module):
    """A pre-hook that changes the input, a hook that replaces the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()
        self.first.register_forward_pre_hook(lambda _module, args: (args[0].flip(-1),))
        self.second.register_forward_hook(blur)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class CounterBuffer(nn.Module):
    """A buffer that counts calls, in place; the output does not depend on it."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(x)


@tabulate(FORWARDS, noise(1, 4, 8, 12))
class Fourier(nn.Module):
    """Complex numbers between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()
        self.filter = nn.Parameter(torch.randn(4, 8, 7, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(self.first(x), norm="ortho") * self.filter
        return self.second(torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho")) + spectrum.abs().mean()


@tabulate(FORWARDS, noise(2, 4, 8, 12))
class Reshaped(nn.Module):
    """Windows cut by reshape, permute and unflatten of sizes read from the input, attention inside them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = conv(), conv()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        (n, c, h, w), s = x.shape, 4
        y = self.conv(x).unflatten(2, (h // s, s)).unflatten(4, (-1, s))
        tokens = y.permute(0, 2, 4, 3, 5, 1).reshape(n * (h // s) * (w // s), s * s, c)
        tokens = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]
        y = tokens.view(n, h // s, w // s, s, s, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)
        return self.last(y)


@tabulate(FORWARDS, noise(2, 3, 4, 8, 9), expect="torch.vmap hides the real sizes of its calls")
class VmapInside(nn.Module):
    """torch.vmap over the frames of a clip (N, T, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(self.conv, in_dims=1, out_dims=1)(x)


@tabulate(FORWARDS, noise(1, 4, 9, 11), expect="a scripted module cannot be followed")
class Scripted(nn.Module):
    """A submodule compiled by torch.jit.script."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv()
        self.scripted = torch.jit.script(nn.Sequential(conv(), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scripted(self.first(x))


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class MeasuredScale(nn.Module):
    """A number read from a tensor with .item() that enters the arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y / y.abs().max().item())


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class RemembersTheLastCall(nn.Module):
    """Adds its previous output, kept on self: two calls on the same input differ."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = conv(), torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.conv(x) + 0.5 * self.last
        return self.last


@tabulate(FORWARDS, noise(1, 4, 9, 11), expect="numpy hides the connection")
class ThroughNumpy(nn.Module):
    """A detour through numpy between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        values = self.first(x).detach().numpy()
        return self.second(torch.from_numpy(values[..., ::-1].copy()))


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class NoisyInference(nn.Module):
    """Random numbers in eval mode: from the global generator, and by rand_like."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y + 0.1 * torch.randn_like(y)) + torch.rand(1)


@tabulate(FORWARDS, noise(1, 4, 9, 11))
class AutocastInside(nn.Module):
    """Half of the forward under autocast to bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.first(x)
        return self.second(y.to(x.dtype))


@tabulate(FORWARDS, noise(2, 4, 9, 11))
class RecurrentRows(nn.Module):
    """An LSTM over the columns, unbind and chunk, and a function that hands a list back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = conv(), conv(8)
        self.lstm = nn.LSTM(4, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = [self.lstm(row.transpose(1, 2))[0].transpose(1, 2) for row in self.conv(x).unbind(2)]
        forth, back = torch.stack(rows, 2).chunk(2, dim=1)
        return self.last(torch.cat([back, forth], 1))
