"""How much finer each dimension is on a new grid, and where old values stop standing in the new ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch.fx as fx

from padrewrite.analyses.uniform import is_uniform
from padrewrite.errors import RegionBlocked
from padrewrite.ops.axis import Bins, Same, Whole
from padrewrite.ops.following import read_step
from padrewrite.ops.resample import Resample
from padrewrite.ops.sizes import evaluate_size
from padrewrite.ops.step import Read, Regroup, Step, shape_of


@dataclass(frozen=True)
class AxisState:
    """One dimension of a tensor: its scale in the old network, and how much finer it is in the new one."""

    scale: Fraction
    """Input pixels per position; 0 behind an adaptive pool, whose bins are no grid."""
    factor: int | None
    """None: as fine as what it is merged with, as after a resize to another tensor's size."""
    size: int | None
    """In the new network; None if it is not known."""


States = Mapping[fx.Node, tuple[AxisState | None, ...]]


def why_it_ends(node: fx.Node, step: Step, states: States) -> str | None:
    """Why the grid ends at this call, to be read after its name; None if it does not.

    Raises:
        RegionBlocked: the call cannot work on the finer grid at all.
    """
    for weight in step.besides:
        if any(state is not None and state.factor != 1 for state in states.get(weight, ())):
            raise RegionBlocked("unknown-positions", f"the weight of {_told(node, step)} is a map on the finer grid")
    return next((why for read in step.reads for why in _ends(node, step, read, states)), None) or _made_up(
        node, step, states
    )


def _ends(node: fx.Node, step: Step, read: Read, states: States) -> Iterator[str]:
    fine = [d for d, state in enumerate(states[read.node]) if state is not None and state.factor != 1]
    kept = {s[0]: s[1] for s in read.dims if isinstance(s, tuple)}
    for d in fine:
        axis, state = kept.get(d), states[read.node][d]
        single = shape_of(read.node)[d] == 1 and state is not None and state.size != 1
        if d in read.pooled:
            yield "whose statistics are taken over all positions"
        elif axis is None and step.kind == "reshape":
            _check_flattening(node, step, read, d, states)
            yield "which regroups positions"
        elif axis is None or isinstance(axis, Whole) or (single and step.kind == "pool" and isinstance(axis, Same)):
            _check_linear(node, step)
            yield "which reads all positions"
        elif isinstance(axis, (Resample, Bins)):
            yield "which resamples"


def _made_up(node: fx.Node, step: Step, states: States) -> str | None:
    """Whether positions on the finer grid meet values that the forward makes for each of them: coordinates, noise."""
    fine = {
        d
        for read in step.reads
        for d, source in enumerate(read.dims)
        for state in (states[read.node][source[0]] if isinstance(source, tuple) else None,)
        if state is not None and state.factor != 1
    }
    for read in read_step(node).reads if fine and len(node.all_input_nodes) > 1 else ():
        for source in (read.dims[d] for d in sorted(fine)):
            placeless = isinstance(source, tuple) and states.get(read.node, (None,) * 9)[source[0]] is None
            if isinstance(source, tuple) and placeless and not is_uniform(read.node, source[0]):
                return "which reads values made for each position"
    return None


def _check_flattening(node: fx.Node, step: Step, read: Read, dim: int, states: States) -> None:
    """A map flattened with its channels goes into a layer of fixed size, and so does one that was a single position."""
    raw = next((r for r in read_step(node).reads if r.node is read.node), None)
    merged = [s for s in (raw.dims if raw is not None else ()) if isinstance(s, Regroup) and dim in s.dims]
    shape, given = shape_of(read.node), states[read.node]
    state, name = given[dim], node.meta.get("fqn") or "the model"
    if any(given[d] is None and shape[d] > 1 for s in merged for d in s.dims):
        raise RegionBlocked("fixed-size-head", f"{name} flattens the feature map for a layer of fixed size")
    if shape[dim] == 1 and step.name != "getitem" and state is not None and state.size != 1:
        raise RegionBlocked("fixed-size-head", f"{name} drops a dimension of size 1, which would have {state.size}")


def _check_linear(node: fx.Node, step: Step) -> None:
    if step.name == "linear":
        told = f"{_told(node, step)} multiplies positions by a matrix of fixed size"
        raise RegionBlocked("fixed-size-head", told)


def size_stays(node: fx.Node, axis: int, symbolic: bool) -> bool:
    """Whether the size that a resize is told for an axis is a constant or that of an input, and not a feature map's.

    ``axis`` counts from the end. Without ``symbolic`` sizes a recorded number may stand for anything.
    """
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
    size = node.kwargs.get("size", given)
    one: Any = size[axis] if isinstance(size, (tuple, list)) else size
    if isinstance(one, fx.Node):
        names: Any = one.args[1] if one.target is evaluate_size else ()
        return one.args[0] in names
    return symbolic


def _told(node: fx.Node, step: Step) -> str:
    return f"{step.name} in {node.meta.get('fqn') or 'the model'}"
