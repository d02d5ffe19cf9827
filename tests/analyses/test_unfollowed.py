"""Calls that return several tensors, or are not followed: what is claimed behind them, against gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import reached_by_gradient

Between = Callable[["Net", Tensor], Tensor]
SIZE = 8


class Net(nn.Module):
    """Convolutions of 4 channels with something between each and the next."""

    def __init__(self, between: Between, rate: int = 1, depth: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=rate, dilation=rate) for _ in range(depth))
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.gru, self.lstm = nn.GRU(4, 4, batch_first=True), nn.LSTM(4, 4, batch_first=True)
        self.norm, self.along = nn.GroupNorm(2, 4), nn.Linear(SIZE, SIZE)
        self.mixer = nn.Linear(SIZE * SIZE, SIZE * SIZE)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs[0](x)
        for conv in self.convs[1:]:
            x = conv(self.between(self, x))
        return x


def tokens(read: Between) -> Between:
    """``read`` of the positions as a sequence."""

    def between(net: Net, y: Tensor) -> Tensor:
        return read(net, y.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(y.shape)

    return between


def residual(read: Between) -> Between:
    return lambda net, y: y + read(net, y)


attention = tokens(lambda s, t: s.attention(t, t, t)[0])
gru = tokens(lambda s, t: s.gru(t)[0])

LOST: dict[str, tuple[Between, str]] = {
    "attention": (attention, "flatten"),
    "residual attention": (residual(attention), "flatten"),
    "GRU": (gru, "flatten"),
    "residual GRU": (residual(gru), "flatten"),
    "residual LSTM": (residual(tokens(lambda s, t: s.lstm(t)[0])), "flatten"),
    "cumulative maximum": (residual(lambda s, y: y.cummax(-1)[0]), "cummax"),
    "sort": (residual(lambda s, y: torch.sort(y, -1)[0]), "sort"),
    "sort by name": (residual(lambda s, y: torch.sort(y).values), "sort"),
    "topk": (residual(lambda s, y: y.topk(SIZE, -1)[0]), "topk"),
    "QR": (residual(lambda s, y: torch.linalg.qr(y)[0]), "linalg_qr"),
    "SVD": (lambda s, y: y * torch.linalg.svd(y)[1][..., None], "linalg_svd"),
    "meshgrid": (residual(lambda s, y: torch.meshgrid(y[0, 0, 0], y[0, 1, 0], indexing="ij")[0]), "meshgrid"),
    "a mixer": (lambda s, y: s.mixer(y.flatten(2)).reshape(y.shape), "linear"),
    "a linear layer along an axis": (lambda s, y: s.along(y), "linear"),
}

GLOBAL: dict[str, Between] = {
    "mean": lambda s, y: y - torch.var_mean(y, (2, 3), keepdim=True)[1],
    "deviation": lambda s, y: y / torch.std_mean(y, (2, 3), keepdim=True)[0],
    "gate": lambda s, y: y * y.mean((2, 3), keepdim=True).sigmoid(),
    "group norm": lambda s, y: s.norm(y),
}

FOLLOWED: dict[str, Between] = {
    "maximum over channels": residual(lambda s, y: y.max(1, keepdim=True)[0]),
    "minimum over channels": residual(lambda s, y: y.min(1, keepdim=True).values),
    "median over channels": residual(lambda s, y: y.median(1, keepdim=True)[0]),
    "statistics of channels": residual(lambda s, y: torch.var_mean(y, 1, keepdim=True)[1]),
    "extremes of channels": residual(lambda s, y: torch.aminmax(y, dim=1, keepdim=True)[1]),
    "sorted channels": residual(lambda s, y: y.sort(1)[0]),
    "best channels": lambda s, y: y.topk(4, 1)[0],
    "chunks": lambda s, y: torch.cat(y.chunk(2, 1)[::-1], 1),
    "splits": lambda s, y: torch.cat(y.split([1, 3], 1), 1),
    "unbound": lambda s, y: torch.stack(y.unbind(1), 1),
}


def analysed(between: Between, rate: int = 1, depth: int = 2) -> tuple[pr.Analysis, set[tuple[int, ...]]]:
    """The analysis, and by gradients what reaches the middle of the last convolution's output."""
    torch.manual_seed(0)
    model, x = Net(between, rate, depth).eval(), torch.randn(1, 4, SIZE, SIZE)
    found = pr.analyze(model, example_inputs=x)
    (wanted,) = reached_by_gradient(model, [x], f"convs.{depth - 1}")
    return found, wanted


@pytest.mark.parametrize("name", LOST)
def test_nothing_is_claimed_behind_a_call_that_is_not_followed(name: str) -> None:
    between, call = LOST[name]
    found, wanted = analysed(between)
    site = found.sites["convs.1"]
    assert len(wanted) > 25  # more than windows alone let through
    assert site.reached is None
    (end,) = found.of("reasoning-ended")
    assert end.site.endswith(f"#{call}.0")
    assert end.sites == ("convs.1",)
    assert site.ended is not None
    assert call in site.ended


@pytest.mark.parametrize("name", GLOBAL)
def test_what_pools_globally_is_context(name: str) -> None:
    found, wanted = analysed(GLOBAL[name])
    site = found.sites["convs.1"]
    assert len(wanted) == SIZE**2
    assert site.context
    assert site.reached is not None
    assert site.reached.positions() < wanted
    assert not found.of("reasoning-ended")


@pytest.mark.parametrize("name", FOLLOWED)
def test_known_calls_of_several_results_are_followed(name: str) -> None:
    found, wanted = analysed(FOLLOWED[name])
    site = found.sites["convs.1"]
    assert site.reached is not None
    assert site.reached.positions() == wanted
    assert not site.context
    assert site.ended is None


def test_indices_come_from_where_values_come() -> None:
    """They have no gradients: windows of 3, then (of the pool) of 2, then of 3, read 5 or 6 positions per axis."""
    arguments, _ = analysed(residual(lambda s, y: y.max(1, keepdim=True)[1]))
    pooled, wanted = analysed(lambda s, y: sum(F.max_pool2d(y, 2, 1, return_indices=True), torch.zeros(())))
    for found, size in ((arguments, 5), (pooled, 6)):
        site = found.sites["convs.1"]
        assert site.reached is not None
        assert site.reached.positions() >= (wanted if size == 6 else set())
        assert site.reached.extents == (size, size)
        assert site.reached.count == size**2
        assert site.ended is None


@pytest.mark.parametrize("name", LOST)
def test_there_is_no_chain_across_a_call_that_is_not_followed(name: str) -> None:
    found, _ = analysed(LOST[name][0], rate=2, depth=3)
    assert found.chains == ()
    assert not found.of("gridding")


@pytest.mark.parametrize("name", GLOBAL)
def test_across_context_holes_are_those_of_the_windows(name: str) -> None:
    found, wanted = analysed(GLOBAL[name], rate=2, depth=3)
    assert len(wanted) == SIZE**2  # not 4 networks: everything is reached
    (gridding,) = found.of("gridding")
    assert gridding.message.endswith("4 networks that never share an input but for global context (score 1)")
    assert found.chains[0].context


def test_context_before_a_chain_is_not_in_it() -> None:
    class Before(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(GLOBAL["gate"](self, x))

    found = pr.analyze(Before(lambda s, y: y, 2, 3).eval(), example_inputs=torch.randn(1, 4, SIZE, SIZE))
    assert not found.chains[0].context
    assert found.of("gridding")[0].message.endswith("never share an input (score 1)")
