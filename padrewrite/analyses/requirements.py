"""What input sizes must fulfil for a model to run: operands that are joined agree, and fixed sizes are met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm

import torch
import torch.fx as fx

from padrewrite.analyses.fixed_sizes import fixed_sizes
from padrewrite.analyses.layout import Layout, Origin
from padrewrite.analyses.size_forms import SizeForm
from padrewrite.analyses.sizes import Sizes
from padrewrite.graph import Graph
from padrewrite.ops.step import shape_of
from padrewrite.recording.execute import execute


@dataclass(frozen=True)
class Requirement:
    """Two sizes that must be equal at a call, in terms of one input dimension; the others as recorded."""

    node: fx.Node
    axis: Origin
    left: SizeForm
    right: SizeForm

    @property
    def period(self) -> int:
        return lcm(self.left.period, self.right.period)

    def met(self, size: int) -> bool:
        return self.left.at(size) == self.right.at(size)

    @property
    def only(self) -> frozenset[int] | None:
        """The sizes that meet it, where these are a few; None if it is met, or not, by the residue of the size."""
        period = self.period
        growth = self.left.at(period) - self.left.at(0) - self.right.at(period) + self.right.at(0)
        if growth == 0:
            return None
        gaps = ((r, self.right.at(r) - self.left.at(r)) for r in range(period))
        return frozenset(r + period * (gap // growth) for r, gap in gaps if gap % growth == 0 and gap // growth >= 0)


def requirements(layout: Layout, sizes: Sizes) -> Iterator[Requirement]:
    """All of a recording."""
    for node, d, a, b in sizes.requirements:
        axis = layout.axes[node][d]
        if isinstance(axis, Origin):
            yield Requirement(node, axis, a, b)
    for node, axis, form, number in fixed_sizes(layout):
        yield Requirement(node, axis, form, SizeForm(0, (number,)))


def few_sizes(needs: Sequence[Requirement]) -> tuple[int, ...] | None:
    """The sizes that meet all, ascending, where these are a few; None if no requirement bounds them."""
    bounded = [only for need in needs if (only := need.only) is not None]
    if not bounded:
        return None
    return tuple(sorted(n for n in frozenset.intersection(*bounded) if n > 0 and all(need.met(n) for need in needs)))


def runs(graph: Graph, inputs: Sequence[fx.Node], sizes: Mapping[Origin, int]) -> bool | None:
    """Whether the recorded calls take inputs of other sizes; None if that cannot be tried.

    They are run on tensors without values, which checks every shape and computes nothing.
    """
    if _runs(graph, inputs, sizes):
        return True
    return False if _runs(graph, inputs, {}) else None


def _runs(graph: Graph, inputs: Sequence[fx.Node], sizes: Mapping[Origin, int]) -> bool:
    assert graph.nodes is not None
    shapes = [[sizes.get(Origin(i, d), n) for d, n in enumerate(shape_of(x))] for i, x in enumerate(inputs)]
    given = [_empty(shape, x) for shape, x in zip(shapes, inputs)]
    state = {str(n.target): _empty(shape_of(n), n) for n in graph.nodes.nodes if n.op == "get_attr"}
    try:
        with torch.no_grad():
            execute(graph.nodes, state, given)
    except Exception:  # whatever a call says of shapes that it cannot take
        return False
    return True


def _empty(shape: Sequence[int], like: fx.Node) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=like.meta["dtype"], device="meta")
