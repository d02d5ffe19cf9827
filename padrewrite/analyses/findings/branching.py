"""What to say of a forward that branches on its input's size."""

from __future__ import annotations

from padrewrite.analyses.findings.codes import dims_text, modulo_text
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.scene import Scene
from padrewrite.ops.step import shape_of

SHOWN = 3
"""Conditions that are told."""


def path_note(scene: Scene) -> str | None:
    """The sizes that take the recorded path; None if all do, as far as the forward's own code asked."""
    by_residues: dict[tuple[int, tuple[int, ...]], list[Origin]] = {}
    for index, given in enumerate(scene.layout.inputs):
        for axis in (Origin(index, dim) for dim in range(len(shape_of(given)))):
            period, residues = scene.paths.residues(axis)
            if period > 1:
                by_residues.setdefault((period, residues), []).append(axis)
    told = [f"{_sizes(good, period)} along {dims_text(axes)}" for (period, good), axes in by_residues.items()]
    told += scene.paths.others()
    if not told:
        return None
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return f"the forward branches on sizes; what is said of other sizes holds for {'; '.join(told[:SHOWN])}{more}"


def _sizes(residues: tuple[int, ...], period: int) -> str:
    return f"multiples of {period}" if residues == (0,) else f"sizes {modulo_text(residues, period)}"
