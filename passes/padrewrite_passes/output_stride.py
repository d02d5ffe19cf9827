"""Output stride: strides become rates along the dataflow, and the old features stand in the new ones on a grid.

    new(x)[..., ::f] == old(x)        f = old output stride / new, per axis; borders included, any input size

The operation that loses its stride keeps the rate before it; every later window on that path gets its dilation and
padding times the stride that was lost, on both branches of a block alike; pools too. Branches that end up unequally
long are padded at their ends, off the grid. Weights and keys stay. Costs f**2 times the multiply-accumulates behind it.

Source: Chen et al. 2017, Rethinking Atrous Convolution (DeepLabv3), Section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from padrewrite.analyses.multi_grid import multiply
from padrewrite.analyses.strides import Regrid, regrid
from padrewrite.contracts import Contract
from padrewrite.graph import Graph, PoolSite, Site
from padrewrite.ops.conv import Conv, TransposedConv
from padrewrite.ops.pool import Pool
from padrewrite.rewriting import Check, Match, Pass


@dataclass(frozen=True)
class Region(Match):
    """Everything that changes together."""

    change: Regrid = field(default_factory=Regrid)


@dataclass(frozen=True)
class OutputStride(Pass):
    """Strides become rates until no feature map is coarser than wanted."""

    name: ClassVar[str] = "output-stride"
    contract: ClassVar[str] = "grid"
    needs: ClassVar[Literal["module", "dataflow"]] = "dataflow"
    before: ClassVar[tuple[str, ...]] = ("hybrid-dilation",)
    codes: ClassVar[Mapping[str, str]] = {
        "already-fine": "no feature map is coarser than the wanted output stride",
        "unequal-branches": "a merge joins branches that lost different strides",
        "unequal-sizes": "branches equally large on the coarse grid are not on the finer one, nor can be padded",
        "uneven-stride": "the wanted output stride lies inside a stride that it does not divide",
        "fixed-size-head": "a layer of fixed size reads the flattened feature map",
        "fixed-upsampling": "the head enlarges by a fixed factor, so its output would grow",
        "transposed": "a transposed convolution reads the finer grid",
        "cropped": "a crop, an explicit pad or a shuffle counts positions of the finer grid",
        "ceil-mode": "a pool rounds its size up so that padding cannot stand for it",
        "blind-window": "a window of a pool would see nothing but padding at this size",
        "border-mode": "a border filled by reflection or repetition is not the same on the finer grid at this size",
        "size-dependent-padding": "padding is computed from the input's size",
        "unknown-positions": "positions are not followed up to some window",
        "no-stage": "the last stage has no run of spatial convolutions that multi_grid divides evenly",
    }

    stride: int = 16
    """Input pixels per position of the coarsest feature map afterwards."""
    multi_grid: tuple[int, ...] | None = None
    """Rates of the last stage's units, times the stage's rate, as in (1, 2, 4); the contract there is ``shape``."""
    convention: str = "auto"
    """Of the unit that loses its stride: "stride_first" keeps its old rate, which the grid contract needs;
    "stride_last" gives it the stage's rate; "auto" is stride_first, under ``multi_grid`` stride_last."""

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"stride={self.stride!r} is not a positive number of pixels")
        if self.convention not in ("auto", "stride_first", "stride_last"):
            raise ValueError(f"convention={self.convention!r} is not one of auto, stride_first, stride_last")
        if self.multi_grid is not None and (not self.multi_grid or min(self.multi_grid) < 1):
            raise ValueError(f"multi_grid={self.multi_grid!r} is not a list of rates, as in [1,2,4]")

    def match(self, graph: Graph) -> Iterator[Match]:
        change = regrid(graph, self.stride)
        if change.blocked is None:
            change = multiply(graph, change, self.multi_grid, self.convention)
        touched = change.ops or dict.fromkeys(change.strided)
        sites = tuple(s for s in graph.convs() if s.id in touched or change.blocked is not None or not touched)
        pools = tuple(s for i, s in graph.pools.items() if i in change.ops and change.blocked is None)
        ended = tuple(dict.fromkeys(change.ended.values()))
        if sites or pools:
            yield Region(sites, pools, change.grid, ended, change)

    def legality(self, match: Match) -> Iterator[Check]:
        change = _change(match)
        if change.blocked is not None:
            yield Check(change.blocked.code, False, change.blocked.reason)
        coarse = f"its coarsest feature map has stride {change.finest}"
        yield Check.keep("already-fine", bool(change.ops), f"{coarse}; {self.stride} is wanted")

    def rewrite(self, match: Match) -> tuple[Conv | Pool, ...]:
        return tuple(_change(match).ops[site.id] for site in (*match.sites, *match.pools))

    def promise(self, match: Match) -> Contract:
        change = _change(match)
        return Contract("grid") if change.ops.keys() <= change.grid.keys() else Contract("shape")

    def note(self, match: Match) -> str | None:
        new = _change(match).ops
        tied = [site.id for site in match.sites if _reflects(site.op, new.get(site.id))]
        more = f" and {len(tied) - 1} more" if len(tied) > 1 else ""
        return f"{tied[0]}{more} pads by real pixels: the grid holds at the recorded size" if tied else None

    def reason_at(self, match: Match, site: Site | PoolSite) -> str:
        ended = _change(match).ended.get(site.id)
        return f"every condition held; the grid ended at {ended}" if ended else super().reason_at(match, site)

    def promise_at(self, match: Match, site: Site | PoolSite) -> Contract:
        return Contract.grid(match.grid[site.id]) if site.id in match.grid else Contract("shape")


def _change(match: Match) -> Regrid:
    assert isinstance(match, Region)
    return match.change


def _reflects(old: Conv | TransposedConv, new: Conv | Pool | None) -> bool:
    """Whether a border that is made of the input is made anew."""
    made = isinstance(old, Conv) and any(old.modes[a] != "zeros" for a in old.padded_axes)
    return made and new is not None and new.padding != old.padding
