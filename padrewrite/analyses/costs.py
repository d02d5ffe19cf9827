"""What the convolutions of a graph cost: parameters, multiply-accumulates, and the receptive field that they buy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from padrewrite.analyses.fields import Fields
from padrewrite.analyses.layout import read_layout
from padrewrite.graph import Graph, PoolSite, Site
from padrewrite.ops.conv import Conv, TransposedConv
from padrewrite.ops.step import shape_of


@dataclass(frozen=True)
class Cost:
    """What the convolutions of a model cost, and how far they see."""

    parameters: int
    macs: int | None
    """Multiply-accumulates on the example inputs, all samples; None without inputs."""
    field: int | None
    """The largest receptive field in input pixels, along any axis; None if it is not known."""


@dataclass(frozen=True)
class SiteCost:
    """What one call costs, with the parameters behind it counted at each call that they are behind."""

    parameters: int
    macs: int | None
    """Multiply-accumulates on the example inputs, all samples; None without inputs."""


def parameters_of(op: Conv | TransposedConv) -> int:
    """Weights and biases of a convolution."""
    return op.in_channels * op.out_channels // op.groups * prod(op.kernel) + op.bias * op.out_channels


def weights_of(site: Site) -> dict[str, int]:
    """Name and number of elements of each parameter behind a call; of a module that was not run those of its op."""
    return {site.fqn: parameters_of(site.op)} if site.weights is None else dict(site.weights)


def parameters_in(sites: Iterable[Site]) -> int:
    """The parameters behind some calls, each once."""
    return sum({name: n for site in sites for name, n in weights_of(site).items()}.values())


def cost_of(graph: Graph) -> Cost:
    """The cost of all convolution calls, each parameter once."""
    parameters = parameters_in(graph.convs())
    if graph.nodes is None:
        return Cost(parameters, None, None)
    macs = sum(found for site in graph.convs() if (found := site_cost(site).macs) is not None)
    return Cost(parameters, macs, _field(graph))


def site_cost(site: Site | PoolSite) -> SiteCost:
    """The cost of one call; pools cost nothing."""
    return SiteCost(0 if isinstance(site, PoolSite) else parameters_in([site]), macs_of(site))


def macs_of(site: Site | PoolSite) -> int | None:
    """Multiply-accumulates of a call as it ran on the example inputs, all samples of its batch; None without inputs."""
    shape, rank = site.input_shape, site.op.window.rank
    return None if shape is None else prod(shape[: -rank - 1]) * site.op.macs(shape[-rank:])


def costs_in(graph: Graph, site: Site | PoolSite, inside: bool) -> SiteCost:
    """The cost of a call in a rewritten graph; with ``inside`` also that of the layers below its own."""
    places: list[Site | PoolSite] = [*graph.convs(), *graph.pools.values()] if inside else []
    found = [s for s in (graph.sites.get(site.id), graph.pools.get(site.id)) if s is not None]
    found += [s for s in places if s.fqn.startswith(f"{site.fqn}.") and s.call == site.call]
    costs = [site_cost(s) for s in found]
    macs = [cost.macs for cost in costs if cost.macs is not None]
    return SiteCost(sum(c.parameters for c in costs), sum(macs) if len(macs) == len(costs) else None)


def cost_text(*costs: SiteCost) -> str:
    """A cost in words, or what one becomes: ``36 -> 16 parameters, 900 multiply-accumulates``."""
    parameters = dict.fromkeys(f"{cost.parameters:,}" for cost in costs)
    macs = dict.fromkeys(f"{cost.macs:,}" for cost in costs if cost.macs is not None)
    return f"{' -> '.join(parameters)} parameters" + (f", {' -> '.join(macs)} multiply-accumulates" if macs else "")


def _field(graph: Graph) -> int | None:
    fields = Fields(read_layout(graph))
    found: list[int] = []
    for site in graph.convs():
        node = graph.node_of(site.id)
        rank = len(shape_of(node))
        along = [fields.of(node, d) for d in range(rank - site.op.window.rank, rank)]
        found += [field.size for field in along if field is not None]
    return max(found, default=None)
