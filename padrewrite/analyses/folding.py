"""Folds over a layout that treat each dimension by itself: phases, fields, clean outputs, sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch.fx as fx

from padrewrite.analyses.layout import Layout, Origin
from padrewrite.ops.axis import AxisMap, Same, Whole
from padrewrite.ops.step import Step, shape_of

V = TypeVar("V")


class AxisFold(Generic[V]):
    """One value per located dimension of every tensor."""

    def __init__(
        self,
        layout: Layout,
        start: Callable[[int], V],
        through: Callable[[AxisMap, V, int], V | None],
        join: Callable[[fx.Node, int, Sequence[V]], V | None],
        settle: Callable[[fx.Node, int, V | None], V | None] = lambda node, dim, value: value,
        strict: bool = False,
        one_origin: bool = False,
    ) -> None:
        """
        Args:
            start: the value of an input dimension of a given size.
            through: the value behind a map, for an operand of a given size; None if it has none. What is read in place
                keeps its value.
            join: one value for (node, dimension) from those that its operands give.
            settle: the last word on the value of (node, dimension).
            strict: one operand without a value leaves none. What is read as a whole, as context, takes no part.
            one_origin: only operands that carry the positions of the result's input dimension give values.
        """
        self._layout, self._through, self._strict, self._one_origin = layout, through, strict, one_origin
        self._values: dict[fx.Node, tuple[V | None, ...]] = {}
        for node in layout.inputs:
            self._values[node] = tuple(start(n) for n in node.meta.get("shape", ()))
        for node, step in layout.steps.items():
            found: list[V | None] = []
            for d, axis in enumerate(layout.axes[node]):
                if not isinstance(axis, Origin):
                    found.append(None)
                    continue
                given = self._given(step, d, axis)
                value = None if not given else given[0] if len(given) == 1 else join(node, d, given)
                found.append(settle(node, d, value))
            self._values[node] = tuple(found)

    def _given(self, step: Step, dim: int, axis: Origin) -> list[V]:
        """The values that the operands give to a dimension of the result."""
        given: list[V] = []
        for read in step.reads:
            source = read.dims[dim]
            if self._one_origin and isinstance(source, tuple) and self._layout.axes[read.node][source[0]] != axis:
                continue
            if isinstance(source, tuple) and not isinstance(source[1], Whole):
                value = self._values[read.node][source[0]]
                if value is not None and not isinstance(source[1], Same):
                    value = self._through(source[1], value, shape_of(read.node)[source[0]])
                missing = value is None
                given += [] if value is None else [value]
            else:
                missing = self._layout.lost(read.node) is not None
            if missing and self._strict:
                return []
        return given

    def of(self, node: fx.Node, dim: int) -> V | None:
        """The value of one dimension."""
        return self._values[node][dim]
