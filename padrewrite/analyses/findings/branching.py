"""What to say of a forward that branches on its input's size."""

from __future__ import annotations

from padrewrite.analyses.findings.codes import dims_text, modulo_text
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.paths import Paths
from padrewrite.analyses.scene import Scene
from padrewrite.ops.step import shape_of

SHOWN = 3
"""Conditions that are told."""


def path_note(scene: Scene) -> str | None:
    """The sizes that take the recorded path; None if all do, as far as the forward's own code asked."""
    alike: dict[str, list[Origin]] = {}
    for index, given in enumerate(scene.layout.inputs):
        for axis in (Origin(index, dim) for dim in range(len(shape_of(given)))):
            sizes = _sizes(axis, scene.paths)
            if sizes:
                alike.setdefault(sizes, []).append(axis)
    told = [f"{sizes} along {dims_text(axes)}" for sizes, axes in alike.items()] + scene.paths.others()
    if not told:
        return None
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return f"the forward branches on sizes; what is said of other sizes holds for {'; '.join(told[:SHOWN])}{more}"


def _sizes(axis: Origin, paths: Paths) -> str:
    """``multiples of 16 from 32 on``; empty if all sizes may take the path."""
    (period, residues), bounds = paths.residues(axis), paths.bounds(axis)
    which = f"sizes {modulo_text(residues, period)}" if period > 1 else "sizes" if bounds else ""
    if residues == (0,) and period > 1:
        which = f"multiples of {period}"
    if bounds is None:
        return which
    least, greatest = bounds
    return f"{which} from {least} {'on' if greatest is None else f'to {greatest}'}"
