"""The size of every tensor for all input sizes at once, and what must be equal for the model to run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.fx as fx

from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import Layout, Origin
from padrewrite.analyses.size_forms import SizeForm, identity, joined, mapped, of_expression
from padrewrite.ops.axis import AxisMap, Cut, Pick, Slide, Spread, Whole
from padrewrite.ops.sizes import evaluate_size, size_name
from padrewrite.ops.step import shape_of


class Sizes:
    """The size forms of all located dimensions of a layout, in terms of their input dimension."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.requirements: list[tuple[fx.Node, int, SizeForm, SizeForm]] = []
        """(merge, dimension, form, form): sizes that must be equal for the model to run."""

        def start(n: int) -> SizeForm:
            return identity()

        self._fold = AxisFold[SizeForm](layout, start, _through, self._join, self._settle, one_origin=True)

    def of(self, node: fx.Node, dim: int) -> SizeForm | None:
        """The form of one dimension.

        None if its size was fixed while recording or is computed in a way that is not of this form, or if the recorded
        input is so small that the form does not hold for it (``x[:, :, :100]`` of 64 pixels).
        """
        return self._fold.of(node, dim)

    def _join(self, node: fx.Node, dim: int, given: Sequence[SizeForm]) -> SizeForm:
        for other in given[1:]:
            if not given[0].same_as(other):
                self.requirements.append((node, dim, given[0], other))
        return joined(given)

    def _settle(self, node: fx.Node, dim: int, form: SizeForm | None) -> SizeForm | None:
        """Sizes that the forward computed by itself come from the expressions that a symbolic recording has of them.

        On real inputs such sizes were recorded as the numbers that they were.
        """
        origin = self._layout.axes[node][dim]
        assert isinstance(origin, Origin)
        maps = [s[1] for r in self._layout.steps[node].reads for s in (r.dims[dim],) if isinstance(s, tuple)]
        expressions = node.meta.get("expressions")
        if expressions is None:
            form = None if self._may_be_computed(node, maps) else form
        elif any(m.growth is None for m in maps) or any(
            n.target is evaluate_size for n in _all_inputs(node, self._layout)
        ):
            expression = expressions[dim]
            name = size_name(origin.input, origin.dim)
            form = None if expression is None else of_expression(expression, name)
        recorded = shape_of(self._layout.inputs[origin.input])[origin.dim]
        return form if form is not None and form.at(recorded) == shape_of(node)[dim] else None

    def _may_be_computed(self, node: fx.Node, maps: Sequence[AxisMap]) -> bool:
        """Whether numbers of a call that was recorded on real inputs may stand for sizes.

        The windows of convolutions do not, nor does what a layer of torch was built with; but the output padding of
        transposed ones follows from a size to reach.
        """
        step = self._layout.steps[node]
        if step.kind == "transposed-conv":
            return True
        if step.kind == "conv":
            return any(_is_functional_pad(before) for before in _all_inputs(node, self._layout))
        return _owner_kind(node) is None and (step.name in _SIZED or any(map(_has_numbers, maps)))


_SIZED = ("view", "reshape", "unflatten", "expand", "repeat", "repeat_interleave", "as_strided", "unfold")
"""Calls that are given sizes or counts."""


def _through(axis: AxisMap, form: SizeForm, n: int) -> SizeForm | None:
    return mapped(axis, form)


def _all_inputs(node: fx.Node, layout: Layout) -> Iterator[fx.Node]:
    """The arguments of a call, with those of pads folded into it and of the call that it is a part of the result of."""
    read = {r.node for r in layout.steps[node].reads}
    left = [node]
    while left:
        found = [before for before in left.pop().all_input_nodes if before not in read]
        left += [before for before in found if before.target is not evaluate_size]
        yield from found


def _owner_kind(node: fx.Node) -> str | None:
    return node.meta["at"].owner_kind if "at" in node.meta else None


def _is_functional_pad(node: fx.Node) -> bool:
    return "at" in node.meta and node.meta["at"].family == "pad" and _owner_kind(node) is None


def _has_numbers(axis: AxisMap) -> bool:
    """Whether a map holds sizes, positions or windows; factors and steps are none."""
    if isinstance(axis, Pick):
        return axis.start is not None or axis.stop is not None
    if isinstance(axis, Cut):
        return axis.width is not None
    fixed = axis.growth is None or axis.growth[1] == 0
    return isinstance(axis, (Slide, Spread)) or (fixed and not isinstance(axis, Whole))
