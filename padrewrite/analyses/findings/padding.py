"""Findings about made-up values: weights that see only padding, zeros at the border, averages that count them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import prod

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.border import Border
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
    message += axes_text(list(dead), site)
    numbers = {"kernel": full, "effective": kept, "valid": str(valid)}
    return finding("degenerate-kernel", site.id, message, numbers, source=site.source)


def _by(uses: tuple[AxisUse, ...]) -> str:
    return "x".join(str(use.size) for use in uses)


def zero_border(scene: Scene) -> Iterator[Finding]:
    """One finding for the model: how far zeros come, and what they take away."""
    padded = [site for site in scene.graph.convs() if _pads_with_zeros(site)]
    if not padded:
        return
    message = f"{len(padded)} of {len(scene.graph.sites)} convolutions pad with zeros"
    numbers: dict[str, object] = {"padded": len(padded), "convolutions": len(scene.graph.sites)}
    site = _most_affected(scene)
    share = None if site is None else scene.clean.share(scene.node(site))
    if site is not None and share is not None:
        message += f"; {share:.0%} of the positions of {site.id} depend on them"
        numbers |= {"share": round(share, 6), "most": site.id}
        zero, partial = (_falls(borders.of(scene.node(site))) for borders in (scene.borders, scene.partial_borders))
        if zero is not None:
            message += f", its edge has {zero[0]:.2f} and its corner {zero[1]:.2f} of the signal of its middle"
            message += f" (mean field; {partial[0]:.2f} and {partial[1]:.2f} with partial padding)" if partial else ""
            numbers |= {"edge": round(zero[0], 6), "corner": round(zero[1], 6)}
            numbers |= {"partial_edge": round(partial[0], 6), "partial_corner": round(partial[1], 6)} if partial else {}
    sites = tuple(site.id for site in padded)
    yield finding("zero-border", "(model)", message, numbers, cure="partial-padding", sites=sites)


def _most_affected(scene: Scene) -> Site | None:
    """The convolution that reaches an output of which most depends on zeros; of several the one of weakest corner."""
    maps = [site for site in scene.graph.convs() if scene.clean.share(scene.node(site)) is not None]
    maps = [site for site in maps if min(shape_of(scene.node(site))[d] for d in scene.dims(site)) > 1]
    used = scene.layout.before(scene.layout.outputs)

    def affected(site: Site) -> tuple[float, float]:
        falls = _falls(scene.borders.of(scene.node(site)))
        return scene.clean.share(scene.node(site)) or 0.0, -falls[1] if falls else -1.0

    return max(reversed([site for site in maps if scene.node(site) in used] or maps), key=affected, default=None)


def _falls(border: Border | None) -> tuple[float, float] | None:
    """The signal of the edge and of the corner, relative to the middle's."""
    if border is None or border.centre == 0:
        return None
    return border.edge / border.centre, border.corner / border.centre


def _pads_with_zeros(site: Site) -> bool:
    op = site.op
    return isinstance(op, Conv) and op.partial is None and any(op.modes[a] == "zeros" for a in op.padded_axes)


def padded_averages(scene: Scene) -> Iterator[Finding]:
    """Average pools with count_include_pad over padding."""
    pools = [(node, step) for node, step in scene.layout.steps.items() if step.kind == "pool" and step.reads]
    for node, step in pools:  # one of a parameter reads nothing that has positions
        read = step.reads[0]
        maps = [(s[1], shape_of(read.node)[s[0]]) for s in read.dims if isinstance(s, tuple)]
        worst = [max(axis.made_up(n)) for axis, n in maps if isinstance(axis, Slide)]
        kernels = [axis.kernel for axis, _ in maps if isinstance(axis, Slide)]
        if any(worst):
            kept = prod(k - w for k, w in zip(kernels, worst)) / prod(kernels)
            message = f"{step.name} counts padding zeros: its darkest corner keeps {kept:.0%}; count_include_pad=False"
            source = node.meta.get("source")
            yield finding("padded-average", place(node, scene), message, {"least": round(kept, 6)}, source=source)
