"""Sizes that a call fixes: a layer that reads so many features, a parameter that is added to so many positions.

They are found in symbolic recordings, which know every size as an expression of the inputs' sizes, that of flattened
dimensions too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from math import prod
from typing import Any

import torch.fx as fx

from padrewrite.analyses.layout import Layout, Origin
from padrewrite.analyses.size_forms import SizeForm, of_expression
from padrewrite.ops.following import name_of, read_step
from padrewrite.ops.sizes import size_name
from padrewrite.ops.step import Called, Step, numbers, shape_of

_RESHAPES = ("view", "reshape", "flatten")
_JOINING = ("add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div", "truediv", "where", "maximum")


class Extents:
    """The size of every dimension as an expression of the inputs' sizes; a number where it depends on none.

    torch writes what is flattened from dimensions of size 1 as a number, though at other sizes it is another.
    """

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self._own: dict[tuple[fx.Node, int], Any] = {}
        for node in nodes:
            if node.op == "call_function" and "shape" in node.meta:
                self._note(node)

    def of(self, node: fx.Node, dim: int) -> Any:
        found = self._own.get((node, dim))
        if found is None:
            found = node.meta.get("expressions", {dim: None})[dim]
        return shape_of(node)[dim] if found is None else found

    def product(self, node: fx.Node, dims: Sequence[int]) -> Any:
        return prod(self.of(node, d) for d in dims)

    def _note(self, node: fx.Node) -> None:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or "shape" not in source.meta:
            return
        for d in range(len(shape_of(node))):
            wanted = self._carried(node, source, d)
            if not _is_number(wanted) and _is_number(self.of(node, d)):
                self._own[node, d] = wanted

    def _carried(self, node: fx.Node, source: fx.Node, dim: int) -> Any:
        """The size by the operand's: that of flattened dimensions, or of the dimension that is passed on."""
        first = _first_merged(node, source)
        if first is not None:
            return self.product(source, range(first, len(shape_of(source)))) if dim == first else shape_of(node)[dim]
        if not any(before is source for before, _ in self._own):
            return shape_of(node)[dim]
        return next((self.of(source, d) for d in _passed_on(read_step(node), source, dim)), shape_of(node)[dim])


def _passed_on(step: Step, source: fx.Node, dim: int) -> Iterator[int]:
    for read in step.reads:
        origin = read.dims[dim] if dim < len(read.dims) else None
        if read.node is source and isinstance(origin, tuple) and type(origin[1]).__name__ == "Same":
            yield origin[0]


def _asked(node: fx.Node) -> tuple[Any, ...]:
    """The sizes that a view is given; those that the forward computed are nodes."""
    rest = node.args[1:]
    return tuple(rest[0]) if len(rest) == 1 and isinstance(rest[0], (tuple, list)) else rest


def _first_merged(node: fx.Node, source: fx.Node) -> int | None:
    """The dimension from which on a reshape makes one of all; None if it does something else."""
    name, rank = name_of(node.target), len(shape_of(source))
    if name == "flatten":
        call = Called(node, name)
        first, last = call.dim(1, "start_dim", rank, 0), call.dim(2, "end_dim", rank, -1)
        return first if last == rank - 1 else None
    asked = _asked(node) if name in _RESHAPES else ()
    first = len(asked) - 1
    inferred = bool(asked) and isinstance(asked[-1], int) and asked[-1] == -1
    return first if inferred and shape_of(source)[:first] == shape_of(node)[:first] else None


def _is_number(extent: Any) -> bool:
    return isinstance(extent, int) or not extent.free_symbols


def fixed_sizes(layout: Layout) -> Iterator[tuple[fx.Node, Origin, SizeForm, int]]:
    """(call, input dimension, form, number): what it reads is of this size, and must have the number to run.

    The other input dimensions are as they were recorded.
    """
    calls = list(layout.steps)
    extents = Extents(calls)
    constant = _constants(calls[0].graph) if calls else set[fx.Node]()
    names = {size_name(i, d): Origin(i, d) for i, x in enumerate(layout.inputs) for d in range(len(shape_of(x)))}
    for node in calls:
        for extent, wanted in _demands(node, extents, constant):
            for symbol in () if _is_number(extent) else sorted(extent.free_symbols, key=str):
                axis = names[str(symbol)]
                form = _along(axis, symbol, extent, names, layout)
                if form is not None and form.slope:
                    yield node, axis, form, wanted


