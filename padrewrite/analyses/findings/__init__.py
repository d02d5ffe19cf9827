"""What can be wrong, by stable code, and the search for all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.findings import alignment, coverage, farness, fitting, limits, padding
from padrewrite.analyses.findings.codes import CODES
from padrewrite.analyses.scene import Scene
from padrewrite.graph import Graph

__all__ = ["CODES", "find"]

_BY_DATAFLOW: tuple[Callable[[Scene], Iterator[Finding]], ...] = (
    coverage.gridding,
    alignment.misaligned_merges,
    alignment.shifted_outputs,
    padding.unused_weights,
    coverage.dead_positions,
    alignment.uneven_padding,
    fitting.size_requirements,
    padding.zero_border,
    padding.padded_averages,
    farness.fields_beyond_inputs,
    limits.reasoning_ended,
)


def find(graph: Graph, scene: Scene | None) -> tuple[Finding, ...]:
    """All findings, warnings first, then in the order of ``CODES``; without dataflow those that need none."""
    found = [*alignment.half_pixel_shifts(graph, scene), *alignment.uneven_overlaps(graph), *coverage.oversized(graph)]
    if scene is not None:
        found += [finding for search in _BY_DATAFLOW for finding in search(scene)]
    order = {code: place for place, code in enumerate(CODES)}
    return tuple(sorted(found, key=lambda f: (f.severity != "warning", order[f.code])))
