"""Folds over a layout that treat each dimension by itself: phases, fields, clean outputs, sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch.fx as fx

from padrewrite.analyses.layout import Layout, Origin
from padrewrite.ops.axis import AxisMap
from padrewrite.ops.step import shape_of

V = TypeVar("V")


class AxisFold(Generic[V]):
    """One value per located dimension of every tensor, kept for as long as something may ask for it."""

    def __init__(
        self,
        layout: Layout,
        start: Callable[[int], V],
        through: Callable[[AxisMap, V, int], V | None],
        join: Callable[[fx.Node, int, Sequence[V]], V | None],
        known: Callable[[fx.Node, int], tuple[V | None] | None] = lambda node, dim: None,
    ) -> None:
        """
        Args:
            start: the value of an input dimension of a given size.
            through: the value behind a map, for an operand of a given size; None if it has none.
            join: one value for (node, dimension) from those that its operands give.
            known: a value (in a tuple) that is known for (node, dimension) without looking at operands.
        """
        self._values: dict[fx.Node, tuple[V | None, ...]] = {}
        for node in layout.inputs:
            self._values[node] = tuple(start(n) for n in node.meta.get("shape", ()))
        for node, step in layout.steps.items():
            found: list[V | None] = []
            for d, axis in enumerate(layout.axes[node]):
                given: list[V] = []
                for read in step.reads:
                    source = read.dims[d]
                    if not isinstance(source, tuple) or not isinstance(axis, Origin):
                        continue
                    value = self._values[read.node][source[0]]
                    value = None if value is None else through(source[1], value, shape_of(read.node)[source[0]])
                    given += [] if value is None else [value]
                value = None if not given else given[0] if len(given) == 1 else join(node, d, given)
                settled = known(node, d) if isinstance(axis, Origin) else None
                found.append(value if settled is None else settled[0])
            self._values[node] = tuple(found)

    def of(self, node: fx.Node, dim: int) -> V | None:
        """The value of one dimension."""
        return self._values[node][dim]
