"""A recorded call, read as what it does to positions: which operand axis each result axis comes from, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch.fx as fx

from padrewrite.ops.axis import AxisMap, Same, Stretch
from padrewrite.ops.conv import hint


@dataclass(frozen=True)
class Regroup:
    """A dimension whose positions are made of those along ``dims`` of the operand (major first), as by a reshape."""

    dims: tuple[int, ...]
    repeat: int | None
    """Size of all but the first of ``dims``: how often each position of the first is repeated. None after a split."""
    reason: str
    """Why its positions are lost, where they are."""


Source = tuple[int, AxisMap] | Regroup | None
"""The operand's dimension that a result's dimension comes from, and how; None if it comes from none."""


@dataclass(frozen=True)
class Read:
    """How a result reads one operand. Operand dimensions that no result dimension comes from are read as a whole."""

    node: fx.Node
    dims: tuple[Source, ...]
    """One per dimension of the result."""
    pooled: tuple[int, ...] = ()
    """Operand dimensions that are also read as a whole, for statistics (group norm and its kin)."""
    at: tuple[tuple[int, int], ...] = ()
    """(operand dimension, position): dimensions of which one position is read, and that are gone then."""
    parts: tuple[tuple[Fraction, tuple[Source, ...]], ...] = ()
    """Where the operand's channels are read in several ways: the share of them that are, and how, per result dimension.
    Shares of all reads of a call add up to 1."""
    made_up: bool = False
    """Windows take in made-up values along a dimension of the operand that has no positions any more."""


@dataclass(frozen=True)
class Step:
    """One call: its kind, what it reads, and why positions are lost there, if they are."""

    kind: str
    """conv, transposed-conv, pool, pad, crop, resample, shuffle, merge, norm, pointwise, reshape or barrier."""
    name: str
    """The torch function's name."""
    reads: tuple[Read, ...]
    ended: str | None = None
    """Why no position of the result is known."""
    weighted: bool = True
    """False for maxima, whose gradient reaches one input only."""
    besides: tuple[fx.Node, ...] = ()
    """Tensors without positions that are also read as a whole: weights that the forward computes."""


@dataclass(frozen=True)
class Called:
    """The arguments of one call, as its readers want them."""

    node: fx.Node
    name: str

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """The argument at ``index`` or called ``name``; sizes as the numbers that they had while recording."""
        args: Sequence[Any] = self.node.args
        value = args[index] if index < len(args) else self.node.kwargs.get(name, default)
        return numbers(value)

    @property
    def x(self) -> fx.Node:
        """The first operand."""
        return next(node for node in self.node.all_input_nodes if "shape" in node.meta)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.node.meta["shape"]

    def varargs(self, index: int, name: str) -> Any:
        """An argument that may be given as a list or as the rest of the positional arguments."""
        rest = self.node.args[index:]
        if len(rest) == 1 and isinstance(rest[0], (list, tuple)):
            return numbers(rest[0])
        return numbers(rest) if rest else numbers(self.node.kwargs.get(name, ()))

    def dim(self, index: int, name: str, rank: int, default: Any = None) -> int:
        value = self.get(index, name, default)
        return int(value) % max(1, rank)


def numbers(value: Any) -> Any:
    """``value`` with recorded sizes in place of the size nodes in it; tensor nodes stay."""
    if isinstance(value, fx.Node):
        return hint(value) if "value" in value.meta else value
    if isinstance(value, (tuple, list)):
        return type(value)(numbers(v) for v in value)
    if isinstance(value, slice):
        return slice(numbers(value.start), numbers(value.stop), numbers(value.step))
    return value


Reader = Callable[[Called], Step]


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape that a tensor had while recording."""
    return node.meta["shape"]


def same(node: fx.Node, keep: Sequence[int] | None = None) -> tuple[Source, ...]:
    """Every dimension (or those in ``keep``) read in place."""
    rank = len(shape_of(node))
    return tuple((d, Same()) if keep is None or d in keep else None for d in range(rank))


def aligned(node: fx.Node, shape: Sequence[int]) -> tuple[Source, ...]:
    """An operand broadcast to ``shape``: dimensions are matched from the last one on."""
    given = shape_of(node)
    skip = len(shape) - len(given)
    dims: list[Source] = []
    for d, n in enumerate(shape):
        mine = given[d - skip] if d >= skip else None
        dims.append(None if mine is None else (d - skip, Same() if mine == n else Stretch(n)))
    return tuple(dims)


def tensors(node: fx.Node) -> Iterator[fx.Node]:
    """The tensors that a call reads, parameters and constants left out."""
    return (n for n in node.all_input_nodes if "shape" in n.meta and n.op != "get_attr")


def at_one(call: Called, dim: int, position: int, kind: str = "crop") -> Step:
    """One position of a dimension of the first operand, without the dimension."""
    n = shape_of(call.x)[dim]
    dims = tuple(source for d, source in enumerate(same(call.x)) if d != dim)
    return Step(kind, call.name, (Read(call.x, dims, at=((dim, position % n),)),))


def others(node: fx.Node, x: Any) -> tuple[fx.Node, ...]:
    """The tensors that a call reads besides ``x``."""
    return tuple(n for n in tensors(node) if n is not x)


def elementwise(call: Called, kind: str = "pointwise") -> Step:
    """A result whose positions are those of its operands, broadcast."""
    reads = tuple(Read(node, aligned(node, call.shape)) for node in tensors(call.node))
    return Step("merge" if len(reads) > 1 else kind, call.name, reads)


def barrier(call: Called, reason: str, reader: fx.Node | None = None) -> Step:
    """A result whose positions are not known; ``reader``: the call that it is a part of, if that returns several."""
    nothing = (None,) * len(call.shape)
    return Step("barrier", call.name, tuple(Read(node, nothing) for node in tensors(reader or call.node)), reason)
