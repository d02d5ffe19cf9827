"""The graph: an executable ``torch.fx.Graph`` of torch-level calls, and the convolution sites in it.

Nodes carry what the recorder saw: ``meta["shape"]`` and ``meta["value"]`` (numbers while recording),
``meta["frames"]`` (the module calls around it), ``meta["source"]``. ``Graph.replace`` is the only editor.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import networkx as nx
import torch.fx as fx
from torch import Tensor
from torch.fx.proxy import GraphAppendingTracer

from padrewrite.assembling import drop_norms, emit_assembly, renumber
from padrewrite.editing import emit_pool_site, emit_site
from padrewrite.normal_form import row_references, rows_into_convolutions, rows_of, without_numbers, without_sizes
from padrewrite.ops.assembly import Assembly, Attached
from padrewrite.ops.conv import Conv, TransposedConv, is_our_conv, is_plain_conv, read_conv
from padrewrite.ops.pad import read_pad
from padrewrite.ops.pool import Pool, read_pool
from padrewrite.ops.reading import ConvNode, read_node
from padrewrite.ops.realise import ExplicitPad, behind_pads, realise, split_of
from padrewrite.ops.sizes import size_name, value_of
from padrewrite.row_words import difference_text, row_text
from padrewrite.weights import reading_inputs, weights_of

ROOT = "(root)"
"""The site id of a model that is itself one convolution."""


@dataclass(frozen=True)
class Frame:
    """A module call around a torch call, and which call of its family this is inside it (children included)."""

    fqn: str
    call: int
    ordinal: int = 0


@dataclass(frozen=True)
class Call:
    """Where a torch call is made, outermost module first."""

    frames: tuple[Frame, ...]
    family: str
    direct: int = 0
    """Which call of its family this is among those that the innermost module makes itself."""
    owner_kind: str | None = None
    """"conv", "pool" or "pad" if the innermost module is such a layer."""

    @property
    def owner(self) -> Frame:
        return self.frames[-1]


@dataclass(frozen=True)
class Handle:
    """How the writer finds a site again: the convolution call, and the explicit pads folded into it."""

    call: Call
    weight: str | None = None
    """FQN of the weight, if it is a parameter and not computed."""
    totals: tuple[int, ...] = ()
    """Per frame of the call: how many calls of its family that module call made in all."""
    checkpoint: int | None = None
    """How many of the innermost frames torch.utils.checkpoint runs again in backward; None if it is not involved."""
    pads: tuple[Call, ...] = ()
    amounts: tuple[ExplicitPad, ...] = ()
    plain: bool = True
    """The call has a form that another convolution can stand in for."""
    ours: str | None = None
    """The function of ``padrewrite.ops`` that is called, if it is one of ours."""
    splits: tuple[str, ...] = ()
    """Per axis, how the folded pads' amounts follow from the input's size; see ``ops.realise.SPLITS``."""
    reads_input: bool = False
    """What the pads pad is the first argument of the module that makes the call."""

    @property
    def pads_fixed(self) -> bool:
        """No folded pad has an amount that depends on the input's size."""
        return all(split == "fixed" for split in self.splits)


@dataclass(frozen=True)
class Site:
    """One executed convolution call (without inputs: one convolution module)."""

    kind: ClassVar[str] = "site"
    id: str
    fqn: str
    call: int
    source: str | None
    op: Conv | TransposedConv
    handle: Handle
    input_shape: tuple[int, ...] | None = None
    """Shape of what the site reads, before explicit pads; None if it was not recorded."""
    weights: tuple[tuple[str, int], ...] | None = None
    """Name and number of elements of each parameter behind its weight and bias; None if it was not recorded."""


@dataclass(frozen=True)
class PoolSite:
    """One executed call of a max or average pool."""

    kind: ClassVar[str] = "pool-site"
    id: str
    fqn: str
    call: int
    source: str | None
    op: Pool
    handle: Handle
    input_shape: tuple[int, ...] | None = None


