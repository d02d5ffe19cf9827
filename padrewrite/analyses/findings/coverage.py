"""Findings about what is read: gridding, positions that nobody reads, kernels larger than they need to be."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby
from math import prod

import torch.fx as fx

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.chains import Chain, Gridding
from padrewrite.analyses.findings.codes import axes_text, finding, many, names
from padrewrite.analyses.scene import Scene, place
from padrewrite.graph import Graph
from padrewrite.ops.conv import Conv

LARGE = 7
"""Kernels from this size on are worth a separable one ([GCN])."""
WASTE = Fraction(1, 4)
_RESHAPED = ("constant", "crop", "reshape", "pad", "barrier")
"""Kinds of calls that compute nothing."""


def gridding(scene: Scene) -> Iterator[Finding]:
    """Dilated chains with holes: with their lead-in (a warning), or only by themselves (a note)."""
    for chain in scene.chains:
        where = axes_text(chain.axes, scene.graph.sites[chain.sites[0]])
        if not chain.with_lead_in.hole_free:
            what = f"rates {_list(chain.with_lead_in)}{where} leave holes{_apart(chain.with_lead_in, chain)}"
            yield _gridding("gridding", chain, what, scene)
        elif not chain.alone.hole_free:
            alone = f"rates {_list(chain.alone)}{where} leave holes by themselves{_apart(chain.alone, chain)}"
            filled = f"the {many(len(chain.lead_in), 'convolution')} of rate 1 before them fill these (score "
            what = f"{alone}; {filled}{chain.with_lead_in.score:.2g})"
            yield _gridding("weak-gridding", chain, what, scene)


def _gridding(code: str, chain: Chain, what: str, scene: Scene) -> Finding:
    numbers = {
        "axes": list(chain.axes),
        "rates": list(chain.rates),
        "m2": chain.m2,
        "score": round(chain.gridding_score, 6),
        "with_lead_in": {"rates": list(chain.with_lead_in.rates), "score": round(chain.with_lead_in.score, 6)},
    }
    first = scene.graph.sites[chain.sites[0]]
    return finding(code, first.id, what, numbers, cure="hybrid-dilation", source=first.source, sites=chain.sites)


def _list(numbers: Gridding) -> str:
    """1(x4),2(x6): runs of equal rates as rate and times."""
    runs = [(rate, len(list(group))) for rate, group in groupby(numbers.rates)]
    return ",".join(str(rate) if many == 1 else f"{rate}(x{many})" for rate, many in runs)


def _apart(numbers: Gridding, chain: Chain) -> str:
    networks = numbers.networks ** len(chain.axes)
    apart = f": {networks} networks that never share an input" if networks > 1 else ""
    context = " but for global context" if chain.context else ""
    return f"{apart}{context} (score {numbers.score:.2g})"


def dead_positions(scene: Scene) -> Iterator[Finding]:
    """Tensors that are computed in part for nothing, and inputs that are given so."""
    for node, share in scene.waste.items():
        users = scene.layout.users[node]
        readers = [place(user, scene) for user in users]
        given = node in scene.layout.inputs
        if share < WASTE or (not given and scene.layout.steps[node].kind in _RESHAPED):
            continue
        tensor = f"input {scene.layout.inputs.index(node)}" if given else place(node, scene)
        sites = tuple(dict.fromkeys(readers))
        unread = "never read" if given else "computed and read by nothing"
        what = f"{float(share):.0%} of the positions of {tensor} are {unread}"
        message = f"{what}: {names(sites)} {'skip' if len(sites) > 1 else 'skips'} them"
        numbers = {"share": round(float(share), 6), "exact": str(share), "tensor": tensor}
        source = _source(users[0]) if given else _source(node)
        yield finding("dead-positions", readers[0], message, numbers, source=source, sites=sites)


def _source(node: fx.Node) -> str | None:
    return node.meta.get("source")


def oversized(graph: Graph) -> Iterator[Finding]:
    """Dense kernels of 7 and more along two axes at stride 1."""
    for site in graph.convs():
        op = site.op
        if not isinstance(op, Conv) or op.groups == op.in_channels > 1 or graph.compares(site):
            continue
        large = [a for a, (k, s) in enumerate(zip(op.kernel, op.stride)) if k >= LARGE and s == 1]
        if len(large) < 2:
            continue
        weights = op.out_channels * op.in_channels // op.groups * prod(op.kernel)
        k = max(op.kernel)
        middle = op.out_channels
        separable = 2 * k * middle * (op.in_channels + op.out_channels)
        if separable >= weights:
            continue
        shape = "x".join(map(str, op.kernel))
        message = f"{shape} with {weights:,} weights; separable with {middle} middle channels: {separable:,}"
        numbers = {"weights": weights, "separable": separable}
        cure = "separable-kernel" if site.handle.call.owner_kind == "conv" else None  # it replaces layers
        yield finding("oversized-kernel", site.id, message, numbers, cure=cure, source=site.source)
