"""One convolution call in detail: its window axis by axis, where it is made, how it would be rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from padrewrite.analyses.costs import cost_text, site_cost
from padrewrite.codec import encode
from padrewrite.errors import SelectorError
from padrewrite.graph import Graph, Site
from padrewrite.ops.conv import Conv
from padrewrite.ops.following import axis_of
from padrewrite.plans import Plan
from padrewrite.reporting.layout import Cell, clean, grid
from padrewrite.reporting.ops import spec_text
from padrewrite.selecting import closest

SCHEMA = "padrewrite.explain/1"
_COLUMNS = (
    "axis",
    "kernel",
    "stride",
    "dilation",
    "padding",
    "mode",
    "input",
    "output",
    "untouched by padding",
)


def find_site(graph: Graph, name: str) -> Site:
    """The site of that id.

    Raises:
        SelectorError: there is none; lists the closest.
    """
    if name in graph.sites:
        return graph.sites[name]
    near = ", ".join(closest(name, graph.sites))
    raise SelectorError(f"{name!r} is none of the {len(graph.sites)} convolutions. Closest: {near or 'none'}.")


def explanation_json(site: Site, plan: Plan | None) -> dict[str, Any]:
    """The site's record and, with a plan, the decisions about it."""
    decisions = [] if plan is None else [encode(d) for d in plan.decisions if d.site == site.id]
    return {
        "schema": SCHEMA,
        "site": site.id,
        "source": site.source,
        "op": encode(site.op.spec()),
        "input_shape": site.input_shape,
        "cost": encode(site_cost(site)),
        "handle": encode(site.handle),
        "decisions": decisions,
    }


def explanation_parts(site: Site, plan: Plan | None, width: int) -> Iterator[RenderableType]:
    """The same for people."""
    yield Text(f"{clean(site.id)}  {spec_text(site.op.spec())}", style="bold", overflow="fold")
    yield grid(_facts(site), width, least=(0, 30), fold=(1,), indent=2)
    rows: list[tuple[Cell, ...]] = [tuple(Text(c, style="bold") for c in _COLUMNS), *_axes(site)]
    yield grid(rows, width, least=(0, 4, 4, 4, 4, 4, 4, 4, 8), fold=range(9), indent=2)
    if plan is None:
        return
    yield Text(clean_lines(plan.why_not(site.id)), overflow="fold")
    for edit in plan.edits:
        if edit.site.id == site.id:
            how = _WAYS.get(edit.way, edit.way).format(edit.owner or "the model")
            yield grid([("written by", f"{edit.way}: {how}")], width, least=(0, 30), fold=(1,), indent=2)


_WAYS = {
    "retune": "attributes of {} are set",
    "rebind": "{} gets a class with the same parameters",
    "redirect": "forward of {} runs with this call redirected",
    "replace": "a layer with other parameters takes the place of {}",
    "attach": "{} gets a child, which its forward runs behind it",
}


def clean_lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.splitlines())


def _facts(site: Site) -> list[tuple[Cell, ...]]:
    op, handle = site.op, site.handle
    bias = "with bias" if op.bias else "no bias"
    facts: list[tuple[Cell, ...]] = [
        ("source", site.source or _sourceless(site)),
        ("channels", f"{op.in_channels} -> {op.out_channels}, groups {op.groups}, {bias}"),
        ("reads", "unknown (needs example inputs)" if site.input_shape is None else _shape(site.input_shape)),
        ("cost", cost_text(site_cost(site))),
        ("weight", handle.weight or "computed in forward"),
        ("made by", f"{handle.call.family} number {handle.call.direct} in {_frames(site)}"),
    ]
    pads = [f"{pad.mode} {_pairs(pad.amounts)}" for pad in handle.amounts]
    if pads:
        facts.append(("explicit pads", ", then ".join(pads) + " (nearest to the convolution first)"))
    return facts


def _sourceless(site: Site) -> str:
    if site.input_shape is None:
        return "unknown (needs example inputs)"
    return "none (layers of torch alone make the call)"


def _frames(site: Site) -> str:
    return " > ".join(f"{f.fqn or '(model)'}" + (f" call {f.call}" if f.call else "") for f in site.handle.call.frames)


def _axes(site: Site) -> Iterator[tuple[Cell, ...]]:
    op, w, reach = site.op, site.op.window, site.op.reach
    sizes = None if site.input_shape is None else site.input_shape[-w.rank :]
    plain = isinstance(op, Conv)
    for axis in range(w.rank):
        mode = "zeros" if not plain else "partial" if op.partial and op.modes[axis] == "zeros" else op.modes[axis]
        output, inside = "-", "-"
        if sizes is not None:
            output = str(axis_of(op, axis).size(sizes[axis]))
        if sizes is not None and plain:
            first, last = reach.rect(sizes)[axis]
            inside = f"{first} to {last - 1}" if last > first else "none"
        size = "-" if sizes is None else str(sizes[axis])
        numbers = (axis, w.kernel[axis], w.stride[axis], w.dilation[axis])
        yield (*map(str, numbers), f"{w.lo[axis]} before, {w.hi[axis]} after", mode, size, output, inside)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _pairs(amounts: tuple[tuple[int, int], ...]) -> str:
    return " ".join(f"({lo}, {hi})" for lo, hi in amounts)