Rewritten = Conv | Pool | Assembly | Attached
"""What a site can become."""


@dataclass(frozen=True)
class Graph:
    """A recorded model. ``nodes`` is None when only the module tree was read (no example inputs)."""

    nodes: fx.Graph | None
    sites: Mapping[str, Site]
    how: str
    """"symbolic", "real inputs", "module tree" or "dynamo"."""
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reads_values: bool = False
    """The forward read numbers out of tensors; they stand in the graph as they were while recording."""
    conv_nodes: Mapping[str, ConvNode] = field(default_factory=dict)
    pools: Mapping[str, PoolSite] = field(default_factory=dict)
    """Every max and average pool call by its id; passes may rewrite these too."""
    pool_nodes: Mapping[str, fx.Node] = field(default_factory=dict)
    conditions: tuple[Any, ...] = ()
    """At which input sizes a symbolic recording holds, where the forward branches on them: in sympy, all must hold."""

    @classmethod
    def from_nodes(
        cls,
        nodes: fx.Graph,
        how: str,
        constants: Mapping[str, Tensor],
        notes: Sequence[str] = (),
        reads_values: bool = False,
    ) -> Graph:
        """Reads the sites of an fx graph whose nodes carry the recorder's meta."""
        found = [(_site_id(c.node.meta["at"], "conv"), c) for c in map(read_node, nodes.nodes) if c is not None]
        totals = Counter((f.fqn, f.call, c.node.meta["at"].family) for _, c in found for f in c.node.meta["at"].frames)
        fed = None if how == "dynamo" else reading_inputs(nodes)  # dynamo gives parameters as inputs
        sites = {site_id: _site(site_id, conv, totals, fed) for site_id, conv in found}
        if len(sites) != len(found):
            raise AssertionError("two convolution calls share a site id")
        pools = {_site_id(node.meta["at"], "pool"): (node, op) for node, op in _pools(nodes)}
        counts = Counter((f.fqn, f.call, n.meta["at"].family) for n, _ in pools.values() for f in n.meta["at"].frames)
        pool_sites = {i: _pool_site(i, node, op, counts) for i, (node, op) in pools.items()}
        pool_nodes = {i: node for i, (node, _) in pools.items()}
        return cls(nodes, sites, how, constants, tuple(notes), reads_values, dict(found), pool_sites, pool_nodes)

    def holds_at(self, shapes: Sequence[Sequence[int]]) -> bool:
        """Whether inputs of these shapes take the path that was recorded.

        By what the forward asked about sizes from the third dimension on: batches and channels are as recorded. Of a
        recording on real inputs it is not known, and True.
        """
        sizes = {size_name(i, d): n for i, shape in enumerate(shapes) for d, n in enumerate(shape)}
        return all(value_of(condition, sizes) for condition in self.conditions)

    def convs(self) -> Iterator[Site]:
        """Every convolution site in execution order, transposed ones included."""
        return iter(self.sites.values())

    def node_of(self, site: str) -> fx.Node:
        """The call node of a site."""
        return self.conv_nodes[site].node

    def compares(self, site: Site) -> bool:
        """Whether a site's weight is computed from an input of the model: a correlation of two of its maps."""
        if site.id not in self.conv_nodes:
            return False
        seen, left = set[fx.Node](), [self.conv_nodes[site.id].call.weight]
        while left:
            node = left.pop()
            if isinstance(node, fx.Node) and node not in seen:
                seen.add(node)
                left += node.all_input_nodes
        return any(node.op == "placeholder" for node in seen)

    def pads_of(self, site: str) -> tuple[fx.Node, ...]:
        """The explicit pads folded into a site, nearest first."""
        return self.conv_nodes[site].pads

    def operands_of(self, site: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        """(x, weight, bias) among the values that a site's call was given."""
        call = read_conv(self.node_of(site).target, args, kwargs, lambda t: t.shape)
        assert call is not None
        return call.x, call.weight, call.bias

    def replace(self, edits: Iterable[tuple[Site | PoolSite, Rewritten]]) -> Graph:
        """A new graph in which each site computes its new op. The graph itself is unchanged.

        Where a new op has another output size, the shapes noted behind it are still the old ones.
        """
        wanted = {site.id: (site, op) for site, op in edits}
        if self.nodes is None:
            sites = [new for i, s in self.sites.items() for new in _rewritten(s, wanted[i][1] if i in wanted else s.op)]
            return replace(self, sites={site.id: site for site in sites})
        copied: dict[fx.Node, fx.Node] = {}
        new = fx.Graph()
        new.output(new.graph_copy(self.nodes, copied))
        tracer = GraphAppendingTracer(new)
        for site_id, (_, op) in wanted.items():
            if isinstance(op, Pool):
                node = self.pool_nodes[site_id]
                emit_pool_site(tracer, copied, node, node.all_input_nodes[0], op)
            elif isinstance(op, (Assembly, Attached)):
                conv = self.conv_nodes[site_id]
                emit_assembly(tracer, copied, conv, behind_pads(op, conv.amounts[conv.own_pads :]))
            else:
                conv = self.conv_nodes[site_id]
                emit_site(tracer, copied, conv, realise(op, conv.amounts))
        assemblies = [op for _, op in wanted.values() if isinstance(op, (Assembly, Attached))]
        drop_norms(new, {fqn for op in assemblies if isinstance(op, Assembly) for fqn in op.drops})
        if assemblies:
            renumber(new)
        return Graph.from_nodes(new, self.how, self.constants, self.notes, self.reads_values)

    @cached_property
    def rows(self) -> tuple[tuple[Any, ...], ...]:
        """The graph in normal form, one row a call: what it is, where, and which rows it reads.

        Folded pads have no row of their own, so an explicit pad and a padded convolution are one thing.
        """
        return tuple(rows_of(self.nodes, self.conv_nodes)) if self.nodes is not None else ()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the normal form: equal for graphs that are isomorphic with their operands in order."""
        rows = self.rows or tuple((s.id, s.op) for s in self.sites.values())
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def difference(self, other: Graph, sizes: bool = True) -> str | None:
        """The first row in which two graphs differ, as text; None if they are isomorphic.

        Without ``sizes``, sizes that calls other than convolutions are given may differ. Where the forward reads
        numbers out of tensors, what it does with them behind the last convolution may differ too.
        """
        lax = self.reads_values and other.reads_values
        ours, others = (rows_into_convolutions(g.rows) if lax else g.rows for g in (self, other))
        for mine, theirs in zip(ours, others):
            alike = mine == theirs or (lax and _without_values(mine) == _without_values(theirs))
            if not alike and (sizes or without_sizes(mine) != without_sizes(theirs)):
                return difference_text(mine, theirs, ours, others)
        if len(ours) != len(others):
            shorter, longer = sorted((ours, others), key=len)
            counts = f"{len(ours)} calls were predicted, {len(others)} found"
            return f"{counts}; the first that is too many is {row_text(longer[len(shorter)], longer)}"
        return None

    @cached_property
    def view(self) -> nx.DiGraph[int]:
        """The normal form as a networkx graph: an integer a row, with its ``kind``, ``name`` and ``fqn``."""
        view: nx.DiGraph[int] = nx.DiGraph()
        for index, (kind, name, fqn, operands) in enumerate(self.rows):
            view.add_node(index, kind=kind, name=name, fqn=fqn)
            view.add_edges_from((source, index) for source in row_references(operands))
        return view


def _without_values(row: Any) -> Any:
    """A row without the numbers in it that may have been read from tensors: fractions, indices."""
    return without_numbers(without_sizes(row))


def _pools(nodes: fx.Graph) -> Iterator[tuple[fx.Node, Pool]]:
    for node in nodes.nodes:
        call = read_pool(node.target, node.args, dict(node.kwargs)) if "at" in node.meta else None
        if call is not None and isinstance(call.x, fx.Node):
            yield node, call.op


def _rewritten(site: Site, op: Any) -> Iterator[Site]:
    """A convolution module's site in a module tree, after its rewrite: itself, or the layers it is made of."""
    if not isinstance(op, (Assembly, Attached)):
        yield replace(site, op=op, weights=site.weights if op.kernel == site.op.kernel else None)
        return
    assembly, child = (op.assembly, f"{op.name}.") if isinstance(op, Attached) else (op, "")
    if isinstance(op, Attached):
        yield site
    for name, conv in assembly.convs.items():
        fqn = f"{site.fqn}.{child}{name}".removeprefix(".")
        call = Call((Frame(fqn, 0),), f"conv{conv.window.rank}d", owner_kind="conv")
        yield Site(fqn, fqn, 0, site.source, conv, Handle(call, f"{fqn}.weight"))


def _pool_site(site_id: str, node: fx.Node, op: Pool, totals: Mapping[tuple[str, int, str], int]) -> PoolSite:
    at: Call = node.meta["at"]
    counts = tuple(totals[f.fqn, f.call, at.family] for f in at.frames)
    handle = Handle(at, totals=counts, checkpoint=node.meta.get("checkpoint"))
    shape = node.all_input_nodes[0].meta.get("shape")
    return PoolSite(site_id, at.owner.fqn, at.owner.call, node.meta.get("source"), op, handle, shape)


def _site_id(at: Call, kind: str) -> str:
    fqn = at.owner.fqn + (f"@{at.owner.call}" if at.owner.call else "")
    return (fqn or ROOT) if at.owner_kind == kind and at.direct == 0 else f"{fqn}#{at.family}.{at.direct}"


def _site(site_id: str, conv: ConvNode, totals: Mapping[tuple[str, int, str], int], fed: Set[fx.Node] | None) -> Site:
    at: Call = conv.node.meta["at"]
    weight = conv.call.weight
    handle = Handle(
        call=at,
        weight=str(weight.target) if isinstance(weight, fx.Node) and weight.op == "get_attr" else None,
        totals=tuple(totals[f.fqn, f.call, at.family] for f in at.frames),
        checkpoint=conv.node.meta.get("checkpoint"),
        pads=tuple(pad.meta["at"] for pad in conv.pads),
        amounts=conv.amounts,
        plain=is_plain_conv(conv.node.target),
        ours=conv.node.target.__name__ if is_our_conv(conv.node.target) else None,  # pyright: ignore
        splits=_splits(conv),
        reads_input=isinstance(conv.x, fx.Node) and conv.x is conv.node.meta.get("owner_input"),
    )
    shape = conv.x.meta.get("shape") if isinstance(conv.x, fx.Node) else None
    source = conv.node.meta.get("source")
    weights = None if fed is None else weights_of(conv, fed)
    return Site(site_id, at.owner.fqn, at.owner.call, source, conv.op, handle, shape, weights)


def _splits(conv: ConvNode) -> tuple[str, ...]:
    """The rule by which each axis is padded explicitly, as far as symbolic sizes or a padding layer prove it."""
    rank = conv.op.window.rank
    rules = ["fixed"] * rank
    for pad in conv.pads:
        call = read_pad(pad.target, pad.args, dict(pad.kwargs))
        assert call is not None
        known = pad.meta["at"].owner_kind == "pad" or bool(pad.meta.get("symbolic"))
        for axis, (lo, hi) in enumerate((((0, 0),) * rank + tuple(call.amounts))[-rank:]):
            split = split_of(_expression(lo), _expression(hi)) if known else "unknown"
            if split != "fixed":
                rules[axis] = split if len(conv.pads) == 1 else "unknown"
    return tuple(rules) if conv.pads else ()


def _expression(value: Any) -> Any:
    return value.meta.get("expression") if isinstance(value, fx.Node) else value
