"""Findings about where things sit: shifts, merges that disagree, lopsided strides."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm

import torch.fx as fx

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.evenness import causal_axes, half_pixel_axes, shift
from padrewrite.analyses.findings.codes import (
    axes_text,
    dims_text,
    finding,
    in_order,
    input_size,
    many,
    modulo_text,
    per_dim,
)
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.phases import AxisPhase, Misalignment
from padrewrite.analyses.requirements import few_sizes
from padrewrite.analyses.scene import Scene, place
from padrewrite.analyses.size_forms import FAR, MOST_RESIDUES, SizeForm, least_period
from padrewrite.graph import Graph, Site
from padrewrite.ops.axis import Shift, Slide
from padrewrite.ops.conv import Conv, TransposedConv
from padrewrite.ops.step import shape_of


def half_pixel_shifts(graph: Graph, scene: Scene | None) -> Iterator[Finding]:
    """Stride 1 and an odd d(k-1): no padding can centre the window ([C2sp] Section 3)."""
    for site in graph.convs():
        if not isinstance(site.op, Conv) or graph.compares(site):
            continue
        axes = [a for a in half_pixel_axes(site.op) if a not in causal_axes(site.op)]
        if axes and not (scene is not None and scene.causality.is_chomped(site)):
            yield _half_pixel(site, site.op, axes, scene)


def _half_pixel(site: Site, op: Conv, axes: list[int], scene: Scene | None) -> Finding:
    shifts = [shift(op, a) for a in axes]
    message = f"every output sits {_px(shifts)} off what it reads{axes_text(axes, site)}"
    phases = [] if scene is None else [scene.phases.of(scene.node(site), scene.dims(site)[a]) for a in axes]
    centred = [p.centred for p in phases if p is not None]
    if centred and len(centred) == len(axes):
        message += f"; with all before it {_px(centred)} of the input"
    return finding(
        "half-pixel-shift",
        site.id,
        message,
        {"axes": axes, "shift": [str(s) for s in shifts], "centred": [str(c) for c in centred]},
        cure=None if op.in_channels == op.groups else "symmetric-even",
        source=site.source,
    )


def _px(amounts: Sequence[Fraction]) -> str:
    texts = list(dict.fromkeys(f"{'+' if a > 0 else ''}{a}" for a in amounts))
    return " and ".join(texts) + " px"


def misaligned_merges(scene: Scene) -> Iterator[Finding]:
    """Branches of one merge with different phases, but for those of signals that are apart by causal windows alone."""
    by_node: dict[fx.Node, list[int]] = {}
    found = {(m.node, m.dim): m for m in scene.phases.misaligned}
    for node, dim in found:
        sources = [read.dims[dim] for read in scene.layout.steps[node].reads]
        along_it = any(isinstance(s, tuple) and isinstance(s[1], Shift) for s in sources)
        if not along_it and not scene.causality.agree(node, dim):
            by_node.setdefault(node, []).append(dim)
    for node, dims in by_node.items():
        first = found[node, dims[0]]
        clauses = {d: _apart(found[node, d]) for d in dims}
        what = f"{scene.layout.steps[node].name} joins branches "
        what += per_dim(node, clauses, scene.layout.spatial(node), scene)
        phases = [{"scale": str(s), "offset": str(o)} for s, o in first.phases]
        numbers = {"dims": dims, "phases": phases, "apart": None if first.apart is None else str(first.apart)}
        yield finding("misaligned-merge", place(node, scene), what, numbers, source=node.meta.get("source"))


def _apart(merge: Misalignment) -> str:
    if merge.apart is not None:
        return f"that sit {merge.apart} input px apart"
    scales = " and ".join(str(s) for s in dict.fromkeys(scale for scale, _ in merge.phases))
    return f"with {scales} input px per position"


def shifted_outputs(scene: Scene) -> Iterator[Finding]:
    """Outputs as large as the input that do not sit on its pixels, but for signals shifted by causal windows alone."""
    for index, node in enumerate(scene.layout.outputs):
        axes = enumerate(scene.layout.axes.get(node, ()))
        placed = {d: axis for d, axis in axes if isinstance(axis, Origin) and axis in scene.tracked}
        off: dict[int, AxisPhase] = {}
        for d, axis in placed.items():
            phase, same = scene.phases.of(node, d), input_size(scene, axis) == shape_of(node)[d]
            moved = phase is not None and (phase.scale, phase.offset) != (1, 0)
            if phase is not None and same and moved and not scene.causality.on_time(node, d):
                off[d] = phase
        if off:
            yield _shifted(index, node, off, placed, scene)


def _shifted(index: int, node: fx.Node, off: Mapping[int, AxisPhase], among: Collection[int], scene: Scene) -> Finding:
    clauses = {d: _off(phase, shape_of(node)[d]) for d, phase in off.items()}
    what = f"output {scene.layout.paths.get(node, index)} {per_dim(node, clauses, among, scene)}"
    phases = [{"scale": str(phase.scale), "offset": str(phase.offset)} for phase in off.values()]
    numbers = {"output": index, "dims": list(off), "phases": phases}
    return finding("shifted-output", place(node, scene), what, numbers, source=node.meta.get("source"))


def _off(phase: AxisPhase, size: int) -> str:
    if phase.scale == 1:
        return f"sits {_px([phase.offset])} off the input's pixels"
    span = f"{phase.offset} to {phase.scale * (size - 1) + phase.offset}"
    return f"has {phase.scale} input px per pixel and covers {span} of the input"


def uneven_overlaps(graph: Graph) -> Iterator[Finding]:
    """Transposed convolutions whose outputs get unequal numbers of taps (Odena et al. 2016)."""
    for site in graph.convs():
        if not isinstance(site.op, TransposedConv):
            continue
        w = site.op.window
        counts: dict[int, list[int]] = {}
        for a, (k, s, d) in enumerate(zip(w.kernel, w.stride, w.dilation)):
            per = [sum((o - t * d) % s == 0 for t in range(k)) for o in range(s)]
            if min(per) != max(per):
                counts[a] = per
        if counts:
            least, most = min(map(min, counts.values())), max(map(max, counts.values()))
            what = f"neighbouring outputs get {least} to {most} of its taps{axes_text(list(counts), site)}"
            by_hand = "a kernel that is a multiple of the stride, or resize and convolve"
            numbers = {"taps": {str(a): per for a, per in counts.items()}}
            yield finding("uneven-overlap", site.id, f"{what}; {by_hand}", numbers, source=site.source)


def uneven_padding(scene: Scene) -> Iterator[Finding]:
    """Padding that the stride leaves unread on one side (Alsallakh et al. 2021), and the sizes without it."""
    by_origin: dict[Origin, list[tuple[fx.Node, Slide, SizeForm | None, int]]] = {}
    for node, step in scene.layout.steps.items():
        for read in step.reads:
            for d, source in enumerate(read.dims):
                axis = scene.layout.axes[node][d]
                if isinstance(source, tuple) and isinstance(source[1], Slide) and isinstance(axis, Origin):
                    window, n = source[1], shape_of(read.node)[source[0]]
                    if window.stride > 1 and max(window.lo, window.hi) > 0 and axis in scene.tracked:
                        form = scene.sizes.of(read.node, source[0])
                        by_origin.setdefault(axis, []).append((node, window, form, n))
    alike: dict[tuple[int, tuple[fx.Node, ...], _EvenSizes | None], list[Origin]] = {}
    for axis, windows in in_order(by_origin):
        uneven = tuple(node for node, window, _, n in windows if _is_uneven(window, n))
        if uneven:
            alike.setdefault((input_size(scene, axis), uneven, _even_sizes(axis, windows, scene)), []).append(axis)
    for (size, uneven, even), axes in alike.items():
        sites = tuple(dict.fromkeys(place(node, scene) for node in uneven))
        even = None if even is None else _tried(even, axes, scene)
        windows = f"{many(len(sites), 'strided window')} {'pad' if len(sites) > 1 else 'pads'} unevenly"
        message = f"at size {size} along {dims_text(axes)}, {windows}" + (f"; {even}" if even is not None else "")
        residues = None if even is None or even.residues is None else list(even.residues)
        numbers: dict[str, object] = {"inputs": [[a.input, a.dim] for a in axes], "size": size}
        numbers |= {"nearest": list(even.nearest if even else ()), "period": even and even.period, "residues": residues}
        source = next((node.meta.get("source") for node in uneven), None)
        yield finding("uneven-padding", "(model)", message, numbers, source=source, sites=sites)


def _is_uneven(window: Slide, n: int) -> bool:
    return window.hi - window.unread(n) != window.lo


@dataclass(frozen=True)
class _EvenSizes:
    """The sizes of an input dimension at which every window pads evenly and the model runs."""

    nearest: tuple[int, ...]
    """Smaller and larger than the recorded size, within a period."""
    period: int
    residues: tuple[int, ...] | None
    """Modulo the period, for all but small sizes; None if the period is longer than ``MOST_RESIDUES``, or if they
    are not known to run."""
    bounded: bool = False
    """The model runs at a few sizes only."""

    def __str__(self) -> str:
        if not self.nearest:
            return "no size at which the model runs avoids it" if self.bounded else "no size near avoids it"
        text = f"none would at {' or '.join(map(str, self.nearest))}"
        return f"{text}, nor at any size that is {modulo_text(self.residues, self.period)}" if self.residues else text


def _even_sizes(
    axis: Origin, windows: Sequence[tuple[fx.Node, Slide, SizeForm | None, int]], scene: Scene
) -> _EvenSizes | None:
    """None: not known."""
    known = [(window, form) for _, window, form, _ in windows if form is not None]
    if len(known) < len(windows):
        return None
    size = input_size(scene, axis)
    needs = [need for need in scene.requirements if need.axis == axis]
    on_path, taken = scene.paths.residues(axis)
    period = lcm(*(form.period * window.stride for window, form in known), *(need.period for need in needs), on_path)
    near = min(period, MOST_RESIDUES)
    candidates = few_sizes(needs) or range(max(1, size - near), size + near + 1)

    def fits(other: int) -> bool:
        sizes = [(window, form.at(other)) for window, form in known]
        runs = other % on_path in taken and all(n > 0 and window.size(n) > 0 for window, n in sizes)
        runs = runs and all(need.met(other) for need in needs)
        return runs and not any(_is_uneven(window, n) for window, n in sizes)

    below = next((n for n in reversed(candidates) if n < size and fits(n)), None)
    above = next((n for n in candidates if n > size and fits(n)), None)
    nearest = tuple(n for n in (below, above) if n is not None and scene.paths.takes(axis, n))
    if not nearest and scene.paths.conditions:
        return None
    if few_sizes(needs) is not None or period > MOST_RESIDUES:
        return _EvenSizes(nearest, period, None, few_sizes(needs) is not None)
    far = FAR * period
    return _EvenSizes(nearest, *least_period(period, [r for r in range(period) if fits(far + r)]))


def _tried(even: _EvenSizes, axes: Sequence[Origin], scene: Scene) -> _EvenSizes | None:
    """What is left when every size that is to be named has been tried; None if nothing is."""
    nearest = tuple(n for n in even.nearest if scene.runs(dict.fromkeys(axes, n)) is not False)
    if even.nearest and not nearest:
        return None
    far = FAR * even.period + even.residues[0] if even.residues else None
    fails = far is not None and scene.runs(dict.fromkeys(axes, far)) is False
    return replace(even, nearest=nearest, residues=None if fails else even.residues)
