"""Hybrid dilation: the rates of a dilated chain are changed so that it leaves no hole, its field kept where it can be.

    rates (2, 2, 2) -> (1, 2, 3)       hole-free iff r_(1) = 1 and r_(j+1) <= 1 + sum over i <= j of (K_i - 1) r_(i)

r_(1), r_(2), ... are the rates in ascending order. Padding follows the rate, so sizes and phases stay. Weights and keys
stay too, but the network computes something else: fine-tune.

Source: Wang et al. 2018, Understanding Convolution for Semantic Segmentation (HDC), Section 3.2, with an exact test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import ClassVar, Literal

from padrewrite.analyses.chains import Chain, Gridding, find_chains
from padrewrite.analyses.layout import read_layout
from padrewrite.contracts import Contract
from padrewrite.formulas import assign_rates
from padrewrite.graph import Graph, Site
from padrewrite.ops.conv import Conv, with_padding
from padrewrite.rewriting import Check, Match, Pass

POLICIES = ("none", "conv", "rf", "bigger", "optimal")


@dataclass(frozen=True)
class Run(Match):
    """A dilated chain and the rates that it is to have."""

    chains: tuple[Chain, ...] = field(default=())

    @property
    def chain(self) -> Chain:
        return self.chains[0]


@dataclass(frozen=True)
class HybridDilation(Pass):
    """Dilated chains get rates that leave no holes."""

    name: ClassVar[str] = "hybrid-dilation"
    contract: ClassVar[str] = "shape"
    needs: ClassVar[Literal["module", "dataflow"]] = "dataflow"
    codes: ClassVar[Mapping[str, str]] = {
        "already-hole-free": "the chain leaves no hole",
        "already-assigned": "the rates are those that the policy gives",
        "mixed-kernels": "its kernels have different sizes, for which no rates are assigned",
        "several-axes": "a convolution is dilated along axes that belong to different chains",
        "resizing": "a convolution of it changes the size of the map, so another rate would change all behind it",
    }

    policy: str = "optimal"
    """"optimal" keeps the receptive field as nearly as hole-free groups can; the paper's "rf", "bigger", "conv" and
    "none" are for kernel 3 and rates of 2 and 4."""
    scope: str = "group"
    """"group" judges the chain by itself and makes each group hole-free; "chain" counts the convolutions of rate 1 that
    lead into it, and changes the chain only if it leaves holes all the same."""
    group: int = 3
    """Convolutions per group."""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"policy={self.policy!r} is not one of {', '.join(POLICIES)}")
        if self.scope not in ("group", "chain"):
            raise ValueError(f"scope={self.scope!r} is not one of group, chain")
        if self.group < 1:
            raise ValueError(f"group={self.group!r} is not a positive number of convolutions")

    def match(self, graph: Graph) -> Iterator[Match]:
        chains = find_chains(read_layout(graph))
        owners = {s: [c for c in chains if s in c.sites] for c in chains for s in c.sites}
        taken: set[str] = set()
        for chain in chains:
            if not taken & set(chain.sites):
                alike = tuple(dict.fromkeys(c for s in chain.sites for c in owners[s]))
                sites = dict.fromkeys(s for c in alike for s in c.sites)
                taken |= set(sites)
                yield Run(tuple(graph.sites[s] for s in sites), chains=(chain, *(c for c in alike if c != chain)))

    def legality(self, match: Match) -> Iterator[Check]:
        chain, rates = _run(match).chain, _run(match).chain.rates
        judged = chain.with_lead_in if self.scope == "chain" else chain.alone
        whole = f"rates {_list(rates)} leave no hole" + (" with their lead-in" if self.scope == "chain" else "")
        yield Check.keep("already-hole-free", not (self.policy == "optimal" and judged.hole_free), whole)
        yield Check("several-axes", len(_run(match).chains) == 1, "its axes are dilated in different ways")
        kernels = set(chain.alone.kernels)
        yield Check("mixed-kernels", len(kernels) == 1, f"it has kernels of {' and '.join(map(str, sorted(kernels)))}")
        told = f"policy {self.policy} gives {_list(rates)} too"
        yield Check.keep("already-assigned", self.rates(chain) != list(rates), told)
        odd = next((s for s in match.sites if not _keeps_size(s, chain.axes)), None)
        yield Check("resizing", odd is None, f"{odd.id if odd else ''} does not keep the size of the map")

    def rates(self, chain: Chain) -> list[int]:
        """The new rates, stage by stage: a stage is a run of equal rates, where there are such runs."""
        runs = [tuple(same) for _, same in groupby(chain.rates)]
        stages = runs if all(len(run) > 1 for run in runs) else [chain.rates]
        given = (chain.alone.kernels[0], self.policy, self.scope, self.group)
        return [rate for stage in stages for rate in assign_rates(stage, *given)]

    def rewrite(self, match: Match) -> tuple[Conv, ...]:
        chain = _run(match).chain
        new = dict(zip(chain.sites, self.rates(chain)))
        return tuple(_with_rate(site, new[site.id], chain.axes) for site in match.sites)

    def promise(self, match: Match) -> Contract:
        return Contract("shape")

    def note(self, match: Match) -> str | None:
        old = _run(match).chain.alone
        new = Gridding.of(self.rates(_run(match).chain), old.kernels)
        grown = sum((k - 1) * (b - a) for k, a, b in zip(old.kernels, old.rates, new.rates))
        holes = " -> ".join("no holes" if g.hole_free else "holes" for g in (old, new))
        return (
            f"{match.sites[0].id} and {len(match.sites) - 1} more: rates {_list(old.rates)} -> {_list(new.rates)}; "
            f"{holes}, M_2 {old.m2} -> {new.m2}, score {old.score:.2g} -> {new.score:.2g}, field {grown:+d} px"
        )


def _run(match: Match) -> Run:
    assert isinstance(match, Run)
    return match


def _list(rates: tuple[int, ...]) -> str:
    return ",".join(map(str, rates))


def _keeps_size(site: Site, axes: tuple[int, ...]) -> bool:
    w = site.op.window
    return all(w.lo[a] + w.hi[a] == w.span[a] - 1 and w.lo[a] % w.dilation[a] == 0 for a in axes)


def _with_rate(site: Site, rate: int, axes: tuple[int, ...]) -> Conv:
    assert isinstance(site.op, Conv)
    w = site.op.window
    rates = tuple(rate if a in axes and w.kernel[a] > 1 else d for a, d in enumerate(w.dilation))
    pairs = [(lo * r // d, hi * r // d) for lo, hi, r, d in zip(w.lo, w.hi, rates, w.dilation)]
    padded = with_padding(site.op, pairs)
    return replace(padded, window=replace(padded.window, dilation=rates))
