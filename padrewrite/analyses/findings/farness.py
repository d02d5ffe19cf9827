"""Findings about how far convolutions see: those that read receptive fields larger than the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from padrewrite.analyses.analysis import Finding
from padrewrite.analyses.costs import parameters_in
from padrewrite.analyses.findings.codes import dims_text, finding, many
from padrewrite.analyses.layout import Origin
from padrewrite.analyses.scene import Scene
from padrewrite.graph import Site
from padrewrite.ops.conv import Conv
from padrewrite.ops.step import shape_of

Beyond = Mapping[Origin, Mapping[str, int]]
"""By input dimension and site the field that the site reads, in pixels, where it is larger than the input."""


def fields_beyond_inputs(scene: Scene) -> Iterator[Finding]:
    """One finding for each input, from its border layer on (Richter et al. 2021)."""
    beyond = _beyond(scene)
    for index in sorted({axis.input for axis in beyond}):
        yield _finding(index, {axis: by for axis, by in beyond.items() if axis.input == index}, scene)


def _beyond(scene: Scene) -> Beyond:
    found: dict[Origin, dict[str, int]] = {}
    for site in _windows(scene):
        for a, axis in enumerate(scene.axes(site)):
            if isinstance(axis, Origin) and site.op.window.kernel[a] > 1:
                field = _field_read(site, a, scene)
                if field is not None and field > _size(axis, scene):
                    found.setdefault(axis, {})[site.id] = field
    return found


def _windows(scene: Scene) -> list[Site]:
    """Convolutions that see farther than what they read. Transposed ones are left out."""
    return [site for site in scene.graph.convs() if isinstance(site.op, Conv) and max(site.op.kernel) > 1]


def _field_read(site: Site, axis: int, scene: Scene) -> int | None:
    """Pixels that every value which the site reads depends on, by every path; None if it is not known."""
    dim = scene.dims(site)[axis]
    sources = [(read.node, read.dims[dim]) for read in scene.layout.steps[scene.node(site)].reads]
    fields = [scene.shared_fields.of(node, source[0]) for node, source in sources if isinstance(source, tuple)]
    known = [field.least for field in fields if field is not None]
    return min(known) if known and len(known) == len(fields) else None


def _size(axis: Origin, scene: Scene) -> int:
    return shape_of(scene.layout.inputs[axis.input])[axis.dim]


def _finding(index: int, beyond: Beyond, scene: Scene) -> Finding:
    windows = _windows(scene)
    sites = [site for site in windows if any(site.id in fields for fields in beyond.values())]
    parameters = parameters_in(sites)
    share = parameters / max(1, parameters_in(scene.graph.convs()))
    dims = [
        {"dim": axis.dim, "size": _size(axis, scene), "least": min(by.values()), "most": max(by.values())}
        for axis, by in beyond.items()
    ]
    numbers = {
        **{"input": index, "dims": dims, "beyond": len(sites), "convolutions": len(windows)},
        **{"parameters": parameters, "share": round(share, 6)},
    }
    percent = "less than 1%" if share < 0.01 else f"{share:.0%}"
    much = (
        f"{len(sites)} of {many(len(windows), 'convolution')} with a window ({percent} of all convolution parameters)"
    )
    read = f"{'reads' if len(sites) == 1 else 'read'} values whose receptive fields exceed the input by every path"
    message = f"{much} {read} ({_fields_text(beyond, scene)}): made wider, each gains only padding at one end or both"
    ids = tuple(site.id for site in sites)
    return finding("field-beyond-input", ids[0], message, numbers, source=sites[0].source, sites=ids)


def _fields_text(beyond: Beyond, scene: Scene) -> str:
    """``40 to 164 px of 32 along input dimensions 2 and 3``."""
    alike: dict[tuple[int, int, int], list[Origin]] = {}
    for axis, by in beyond.items():
        alike.setdefault((min(by.values()), max(by.values()), _size(axis, scene)), []).append(axis)
    texts: list[str] = []
    for (least, most, size), axes in alike.items():
        fields = f"{least}" if least == most else f"{least} to {most}"
        texts.append(f"{fields} px of {size} along {dims_text(axes)}")
    return ", ".join(texts)
