"""Boundary refinement: a residual of two small convolutions behind a score map, to sharpen its edges in training.

    new(x) = S(x) + conv(relu(conv(S(x))))        S = the named convolution, 3 x 3 kernels with biases

The last convolution begins as zeros, so the network computes exactly what it did, and learns from there: the first
step moves the last convolution, from the second on all move. Keys of the network stay; the new ones are filled when
a checkpoint without them is loaded.

Source: Peng et al. 2017, Large Kernel Matters (GCN), Fig. 2C.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from padrewrite.contracts import Contract
from padrewrite.graph import Graph, Site
from padrewrite.ops.assembly import Attached
from padrewrite.ops.conv import Conv
from padrewrite.ops.refinement import BRANCH, refinement
from padrewrite.rewriting import Check, Match, Pass
from padrewrite.selecting import matching

CHILD = "refinement"


@dataclass(frozen=True)
class Place(Match):
    """A convolution, whether it is named, and whether it is refined or part of a refinement already."""

    named: bool = False
    done: bool = False


@dataclass(frozen=True)
class BoundaryRefinement(Pass):
    """Named convolutions get a boundary refinement behind them."""

    name: ClassVar[str] = "boundary-refinement"
    contract: ClassVar[str] = "exact"
    codes: ClassVar[Mapping[str, str]] = {
        "not-named": "at does not name it",
        "already-refined": "a refinement is behind it, or it is part of one",
        "transposed": "nothing is attached to transposed convolutions",
        "not-an-image": "its output has one or three axes, the refinement is of two",
    }

    at: str | int | tuple[str | int, ...] = ()
    """Convolutions to refine, or modules around them: names, globs or re: expressions. By default none."""

    def __post_init__(self) -> None:
        given = self.at if isinstance(self.at, tuple) else (self.at,)
        if not all(isinstance(name, (str, int)) and name not in ("", None) for name in given):
            raise ValueError(f"at={self.at!r} is not a name or a list of names")

    def match(self, graph: Graph) -> Iterator[Match]:
        sites = list(graph.convs())
        named = {site.id for name in self._names if sites for site in matching(sites, name, "at", self.name)}
        fqns = {site.fqn for site in sites}
        refined = [site.fqn for site in sites if _below(site.fqn, f"{CHILD}.{BRANCH}.0") in fqns]
        for site in sites:
            inside = any(site.fqn.startswith(_below(fqn, f"{CHILD}.")) for fqn in refined)
            yield Place((site,), named=site.id in named, done=inside or (site.fqn in refined and _calls(site)))

    def legality(self, match: Match) -> Iterator[Check]:
        assert isinstance(match, Place)
        yield Check.keep("not-named", match.named, "at does not name it")
        yield Check.keep("already-refined", not match.done, "a refinement is there already")
        yield Check("transposed", isinstance(match.op, Conv), "nothing is attached to transposed convolutions")
        yield Check("not-an-image", match.op.window.rank == 2, f"its output has {match.op.window.rank} axes, not 2")

    def rewrite(self, match: Match) -> tuple[Attached]:
        return (Attached(match.conv, CHILD, refinement(match.conv.out_channels)),)

    def promise(self, match: Match) -> Contract:
        return Contract("exact")

    @property
    def _names(self) -> tuple[str, ...]:
        """A layer of an nn.Sequential is named by its number."""
        return tuple(map(str, self.at if isinstance(self.at, tuple) else (self.at,)))


def _below(fqn: str, name: str) -> str:
    return f"{fqn}.{name}".removeprefix(".")


def _calls(site: Site) -> bool:
    """Whether the layer itself makes the call: functional ones in a module have its name, too."""
    return site.handle.call.owner_kind == "conv" and site.handle.call.direct == 0
