"""A graph in normal form: one row a call, so that two graphs are isomorphic exactly if their rows are equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.fx as fx
from torch.fx.node import map_arg

from padrewrite.ops.pad import read_pad
from padrewrite.ops.reading import ConvNode
from padrewrite.ops.sizes import evaluate_size


def rows_of(nodes: fx.Graph, convs: Mapping[str, ConvNode]) -> Iterator[tuple[Any, ...]]:
    by_node = {conv.node: (site_id, conv) for site_id, conv in convs.items()}
    hidden = _hidden_pads(nodes, convs)
    index: dict[fx.Node, int] = {}

    def operand(value: Any) -> Any:
        if not isinstance(value, fx.Node):
            return value
        if value.target is evaluate_size:
            return ("size", value.args[0])
        if value.op == "get_attr":
            return ("parameter", value.target)
        return ("row", index[value]) if value in index else ("input", value.target)

    for node in nodes.nodes:
        if node.op in ("placeholder", "get_attr") or node.target is evaluate_size:
            continue
        if node in hidden:
            continue
        fqn = node.meta["at"].owner.fqn if "at" in node.meta else node.meta.get("fqn", "")
        if node in by_node:
            site_id, conv = by_node[node]
            operands = tuple(operand(v) for v in (conv.x, conv.call.weight, conv.call.bias))
            row = ("conv", (site_id, conv.op), fqn, operands)
        else:
            name = "output" if node.op == "output" else _name(node.target)
            args = map_arg((node.args, dict(node.kwargs)), operand)
            row = (node.op, name, fqn, _plain(args))
        index[node] = len(index)
        yield row


def _name(target: Any) -> str:
    """The function's name; an operator and the method behind it are one thing."""
    name = getattr(target, "__name__", str(target))
    return name[2:-2] if name.startswith("__") and name.endswith("__") else name


def _hidden_pads(nodes: fx.Graph, convs: Mapping[str, ConvNode]) -> set[fx.Node]:
    """Pads without a row of their own: folded into every convolution that reads them, or read by nothing."""
    folding: dict[fx.Node, set[fx.Node]] = {}
    for conv in convs.values():
        for pad in conv.pads:
            folding.setdefault(pad, set()).add(conv.node)
    hidden: set[fx.Node] = set()
    for node in reversed(nodes.nodes):
        if node.op == "call_function" and read_pad(node.target, node.args, dict(node.kwargs)) is not None:
            folded_by = folding.get(node, set())
            if all(user in folded_by or user in hidden for user in node.users):
                hidden.add(node)
    return hidden


def _plain(value: Any) -> Any:
    """Operands as values whose repr is the same in every process."""
    if callable(value) and not isinstance(value, type):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return tuple((k, _plain(v)) for k, v in sorted(value.items()))  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return value


def without_numbers(row: Any) -> Any:
    """A row without the fractional numbers in it, which may have been read from tensors."""
    if isinstance(row, tuple):
        return tuple(without_numbers(part) for part in row)  # pyright: ignore[reportUnknownVariableType]
    return "number" if isinstance(row, float) else row


def without_sizes(row: Any) -> Any:
    """A row without the sizes that its call was given; convolutions keep theirs, they are the op's own numbers."""
    if isinstance(row, tuple) and row and row[0] == "conv":
        return row
    return _masked(row)


def _masked(part: Any) -> Any:
    if isinstance(part, tuple):
        if len(part) == 2 and part[0] == "size":
            return "size"
        if len(part) == 2 and part[0] == "row":
            return part
        return tuple(_masked(p) for p in part)
    return "size" if isinstance(part, int) and not isinstance(part, bool) else part


def rows_into_convolutions(rows: Sequence[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    """The convolutions and what they read, directly or not, as rows of their own normal form."""
    needed: set[int] = set()
    for index in reversed(range(len(rows))):
        if rows[index][0] == "conv" or index in needed:
            needed.update((index, *row_references(rows[index][3])))
    number = {index: i for i, index in enumerate(sorted(needed))}

    def renumbered(part: Any) -> Any:
        if not isinstance(part, tuple):
            return part
        if _is_reference(part):
            return ("row", number[part[1]])
        return tuple(renumbered(p) for p in part)  # pyright: ignore[reportUnknownVariableType]

    return tuple((*rows[index][:3], renumbered(rows[index][3])) for index in sorted(needed))


def row_references(operands: Any) -> Iterator[int]:
    if isinstance(operands, tuple):
        if _is_reference(operands):  # pyright: ignore[reportUnknownArgumentType]
            yield operands[1]
        else:
            for part in operands:  # pyright: ignore[reportUnknownVariableType]
                yield from row_references(part)


def _is_reference(part: tuple[Any, ...]) -> bool:
    return len(part) == 2 and part[0] == "row" and isinstance(part[1], int)
