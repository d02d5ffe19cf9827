"""Strides into rates by dataflow: what becomes finer and by how much, where old values end, and what stops it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import padrewrite as pr
from padrewrite.analyses.multi_grid import multiply
from padrewrite.analyses.strides import Regrid, regrid

Forward = Callable[[Any, Tensor], Any]


def conv(stride: int = 1, kernel: int = 3, channels: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(3, channels, kernel, stride, **{"padding": kernel // 2, **options})


class Written(nn.Module):
    """A forward given as a function of (model, image); ``a`` and ``b`` halve the map, ``c`` keeps it."""

    def __init__(self, forward: Forward, **parts: Any) -> None:
        super().__init__()
        self.written, self.a, self.b, self.c = forward, conv(2), conv(2), conv()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.written(self, x)


def change(forward: Forward, stride: int, sizes: tuple[int, int] = (33, 38), **parts: Any) -> Regrid:
    model = Written(forward, **parts).eval()
    return regrid(pr.record(model, example_inputs=torch.randn(1, 3, *sizes)), stride)


def after(sites: Regrid) -> dict[str, tuple[int, int, int]]:
    """(stride, dilation, padding) along the height of what changes."""
    windows = {site: op.window for site, op in sites.ops.items()}
    return {site: (w.stride[0], w.dilation[0], w.lo[0]) for site, w in windows.items()}


def test_the_lost_stride_is_a_rate_of_all_behind_it() -> None:
    found = change(lambda s, x: s.c(s.b(s.a(x))), 2)
    assert after(found) == {"b": (1, 1, 1), "c": (1, 2, 2)}
    assert found.grid == {"b": (2, 2), "c": (2, 2), "(output 0)": (2, 2)}
    assert (found.strided, found.finest, found.ended) == (["b"], 4, {})


def test_two_lost_strides_multiply() -> None:
    found = change(lambda s, x: s.c(s.b(s.a(x))), 1)
    assert after(found) == {"a": (1, 1, 1), "b": (1, 2, 2), "c": (1, 4, 4)}
    assert found.grid["(output 0)"] == (4, 4)


def test_a_stride_may_be_lost_in_part() -> None:
    found = change(lambda s, x: s.c(s.wide(x)), 2, wide=conv(4, 7))
    assert after(found) == {"wide": (2, 1, 3), "c": (1, 2, 2)}


def test_axes_are_counted_apart() -> None:
    found = change(lambda s, x: s.c(s.tall(x)), 1, tall=nn.Conv2d(3, 3, (5, 2), (3, 1)))
    assert found.grid["c"] == (3, 1)
    op = found.ops["c"]
    assert (op.window.dilation, op.window.lo) == ((3, 1), (3, 1))


def test_a_fine_enough_network_stays() -> None:
    found = change(lambda s, x: s.c(s.b(s.a(x))), 4)
    assert (found.ops, found.grid, found.blocked) == ({}, {}, None)


def test_branches_and_concatenation() -> None:
    found = change(lambda s, x: torch.cat([s.a(x), s.b(x)], 1), 1)
    assert found.grid == {"a": (2, 2), "b": (2, 2), "(output 0)": (2, 2)}


def test_every_output_has_its_own_steps() -> None:
    """One tensor that is returned twice, and one whose positions are not its last dimensions."""
    found = change(lambda s, x: (lambda y: (x, y, y, s.b(y), y.permute(0, 2, 3, 1)))(s.a(x)), 1)
    outputs = {name: steps for name, steps in found.grid.items() if name.startswith("(")}
    assert outputs == {
        "(output 1)": (2, 2),
        "(output 2)": (2, 2),
        "(output 3)": (4, 4),
        "(output 4)": (2, 2, 1),
    }


def coordinates(y: Tensor) -> Tensor:
    return torch.arange(y.shape[-1]) / y.shape[-1]


ENDS: dict[str, tuple[Forward, str]] = {
    "global pool": (lambda s, x: s.b(s.a(x)).mean((2, 3)), "mean"),
    "squeeze and excite": (lambda s, x: (lambda y: y * y.mean((2, 3), keepdim=True))(s.b(s.a(x))), "mean"),
    "group norm": (lambda s, x: s.norm(s.b(s.a(x))), "group_norm"),
    "softmax over positions": (lambda s, x: s.b(s.a(x)).softmax(-1), "softmax"),
    "tokens": (lambda s, x: s.b(s.a(x)).flatten(2), "flatten"),
    "resize to the input": (lambda s, x: F.interpolate(s.b(s.a(x)), size=x.shape[2:]), "interpolate"),
    "bins": (lambda s, x: F.adaptive_avg_pool2d(s.b(s.a(x)), 3), "adaptive_avg_pool2d"),
    "coordinates": (lambda s, x: (lambda y: y + coordinates(y))(s.b(s.a(x))), "values made for each position"),
    "coordinates as channels": (
        lambda s, x: (lambda y: torch.cat([y, coordinates(y).expand(1, 1, *y.shape[2:])], 1))(s.b(s.a(x))),
        "values made for each position",
    ),
    "noise": (lambda s, x: (lambda y: y + torch.rand_like(y))(s.b(s.a(x))), "values made for each position"),
    "embedding stretched to size": (
        lambda s, x: (lambda y: y + F.interpolate(s.embedding, size=y.shape[2:]))(s.b(s.a(x))),
        "values made for each position",
    ),
    "kernel from the map": (
        lambda s, x: (lambda y: F.conv2d(y, y.mean((2, 3))[:, :, None, None] * s.kernel))(s.b(s.a(x))),
        "mean",
    ),
    "map resized to a finer one": (
        lambda s, x: (lambda y: y + F.interpolate(x, size=y.shape[2:]))(s.b(s.a(x))),
        "the size of another map",
    ),
    "flip": (lambda s, x: s.b(s.a(x)).flip(-1), "flip"),
}


@pytest.mark.parametrize("name", ENDS)
def test_where_the_old_values_end(name: str) -> None:
    forward, culprit = ENDS[name]
    found = change(
        forward,
        2,
        norm=nn.GroupNorm(1, 3),
        embedding=nn.Parameter(torch.randn(1, 3, 5, 5)),
        kernel=nn.Parameter(torch.randn(3, 3, 1, 1)),
    )
    assert found.blocked is None
    assert found.grid["b"] == (2, 2)
    assert "(output 0)" not in found.grid
    assert culprit in found.ended["(output 0)"]


GOES_ON: dict[str, Forward] = {
    "ones": lambda s, x: (lambda y: y + torch.ones_like(y))(s.b(s.a(x))),
    "a vector per channel": lambda s, x: s.b(s.a(x)) * s.vector[:, None, None],
    "spread from one pixel of the input": lambda s, x: (lambda y: y + x.mean((2, 3), keepdim=True).expand_as(y))(
        s.b(s.a(x))
    ),
    "batch norm with running statistics": lambda s, x: s.norm(s.b(s.a(x))),
    "softmax over channels": lambda s, x: s.b(s.a(x)).softmax(1),
    "transposed map": lambda s, x: s.b(s.a(x)).mT,
}


@pytest.mark.parametrize("name", GOES_ON)
def test_where_they_go_on(name: str) -> None:
    found = change(GOES_ON[name], 2, vector=nn.Parameter(torch.randn(3)), norm=nn.BatchNorm2d(3))
    assert found.grid["(output 0)"] == (2, 2)


def test_statistics_of_the_batch_end_it() -> None:
    model = nn.Sequential(conv(2), nn.BatchNorm2d(3), conv()).train()
    found = regrid(pr.record(model, example_inputs=torch.randn(2, 3, 9, 9)), 1)
    assert found.grid == {"0": (2, 2)}
    assert found.ended["2"] == found.ended["(output 0)"]
    assert "statistics" in found.ended["2"]


BLOCKS: dict[str, tuple[Forward, str, tuple[int, int]]] = {
    "weight is a map": (lambda s, x: F.conv2d(s.a(x), s.b(x[..., :9, :9])), "unknown-positions", (33, 38)),
    "tokens put back": (
        lambda s, x: (lambda y: s.c(y.flatten(2).relu().view(y.shape)))(s.b(s.a(x))),
        "unknown-positions",
        (33, 38),
    ),
    "stride behind a mixer": (lambda s, x: s.a(torch.fft.fft2(x).real), "unknown-positions", (33, 38)),
    "resized to a map, then a window": (
        lambda s, x: (lambda y: (y, s.c(F.interpolate(x, size=y.shape[2:]))))(s.b(s.a(x))),
        "unknown-positions",
        (33, 38),
    ),
    "matrix over positions": (lambda s, x: s.matrix(s.b(s.a(x))), "fixed-size-head", (32, 36)),
    "pooled to one, flattened": (
        lambda s, x: s.head(F.avg_pool2d(s.b(s.a(x)), (8, 9)).flatten(1)),
        "fixed-size-head",
        (32, 36),
    ),
    "pooled to one, squeezed": (
        lambda s, x: s.head(F.avg_pool2d(s.b(s.a(x)), (8, 9)).squeeze(-1).squeeze(-1)),
        "fixed-size-head",
        (32, 36),
    ),
    "pooled to one, broadcast": (
        lambda s, x: (lambda y: y + F.avg_pool2d(y, (8, 9)))(s.b(s.a(x))),
        "unequal-sizes",
        (32, 36),
    ),
    "coarser by a slice": (lambda s, x: s.c(x[..., ::8, ::8]), "uneven-stride", (33, 38)),
    "pool with indices": (
        lambda s, x: F.max_pool2d(s.a(x), 2, return_indices=True)[0],
        "cropped",
        (33, 38),
    ),
    "pool of another kind": (lambda s, x: F.lp_pool2d(s.a(x), 2, 2), "cropped", (33, 38)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_what_stops_it(name: str) -> None:
    forward, code, sizes = BLOCKS[name]
    stride = 1 if name == "weight is a map" or name.startswith("stride") else 2
    found = change(forward, stride, sizes, matrix=nn.Linear(9, 5), head=nn.Linear(3, 5))
    assert found.blocked is not None
    assert found.blocked.code == code, found.blocked.reason


@pytest.mark.parametrize("size", ["input", "number"])
def test_a_window_behind_a_resize_to_a_size_that_stays(size: str) -> None:
    """The head of a segmenter: there positions are where they were."""
    found = change(lambda s, x: s.c(F.interpolate(s.b(s.a(x)), x.shape[2:] if size == "input" else (33, 38))), 2)
    assert found.blocked is None
    assert after(found) == {"b": (1, 1, 1)}


def test_pyramid_pooling_is_not_a_coarse_map() -> None:
    """The bins of an adaptive pool are no grid: their convolutions neither lose a stride nor count as coarse."""

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.b(s.a(x))
        return s.c(y + F.interpolate(s.c1(F.adaptive_avg_pool2d(y, 3)), size=y.shape[2:]))

    found = change(forward, 2, c1=conv())
    assert after(found) == {"b": (1, 1, 1), "c": (1, 2, 2)}
    assert change(forward, 4, c1=conv()).finest == 4


def test_one_position_stays_one_position() -> None:
    """A map of one pixel may be broadcast if it is one pixel on the finer grid too."""
    found = change(lambda s, x: (lambda y: y + s.valid(y))(s.a(x)), 2, (5, 5), valid=conv(2, padding=0))
    assert found.blocked is None
    assert found.grid == {"valid": (2, 2)}


def rates(forward: Forward, stride: int, multi_grid: tuple[int, ...] | None, convention: str = "auto") -> Regrid:
    model = Written(forward, d=conv(kernel=1), e=conv()).eval()
    graph = pr.record(model, example_inputs=torch.randn(1, 3, 33, 38))
    return multiply(graph, regrid(graph, stride), multi_grid, convention)


def straight(s: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = s.a(x)
    return y, s.e(s.d(s.c(s.b(y))))


def test_multi_grid_multiplies_the_rate_of_the_stage() -> None:
    found = rates(straight, 2, (1, 2, 4))
    assert after(found) == {"b": (1, 2, 2), "c": (1, 4, 4), "e": (1, 8, 8)}
    assert set(found.ended) == {"b", "c", "d", "e", "(output 1)"}
    assert "(output 0)" not in found.ended


def test_multi_grid_on_top_of_the_exact_rates() -> None:
    found = rates(straight, 2, (1, 2, 4), "stride_first")
    assert after(found) == {"b": (1, 1, 1), "c": (1, 4, 4), "e": (1, 8, 8)}
    assert found.grid == {"b": (2, 2)}


def test_stride_last_gives_each_stage_its_rate() -> None:
    found = rates(lambda s, x: s.c(s.b(s.a(x))), 1, None, "stride_last")
    assert after(found) == {"a": (1, 2, 2), "b": (1, 4, 4), "c": (1, 4, 4)}
    assert found.grid == {}


def test_multi_grid_behind_squeeze_and_excite() -> None:
    """That the old values have ended there takes nothing from the stage."""
    found = rates(lambda s, x: (lambda y: s.e(y * y.mean((2, 3), keepdim=True)))(s.c(s.b(s.a(x)))), 2, (1, 2, 4))
    assert [w[1] for w in after(found).values()] == [2, 4, 8]
