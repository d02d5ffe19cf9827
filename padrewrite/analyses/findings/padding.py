"""Findings about made-up values: weights that see only padding, zeros at the border, averages that count them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import prod

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.findings.codes import axes_text, finding
from padrewrite.analyses.scene import Scene, place
from padrewrite.analyses.usage import AxisUse
from padrewrite.graph import Site
from padrewrite.ops.axis import Slide
from padrewrite.ops.conv import Conv
from padrewrite.ops.step import shape_of

HALF = Fraction(1, 2)


def unused_weights(scene: Scene) -> Iterator[Finding]:
    """Weights that multiply padding, everywhere or mostly; outputs that see nothing else ([DLv3] Fig. 4)."""
    for site in scene.graph.convs():
        uses = scene.uses(site)
        if uses is None:
            continue
        dead = {a: use.dead for a, use in enumerate(uses) if use.dead}
        valid = scene.valid(site)
        assert valid is not None
        if dead:
            yield _degenerate(site, uses, dead, valid)
        elif valid < HALF:
            message = f"{float(valid):.0%} of its weights meet real input on a map of {_by(uses)}"
            numbers = {"valid": str(valid), "size": [use.size for use in uses]}
            yield finding("padded-weights", site.id, message, numbers, source=site.source)
        blind = {a: use.blind for a, use in enumerate(uses) if use.blind}
        if blind:
            total = 1 - prod(1 - Fraction(use.blind, use.window.size(use.size)) for use in uses)
            message = f"{float(total):.0%} of its outputs see nothing but padding"
            numbers = {"blind": {str(a): n for a, n in blind.items()}, "share": str(total)}
            yield finding("blind-outputs", site.id, message, numbers, source=site.source)


def _degenerate(site: Site, uses: tuple[AxisUse, ...], dead: dict[int, tuple[int, ...]], valid: Fraction) -> Finding:
    kept = [len(use.per_tap) - len(use.dead) for use in uses]
    full = [len(use.per_tap) for use in uses]
    shape, left = "x".join(map(str, full)), "x".join(map(str, kept))
    message = f"on a map of {_by(uses)} only {left} of its {shape} taps ever see the input"
    message += axes_text(list(dead), len(uses))
    numbers = {"kernel": full, "effective": kept, "valid": str(valid)}
    return finding("degenerate-kernel", site.id, message, numbers, source=site.source)


def _by(uses: tuple[AxisUse, ...]) -> str:
    return "x".join(str(use.size) for use in uses)


def zero_border(scene: Scene) -> Iterator[Finding]:
    """One finding for the model: how far zeros come, and what they take away."""
    padded = [site for site in scene.graph.convs() if _pads_with_zeros(site)]
    if not padded:
        return
    maps = [site for site in scene.graph.convs() if scene.clean.share(scene.node(site)) is not None]
    last = [site for site in maps if min(shape_of(scene.node(site))[d] for d in scene.dims(site)) > 1][-1:]
    message = f"{len(padded)} of {len(scene.graph.sites)} convolutions pad with zeros"
    numbers: dict[str, object] = {"padded": len(padded), "convolutions": len(scene.graph.sites)}
    for site in last:
        share, border = scene.clean.share(scene.node(site)), scene.borders.of(scene.node(site))
        message += f"; {share:.0%} of the positions of {site.id} depend on them"
        numbers |= {"share": round(share or 0.0, 6), "last": site.id}
        if border is not None and border.centre > 0:
            corner, edge = border.corner / border.centre, border.edge / border.centre
            message += f", its edge has {edge:.2f} and its corner {corner:.2f} of the signal of its middle (mean field)"
            numbers |= {"edge": round(edge, 6), "corner": round(corner, 6)}
    sites = tuple(site.id for site in padded)
    yield finding("zero-border", "(model)", message, numbers, cure="partial-padding", sites=sites)


def _pads_with_zeros(site: Site) -> bool:
    op = site.op
    return isinstance(op, Conv) and op.partial is None and any(op.modes[a] == "zeros" for a in op.padded_axes)


def padded_averages(scene: Scene) -> Iterator[Finding]:
    """Average pools with count_include_pad over padding."""
    for node, step in scene.layout.steps.items():
        if step.kind != "pool":
            continue
        (read,) = step.reads
        maps = [(s[1], shape_of(read.node)[s[0]]) for s in read.dims if isinstance(s, tuple)]
        worst = [max(axis.made_up(n)) for axis, n in maps if isinstance(axis, Slide)]
        kernels = [axis.kernel for axis, _ in maps if isinstance(axis, Slide)]
        if any(worst):
            kept = prod(k - w for k, w in zip(kernels, worst)) / prod(kernels)
            message = f"{step.name} counts padding zeros: its darkest corner keeps {kept:.0%}; count_include_pad=False"
            source = node.meta.get("source")
            yield finding("padded-average", place(node, scene), message, {"least": round(kept, 6)}, source=source)
