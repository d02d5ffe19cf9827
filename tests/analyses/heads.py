"""Networks with heads and positions: made for one size, or following their input."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = (3, 32, 32)


def stem(*head: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), *head)


class Viewed(nn.Module):
    """Behind ``view(-1, number)`` other sizes become other batches, some of which run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = stem(), nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).view(-1, 4 * 8 * 8))


class Inferred(nn.Module):
    """A fixed pool leaves one position, which is flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool, self.head = stem(), nn.AvgPool2d(8, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(self.stem(x))
        return self.head(F.relu(pooled.view(pooled.size(0), -1)))


class Tokens(nn.Module):
    """A vision transformer's patches with a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, 8, 4, 4, 1), nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 65, 8))

    def forward(self, x: Tensor) -> Tensor:
        patches = self.stem(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions


class Signal(nn.Module):
    """A layer over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv1d(2, 4, 5, 3, 2), nn.Linear(11, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.conv(x))


class Free(nn.Module):
    """Channels are fixed, positions are not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scale, self.head = stem(), nn.Parameter(torch.ones(4, 1, 1)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.stem(x) * self.scale).flatten(2).transpose(1, 2))


class Turned(nn.Module):
    """Its input with height and width exchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3)


class Pooled(nn.Module):
    """A pool that leaves one position, and no head behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = stem(), nn.AvgPool2d(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stem(x)).flatten(1)


def plain(forward: Callable[[nn.Conv2d, Tensor], Tensor], stride: int = 1) -> nn.Module:
    """A convolution, and what ``forward`` makes of it."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride, 1)

        def forward(self, x: Tensor) -> Tensor:
            return forward(self.conv, x)

    return Plain()


def by_own_norm(y: Tensor, first: int) -> Tensor:
    return F.layer_norm(y, y.shape[first:])


def by_own_weight(y: Tensor) -> Tensor:
    return F.linear(y.flatten(2), torch.softmax(y.flatten(2).transpose(1, 2) @ y.flatten(2), -1)[0])


def by_own_values(y: Tensor) -> Tensor:
    """A linear layer over positions whose weights are features."""
    tokens = y.flatten(2)
    return F.linear(torch.softmax(tokens.transpose(1, 2) @ tokens, -1), tokens[0])


def by_own_statistics(y: Tensor) -> Tensor:
    tokens = y.flatten(2).transpose(1, 2).detach()
    return F.batch_norm(tokens, tokens.mean((0, 2)), tokens.var((0, 2)))


def by_own_positions(y: Tensor) -> Tensor:
    return y + torch.arange(y.shape[-1]) + torch.ones_like(y)


class Resized(nn.Module):
    """Positions that are a parameter, resized to what they are added to, and cut to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.positions = nn.Conv2d(3, 4, 4, 4), nn.Parameter(torch.randn(1, 4, 30, 30))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y + F.interpolate(self.positions, y.shape[2:])
        return y + self.positions[:, :, : y.shape[2], : y.shape[3]]


class Chosen(nn.Module):
    """Positions that are made of a parameter alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.positions = nn.Conv2d(3, 4, 4, 4), nn.Parameter(torch.randn(1, 4, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.positions[..., 1:, 1:].sin()


def weighted_norm() -> nn.Module:
    """A layer norm of whatever size, but with a weight of one size."""
    weight = nn.Parameter(torch.randn(32, 32))
    model = plain(lambda conv, x: F.layer_norm(y := conv(x), y.shape[2:], weight))
    model.register_parameter("weight", weight)
    return model


def named_arguments() -> nn.Module:
    """Linear layers over both dimensions, the weight named first."""
    weight = torch.randn(32, 32)
    return plain(lambda conv, x: F.linear(weight=weight, input=F.linear(weight=weight, input=conv(x)).mT))
