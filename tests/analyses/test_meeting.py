"""What is reached of several inputs, of which some never meet a convolution of their own, against gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import reached_by_gradient


class Joined(nn.Module):
    """What a convolution makes of the first input, joined with other inputs before another convolution."""

    def __init__(self, join: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 1, 3, padding=1), nn.LazyConv2d(1, 3, padding=1)
        self.join = join

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        return self.last(self.join(self.first(x), *others))


MAP = (1, 1, 11, 13)
JOINS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "sum": (lambda y, m: y + m, (MAP,)),
    "sum, the other way round": (lambda y, m: m + y, (MAP,)),
    "difference": (lambda y, m: y - m, (MAP,)),
    "product": (lambda y, m: y * m, (MAP,)),
    "product, the other way round": (lambda y, m: m * y, (MAP,)),
    "concatenation": (lambda y, m: torch.cat([y, m], 1), (MAP,)),
    "concatenation, the other way round": (lambda y, m: torch.cat([m, y], 1), (MAP,)),
    "pooled": (lambda y, m: y + F.avg_pool2d(m, 3, 1, 1), (MAP,)),
    "pooled, the other way round": (lambda y, m: F.avg_pool2d(m, 3, 1, 1) + y, (MAP,)),
    "resized": (lambda y, m: y + F.interpolate(m, size=(11, 13)), ((1, 1, 6, 5),)),
    "one pixel": (lambda y, m: y + m, ((1, 1, 1, 1),)),
    "a row": (lambda y, m: y * m, ((1, 1, 1, 13),)),
    "a column, the other way round": (lambda y, m: m * y, ((1, 1, 11, 1),)),
    "a vector": (lambda y, m: y + m, ((13,),)),
    "a matrix": (lambda y, m: m - y, ((11, 13),)),
    "transposed": (lambda y, m: y + m.transpose(2, 3), ((1, 1, 13, 11),)),
    "two": (lambda y, m, n: y + (m + n), (MAP, MAP)),
    "two in turn": (lambda y, m, n: n * (m - y), (MAP, (11, 1))),
    "through the other": (lambda y, m, n: torch.cat([y, F.avg_pool2d(m + n, 3, 1, 1)], 1), (MAP, (13,))),
}


@pytest.mark.parametrize("name", JOINS)
def test_inputs_that_never_meet_a_convolution_of_their_own(name: str) -> None:
    torch.manual_seed(0)
    join, shapes = JOINS[name]
    inputs = (torch.randn(MAP), *(torch.randn(shape) for shape in shapes))
    model = Joined(join)
    model(*inputs)
    site = pr.analyze(model, example_inputs=inputs).sites["last"]
    wanted = reached_by_gradient(model, inputs, "last")
    assert all(wanted)
    assert {i: seen.positions() for i, seen in site.reached_of.items()} == dict(enumerate(wanted))
    assert (site.context, site.ended) == (False, None)


class Gated(nn.Module):
    """What a convolution makes of the last input, and a function of it and the others, before another convolution."""

    def __init__(self, join: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 3, padding=1)
        self.linear, self.along, self.one = nn.Linear(3, 3), nn.LazyLinear(3), nn.Conv2d(3, 3, 1)
        self.join = join

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.last(self.join(self, self.first(inputs[-1]), *inputs[:-1]))


Join = Callable[..., Tensor]
WHOLES: dict[str, Join] = {
    "mean": lambda s, y, x: y + x.mean((2, 3), keepdim=True),
    "mean of all": lambda s, y, x: y * x.mean(),
    "gate": lambda s, y, x: y * torch.sigmoid(s.linear(x.mean((2, 3))))[:, :, None, None],
    "gate of a convolution": lambda s, y, x: y * torch.sigmoid(s.one(x.mean((2, 3), keepdim=True))),
    "adaptive pool": lambda s, y, x: y + F.adaptive_avg_pool2d(x, 1),
    "pool of a pointwise call": lambda s, y, x: y + x.square().sum((-1, -2))[..., None, None],
    "one axis after the other": lambda s, y, x: y + x.mean(3).mean(2)[:, :, None, None],
    "flat": lambda s, y, x: y + x.flatten(2).mean(2)[..., None, None],
    "linear layer of all": lambda s, y, x: y + s.along(x.flatten(1))[..., None, None],
    "normed": lambda s, y, x: y + x / x.std((2, 3), keepdim=True),
}
PARTS: dict[str, Join] = {
    "one pixel": lambda s, y, x: y + x[:, :, 4, 5][..., None, None],
    "linear layer of one pixel": lambda s, y, x: y * s.linear(x[:, :, 4, 5])[..., None, None],
    "in place": lambda s, y, x: y + x,
    "mean of channels": lambda s, y, x: y + x.mean(1, keepdim=True),
    "unused": lambda s, y, x: y,
}


@pytest.mark.parametrize("name", [*WHOLES, *PARTS])
def test_another_input_that_is_pooled_is_context(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = Gated((WHOLES | PARTS)[name]), (torch.randn(1, 3, 11, 13), torch.randn(MAP))
    model.along(inputs[0].flatten(1))
    found = pr.analyze(model, example_inputs=inputs).sites
    pooled, own = reached_by_gradient(model, inputs, "last")
    assert (len(pooled) == 11 * 13) == (name in WHOLES)
    assert found["last"].context == (name in WHOLES)
    assert not found["first"].context
    assert found["last"].reached_of[len(inputs) - 1].positions() == own


def test_features_are_no_context() -> None:
    model, inputs = Gated(lambda s, y, z: y * s.linear(z)[..., None, None]), (torch.randn(1, 3), torch.randn(MAP))
    model.along(torch.zeros(1, 2))
    assert not pr.analyze(model, example_inputs=inputs).sites["last"].context


def test_an_input_that_is_not_followed_is_named() -> None:
    """It reaches everything: nothing is said of the other then, either."""
    model, inputs = Joined(lambda y, m: y + torch.fft.fft2(m).real), (torch.randn(MAP), torch.randn(MAP))
    model(*inputs)
    found = pr.analyze(model, example_inputs=inputs)
    assert found.sites["last"].reached_of == {}
    (end,) = found.of("reasoning-ended")
    assert end.site.endswith("#fft_fft2.0")
    assert end.sites == ("last",)
