"""Bottleneck blocks, found by dataflow: 1 x 1, k x k, 1 x 1, with batch norms and ReLUs between, and a sum behind.

A block that holds a global convolution in the place of its first two is found too, by the names of its parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch.fx as fx

from padrewrite.graph import Graph, Site
from padrewrite.ops.conv import Conv


@dataclass(frozen=True)
class Bottleneck:
    """One block. ``norms`` are the FQNs of the batch norms behind the first and the second convolution."""

    sites: tuple[Site, ...]
    """The 1 x 1, the k x k and the 1 x 1 convolution; of a block that has a global convolution, all of its."""
    norms: tuple[str, ...] = ()
    done: bool = False
    stage: int = 0
    """Counted from the last, which is 0: blocks in a row with as many output channels."""

    @property
    def channels(self) -> int:
        """Of the output."""
        return self.sites[-1].op.out_channels


def find_bottlenecks(graph: Graph) -> list[Bottleneck]:
    """Every block in execution order."""
    if graph.nodes is None:
        return []
    sites = list(graph.convs())
    order = {site.id: place for place, site in enumerate(sites)}
    found = [*_plain(graph, sites), *_done(sites)]
    found.sort(key=lambda block: order[block.sites[0].id])
    stages = [list(group) for _, group in groupby(found, key=lambda block: block.channels)]
    return [replace(block, stage=n) for n, group in reversed(list(enumerate(reversed(stages)))) for block in group]


def _plain(graph: Graph, sites: Sequence[Site]) -> Iterator[Bottleneck]:
    by_node = {graph.node_of(site.id): site for site in sites}
    for site in sites:
        chain, norms, node = [site], list[str](), graph.node_of(site.id)
        while len(chain) < 3:
            step = _next_conv(node, by_node)
            if step is None:
                break
            chain.append(by_node[step[0]])
            norms.append(step[1])
            node = step[0]
        if [_extent(s) for s in chain] == [False, True, False] and _joins(node):
            yield Bottleneck(tuple(chain), tuple(norms))


def _extent(site: Site) -> bool:
    """Whether the kernel is larger than one pixel."""
    return isinstance(site.op, Conv) and max(site.op.kernel) > 1


def _next_conv(node: fx.Node, by_node: dict[fx.Node, Site]) -> tuple[fx.Node, str] | None:
    """The convolution that alone reads ``node`` through a batch norm and a ReLU, and that norm's FQN."""
    norm = _only_user(node)
    active = _only_user(norm) if norm is not None and _name(norm) == "batch_norm" else None
    after = _only_user(active) if active is not None and _name(active) in ("relu", "relu_") else None
    if norm is None or after is None or after not in by_node:
        return None
    return after, norm.meta["fqn"]


def _joins(node: fx.Node) -> bool:
    """Whether a sum is the only thing that reads the block's last convolution, through a batch norm."""
    norm = _only_user(node)
    total = _only_user(norm) if norm is not None and _name(norm) == "batch_norm" else None
    return total is not None and _name(total) in ("add", "add_", "__iadd__", "iadd", "__add__")


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def _done(sites: Sequence[Site]) -> Iterator[Bottleneck]:
    """Blocks whose first convolution was replaced by two branches with a norm and a ReLU behind each convolution."""
    names = [f"{branch}.{n}" for branch in ("left", "right") for n in (0, 3)]
    for place, site in enumerate(sites):
        layer = site.fqn.removesuffix(".left.0")
        block = tuple(sites[place : place + 5])
        if [s.fqn for s in block[:4]] == [f"{layer}.{name}" for name in names] and len(block) == 5:
            yield Bottleneck(block, done=True)