def _along(axis: Origin, symbol: Any, extent: Any, names: dict[str, Origin], layout: Layout) -> SizeForm | None:
    """The extent as a function of one size alone."""
    places = {other: names[str(other)] for other in extent.free_symbols if other != symbol}
    recorded = {other: shape_of(layout.inputs[place.input])[place.dim] for other, place in places.items()}
    return of_expression(extent.xreplace(recorded), str(symbol))


def _demands(node: fx.Node, extents: Extents, constant: Set[fx.Node]) -> Iterator[tuple[Any, int]]:
    """(extent, number): what a call reads has this size, and must have this one.

    The number is that of a constant or one that the forward wrote: what follows the input fits it at other sizes, too.
    """
    call = Called(node, name_of(node.target))
    if call.name == "linear":
        x, weight = call.get(0, "input"), call.get(1, "weight")
        if weight in constant:
            yield extents.of(x, len(shape_of(x)) - 1), shape_of(weight)[-1]
    elif call.name == "batch_norm":
        per_channel = [call.get(i, name) for i, name in enumerate(_PER_CHANNEL, 1)]
        for n in [n for n in per_channel if n in constant][:1]:
            yield extents.of(call.get(0, "input"), 1), shape_of(n)[0]
    elif call.name == "layer_norm":
        yield from _normalized(call, extents, constant)
    elif call.name in _RESHAPES and call.name != "flatten":
        yield from _reshaped(node, call.x, extents)
    elif call.name in _JOINING:
        yield from _joined(node, extents, constant)


_PER_CHANNEL = ("running_mean", "running_var", "weight", "bias")


def _normalized(call: Called, extents: Extents, constant: Set[fx.Node]) -> Iterator[tuple[Any, int]]:
    """A layer norm's last dimensions, where they are written as numbers or a weight has them."""
    x, node = call.get(0, "input"), call.node
    written: Any = node.args[1] if len(node.args) > 1 else node.kwargs["normalized_shape"]
    weighted = any(call.get(i, name) in constant for i, name in enumerate(("weight", "bias"), 2))
    for d in range(-len(written), 0):
        if weighted or isinstance(written[d], int):
            yield extents.of(x, len(shape_of(x)) + d), numbers(written[d])


def _reshaped(node: fx.Node, source: fx.Node, extents: Extents) -> Iterator[tuple[Any, int]]:
    """A view of so many numbers, or of so many per sample."""
    asked, given = _asked(node), shape_of(source)
    first = 1 if infers_samples(node) and given[0] == shape_of(node)[0] else 0
    if asked and all(isinstance(n, int) and n > 0 for n in asked[first:]):
        yield extents.product(source, range(first, len(given))), prod(shape_of(node)[first:])


def infers_samples(node: fx.Node) -> bool:
    """Whether a call is a view with so many numbers per sample, ``view(-1, 256)``, which of more makes more samples."""
    return name_of(node.target) in _RESHAPES and _asked(node)[:1] == (-1,)


def _joined(node: fx.Node, extents: Extents, constant: Set[fx.Node]) -> Iterator[tuple[Any, int]]:
    """Parameters and constants are of one size, and what they are joined to must have it, too."""
    operands = [n for n in node.all_input_nodes if "shape" in n.meta]
    fixed = [n for n in operands if n in constant]
    for d in range(1, len(shape_of(node)) + 1):
        sizes = {shape_of(n)[-d] for n in fixed if len(shape_of(n)) >= d} - {1}
        for x in operands:
            if x not in constant and sizes and len(shape_of(x)) >= d and shape_of(x)[-d] > 1:
                yield extents.of(x, len(shape_of(x)) - d), max(sizes)


def _constants(nodes: fx.Graph) -> set[fx.Node]:
    """Parameters, buffers and constants, and what is computed of them alone."""
    found: set[fx.Node] = set()
    for node in nodes.nodes:
        made_of = node.all_input_nodes
        if node.op == "get_attr" or (made_of and node.op == "call_function" and found.issuperset(made_of)):
            found.add(node)
    return found
