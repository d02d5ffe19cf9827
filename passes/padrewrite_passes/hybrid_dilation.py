"""Hybrid dilation: the rates of a dilated chain are changed so that it leaves no hole, its field kept where it can be.

    rates (2, 2, 2) -> (1, 2, 3)       hole-free iff r_(1) = 1 and r_(j+1) <= 1 + sum over i <= j of (K_i - 1) r_(i)

r_(1), r_(2), ... are the rates in ascending order. Padding follows the rate: sizes stay, and the tap at the output's
own place stays there, so symmetric padding keeps its phase, and causal padding looks at nothing ahead. Weights and keys
stay too, but the network computes something else: fine-tune.

Source: Wang et al. 2018, Understanding Convolution for Semantic Segmentation (HDC), Section 3.2, with an exact test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from padrewrite.analyses.chains import Chain, Gridding, find_chains
from padrewrite.analyses.layout import read_layout
from padrewrite.analyses.rates import can_fill, keeps_size, pads_by_rate, with_rate
from padrewrite.contracts import Contract
from padrewrite.formulas.assigning import assign_by_stage, assign_rates, is_for_preset, is_from_groups, is_from_preset
from padrewrite.graph import Graph
from padrewrite.ops.conv import Conv
from padrewrite.rewriting import Check, Match, Pass


@dataclass(frozen=True)
class Run(Match):
    """The convolutions of a chain; of several chains, where the axes of one convolution belong to different ones."""

    chains: tuple[Chain, ...] = field(default=())


@dataclass(frozen=True)
class HybridDilation(Pass):
    """Dilated chains get rates that leave no holes."""

    name: ClassVar[str] = "hybrid-dilation"
    contract: ClassVar[str] = "shape"
    needs: ClassVar[Literal["module", "dataflow"]] = "dataflow"
    codes: ClassVar[Mapping[str, str]] = {
        "already-hole-free": "the chain leaves no hole",
        "already-assigned": "the rates are as the policy makes them",
        "mixed-kernels": "its kernels have different sizes, for which no rates are assigned",
        "no-preset": "the policy knows dilated stages, each of two layers or more of one rate; bigger, of 2 and 4",
        "resizing": "a convolution of it changes the size of the map, so another rate would change all behind it",
        "uneven-padding": "padding that is no multiple of the rate cannot follow it without shifting the map",
        "too-small": "the new padding is wider than its mode can fill at the recorded input size",
    }

    policy: str = "optimal"
    """"optimal" keeps the receptive field as nearly as hole-free groups can; the paper's "rf", "bigger", "conv" and
    "none" are for kernel 3 and rates of 2 and 4."""
    scope: str = "group"
    """"group" judges the chain by itself and makes each group hole-free; "chain" counts the convolutions of rate 1 that
    lead into it, and changes the chain, as one group, only if it leaves holes all the same."""
    group: int = 3
    """Convolutions per group."""

    def __post_init__(self) -> None:
        assign_rates((1,), 3, self.policy, self.scope, self.group)  # raises what is wrong with an option

    def match(self, graph: Graph) -> Iterator[Match]:
        left = list(find_chains(read_layout(graph)))
        while left:
            chains = [left.pop(0)]
            while more := [c for c in left if any(set(c.sites) & set(other.sites) for other in chains)]:
                chains += more
                left = [c for c in left if c not in more]
            sites = dict.fromkeys(s for c in chains for s in c.sites)
            yield Run(tuple(graph.sites[s] for s in sites), chains=tuple(chains))

    def legality(self, match: Match) -> Iterator[Check]:
        chains = self._open(match)
        old = " and ".join(dict.fromkeys(_list(c.rates) for c in chains or _chains(match)))
        yield Check.keep("already-hole-free", bool(chains) or self.policy != "optimal", f"rates {old} leave no hole")
        yield Check.keep("already-assigned", bool(chains), f"rates {old} are as policy {self.policy} makes them")
        mixed: set[int] = next((k for c in chains if len(k := set(c.alone.kernels)) > 1), set())
        yield Check("mixed-kernels", not mixed, f"it has kernels of {' and '.join(map(str, sorted(mixed)))}")
        known = self.policy == "optimal" or all(is_for_preset(c.rates, self.policy) for c in chains)
        yield Check("no-preset", known, f"policy {self.policy} has nothing in the place of {old}; optimal has")
        for chain in chains:
            ops = {s.id: s.op for s in match.sites if s.id in chain.sites and isinstance(s.op, Conv)}
            odd = next((site for site, op in ops.items() if not keeps_size(op, chain.axes)), None)
            yield Check("resizing", odd is None, f"{odd} does not keep the size of the map")
            odd = next((site for site, op in ops.items() if not pads_by_rate(op, chain.axes)), None)
            yield Check("uneven-padding", odd is None, f"{odd} pads by no multiple of its rate")
        sizes = [(s.input_shape or ())[-s.op.window.rank :] for s in match.sites]
        small = next((op for op, size in zip(self.rewrite(match), sizes) if not can_fill(op, size)), None)
        why = f"{small.padding_mode} cannot fill {small.padding}" if small else ""
        yield Check("too-small", small is None, why)

    def rewrite(self, match: Match) -> tuple[Conv, ...]:
        ops = {site.id: site.op for site in match.sites if isinstance(site.op, Conv)}
        for chain in self._open(match):
            ops |= {s: with_rate(ops[s], rate, chain.axes) for s, rate in zip(chain.sites, self._rates(chain))}
        return tuple(ops.values())

    def promise(self, match: Match) -> Contract:
        return Contract("shape")

    def note(self, match: Match) -> str | None:
        changed = [_told(chain, self._rates(chain)) for chain in self._open(match)]
        return f"{match.sites[0].id} and {len(match.sites) - 1} more: {'; and '.join(changed)}"

    def _rates(self, chain: Chain) -> list[int]:
        return assign_by_stage(chain.rates, chain.alone.kernels[0], self.policy, self.scope, self.group)

    def _open(self, match: Match) -> list[Chain]:
        """The chains that are not as this pass would make them."""
        return [chain for chain in _chains(match) if not self._is_done(chain)]

    def _is_done(self, chain: Chain) -> bool:
        if self.policy != "optimal":
            return is_from_preset(chain.rates, self.policy)
        both, lead_in = chain.with_lead_in, len(chain.lead_in)
        # The first group may begin with convolutions right before the chain.
        begins = range(max(0, lead_in - self.group + 1), lead_in)
        grouped = any(is_from_groups(both.rates[i:], both.kernels[i:], self.group) for i in begins)
        return grouped or (both if self.scope == "chain" else chain.alone).hole_free


def _chains(match: Match) -> tuple[Chain, ...]:
    assert isinstance(match, Run)
    return match.chains


def _list(rates: Sequence[int]) -> str:
    return ",".join(map(str, rates))


def _told(chain: Chain, rates: Sequence[int]) -> str:
    old, new = chain.alone, Gridding.of(rates, chain.alone.kernels)
    grown = sum((k - 1) * (b - a) for k, a, b in zip(old.kernels, old.rates, new.rates))
    holes = " -> ".join("no holes" if g.hole_free else "holes" for g in (old, new))
    scores = " -> ".join(f"{round(g.score, 4):.2g}" for g in (old, new))
    field = f"{grown:+d} px of its map" if grown else "kept"
    change = f"rates {_list(old.rates)} -> {_list(new.rates)}"
    return f"{change}; {holes}, M_2 {old.m2} -> {new.m2}, score {scores}, field {field}"
