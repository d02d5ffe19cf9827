"""Findings about what is not known."""

from __future__ import annotations

from collections.abc import Iterator

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.findings.codes import finding, many
from padrewrite.analyses.scene import BEHIND_POOL, End, Scene, place


def reasoning_ended(scene: Scene) -> Iterator[Finding]:
    """One finding for each call behind which convolutions have no known positions."""
    behind: dict[End, list[str]] = {}
    for site in scene.graph.convs():
        end = scene.ended(site)
        if end is not None and end.reason != BEHIND_POOL:
            behind.setdefault(end, []).append(site.id)
    for end, sites in behind.items():
        where = place(end.at, scene) if end.at is not None else sites[0]
        ended = f"spatial reasoning ended {'before' if end.at is None else 'at'} {where}, because {end.reason}"
        message = f"{ended}; {many(len(sites), 'convolution')} behind it"
        source = end.at.meta.get("source") if end.at is not None else None
        yield finding("reasoning-ended", where, message, {"behind": len(sites)}, source=source, sites=tuple(sites))
