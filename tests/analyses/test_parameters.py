"""Parameters have no positions, whatever is computed of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import reached_by_gradient

Use = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Two convolutions, and between them something that is computed of parameters."""

    def __init__(self, use: Use) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.map, self.kernel = nn.Parameter(torch.randn(1, 4, 9, 11)), nn.Parameter(torch.randn(4, 4, 3, 3))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.use(self, self.first(x)))


USES: dict[str, Use] = {
    "weights less their mean": lambda s, y: F.conv2d(y, s.kernel - s.kernel.mean((1, 2, 3), keepdim=True), padding=1),
    "weights less the mean of each kernel": lambda s, y: F.conv2d(y, s.kernel - s.kernel.mean((2, 3), True), padding=1),
    "weights by their sum": lambda s, y: F.conv2d(y, s.kernel / s.kernel.sum((2, 3), keepdim=True), padding=1),
    "weights by their deviation": lambda s, y: F.conv2d(y, s.kernel / s.kernel.std(), padding=1),
    "a mean": lambda s, y: y + s.map.mean((2, 3), keepdim=True),
    "an adaptive pool": lambda s, y: y + F.adaptive_avg_pool2d(s.map, 1),
    "an average pool": lambda s, y: y + F.avg_pool2d(s.map, 3, 1, 1),
    "a maximum pool": lambda s, y: y + F.max_pool2d(s.map, 3, 1, 1),
    "a maximum": lambda s, y: y + s.map.max(1, keepdim=True)[0],
    "a convolution": lambda s, y: y + F.conv2d(s.map, s.kernel, padding=1),
    "a resize": lambda s, y: y + F.interpolate(s.map[..., :5], size=y.shape[2:], mode="bilinear"),
    "parts": lambda s, y: y + torch.cat(s.map.chunk(2, 1), 1),
    "a sorted map": lambda s, y: y + s.map.sort(-1)[0],
    "a sum": lambda s, y: y * s.map.sum(),
}


@pytest.mark.parametrize("name", USES)
def test_what_is_computed_of_parameters_is_no_position(name: str) -> None:
    torch.manual_seed(0)
    model, x = Net(USES[name]), torch.randn(1, 1, 9, 11)
    site = pr.analyze(model, example_inputs=x).sites["last"]
    (wanted,) = reached_by_gradient(model, [x], "last")
    assert site.reached is not None
    assert site.reached.positions() == wanted
    assert not site.context
    assert site.ended is None
