"""Functions that leave every position where it is, under all the names that torch has for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import padrewrite as pr
from analyses.oracles import reached_by_gradient


class Net(nn.Module):
    """Two convolutions and a function between them, of numbers between 0 and 1."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(0.1 + 0.8 * self.first(x).sigmoid()))


SPECIAL = (
    *("expit", "logit", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expm1", "gammaln", "digamma", "psi", "i0"),
    *("i0e", "i1", "i1e", "log1p", "log_ndtr", "ndtr", "ndtri", "sinc"),
)
PLAIN = (
    *("asin", "acos", "atanh", "asinh", "sinh", "cosh", "arctan", "deg2rad", "rad2deg", "log10", "exp2", "lgamma"),
    *("digamma", "logit", "sinc", "real", "conj", "resolve_conj", "clone", "as_tensor", "asarray"),
)
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"special.{name}": getattr(torch.special, name) for name in SPECIAL},
    **{name: getattr(torch, name) for name in PLAIN},
    "special.xlogy": lambda x: torch.special.xlogy(x, x),
    "special.xlog1py": lambda x: torch.special.xlog1py(x, x),
    "special.polygamma": lambda x: torch.special.polygamma(1, x),
    "special.softmax": lambda x: torch.special.softmax(x, 1) * x,
    "special.logsumexp": lambda x: x * torch.special.logsumexp(x, 1, keepdim=True),
    "hypot": lambda x: torch.hypot(x, x + 1),
    "ldexp": lambda x: torch.ldexp(x, torch.tensor(2)),
    "float_power": lambda x: torch.float_power(x, 2).to(x.dtype),
    "logaddexp2": lambda x: torch.logaddexp2(x, x),
    "arctan2": lambda x: torch.arctan2(x, x + 1),
    "mvlgamma": lambda x: torch.mvlgamma(x + 1, 2),
    "as_subclass": lambda x: x.as_subclass(Tensor),
    "as_tensor of a type": lambda x: torch.as_tensor(x, dtype=x.dtype),
    "less": lambda x: x * torch.less(x, 2),
    "isinf": lambda x: torch.where(torch.isinf(x), x, x + 1),
}


@pytest.mark.filterwarnings("ignore:torch.asarray")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_positions_stay(name: str) -> None:
    torch.manual_seed(0)
    model, x = Net(FUNCTIONS[name]), torch.randn(1, 1, 7, 9)
    site = pr.analyze(model, example_inputs=x).sites["last"]
    (wanted,) = reached_by_gradient(model, [x], "last")
    assert len(wanted) == 25
    assert site.reached is not None
    assert site.reached.positions() == wanted
    assert (site.receptive_field, site.context, site.ended) == ((5, 5), False, None)
