"""From a graph to an ``Analysis``."""

from __future__ import annotations

from collections.abc import Collection

from padrewrite.analyses.analysis import Analysis, Records, SiteRecord
from padrewrite.analyses.costs import macs_of, weights_of
from padrewrite.analyses.findings import find
from padrewrite.analyses.findings.branching import path_note
from padrewrite.analyses.nodes import node_records
from padrewrite.analyses.scene import BEHIND_POOL, Scene
from padrewrite.analyses.support import Reached, Term, reached
from padrewrite.graph import Graph, Site
from padrewrite.ops.sizes import print_size
from padrewrite.ops.step import shape_of


def build(graph: Graph, model: str, inputs: str | None) -> Analysis:
    """Everything that is known of a recorded model; of a module tree only what its windows say."""
    scene = None if graph.nodes is None else Scene(graph)
    record = _windows_only if scene is None else lambda site: _record(site, scene)
    sites = Records({site.id: record(site) for site in graph.convs()})
    chains = () if scene is None else scene.chains
    calls = None if scene is None else len(graph.rows)
    nodes, outputs = ({}, ()) if scene is None else node_records(scene)
    told = () if scene is None else (path_note(scene), NOWHERE if _is_nowhere(sites.values()) else None)
    notes = (*graph.notes, *filter(None, told))
    symbolic = graph.how == "symbolic" and (scene is None or all(axis.dim > 1 for axis in scene.tracked))
    conditions = tuple(map(print_size, graph.conditions)) if symbolic else None
    return Analysis(
        model, graph.how, inputs, calls, sites, chains, find(graph, scene), notes, Records(nodes), outputs, conditions
    )


NOWHERE = (
    "no convolution reads positions of an input (a linear layer, a global pool or a constant made what they read): "
    "sizes for other inputs, positions and receptive fields are not known"
)


def _is_nowhere(records: Collection[SiteRecord]) -> bool:
    """Whether nothing spatial is known, for that reason."""
    return bool(records) and all(record.ended == BEHIND_POOL for record in records)


def _windows_only(site: Site) -> SiteRecord:
    nothing = (None,) * site.op.window.rank
    unknown = "no example inputs were given"
    return SiteRecord(
        site.id,
        site.op,
        site.source,
        input_size=None,
        output_size=None,
        size=nothing,
        phase=nothing,
        receptive_field=nothing,
        reached_of={},
        context=False,
        valid_weights=None,
        saw_padding=None,
        border=None,
        partial_border=None,
        weights=weights_of(site),
        macs=None,
        ended=unknown,
    )


def _record(site: Site, scene: Scene) -> SiteRecord:
    node, dims, sizes = scene.node(site), scene.dims(site), scene.sizes_in(site)
    fields = [scene.fields.of(node, d) for d in dims]
    ended = scene.ended(site)
    reasons = (scene.fields.unknown(node, d) for d in dims) if ended is None else ()
    seen, context = _reached(site, scene)
    return SiteRecord(
        site.id,
        site.op,
        site.source,
        input_size=sizes,
        output_size=tuple(shape_of(node)[d] for d in dims),
        size=tuple(scene.sizes.of(node, d) for d in dims),
        phase=tuple(scene.phases.of(node, d) for d in dims),
        receptive_field=tuple(None if field is None else field.size for field in fields),
        reached_of=seen,
        context=context,
        valid_weights=scene.valid(site),
        saw_padding=scene.clean.share(node),
        border=scene.borders.of(node),
        partial_border=scene.partial_borders.of(node),
        weights=weights_of(site),
        macs=macs_of(site),
        ended=None if ended is None else ended.reason,
        field_ended=next(filter(None, reasons), None),
    )


def _reached(site: Site, scene: Scene) -> tuple[dict[int, Reached], bool]:
    """What reaches the middle, by the number of the input, and whether everything else does, too."""
    node = scene.node(site)
    support = scene.supports.of(node)
    context = node in scene.wholes or any(term.context for term in support.terms)
    if support.unknown is not None:
        return {}, context
    by_input: dict[int, list[Term]] = {}
    for term in support.local:
        if all(f.dim is not None for f in term.factors):
            by_input.setdefault(term.input, []).append(term)
    middle, found = [n // 2 for n in shape_of(node)], dict[int, Reached]()
    for source, terms in sorted(by_input.items()):
        whole = scene.layout.inputs[source].meta["shape"]
        found[source] = reached(terms, middle, [whole[d] for d in scene.supports.tracked[source]])
    return found, context
