"""Findings about what is not known."""

from __future__ import annotations

from collections.abc import Iterator

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.findings.codes import finding, many
from padrewrite.analyses.layout import Lost
from padrewrite.analyses.scene import BEHIND_POOL, Scene, place


def reasoning_ended(scene: Scene) -> Iterator[Finding]:
    """One finding for each call behind which convolutions have no known positions."""
    behind: dict[str, list[str]] = {}
    for site in scene.graph.convs():
        reason = scene.ended(site)
        if reason is not None and reason != BEHIND_POOL:
            behind.setdefault(reason, []).append(site.id)
    for reason, sites in behind.items():
        at = next((n for n, axes in scene.layout.axes.items() if any(a == Lost(reason) for a in axes)), None)
        where = place(at, scene) if at is not None else sites[0]
        message = f"spatial reasoning ended here, because {reason}; {many(len(sites), 'convolution')} behind it"
        source = at.meta.get("source") if at is not None else None
        yield finding("reasoning-ended", where, message, {"behind": len(sites)}, source=source, sites=tuple(sites))
