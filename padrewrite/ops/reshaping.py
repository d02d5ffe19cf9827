"""Calls that move, merge, split, cut or reduce dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch.fx as fx

from padrewrite.ops.axis import Cut, Pick, Repeat, Roll, Same, Shift, Stretch, Whole
from padrewrite.ops.step import Called, Read, Reader, Regroup, Source, Step, at_one, barrier, same, shape_of, tensors


def _one(call: Called, dims: Sequence[Source], kind: str = "reshape") -> Step:
    return Step(kind, call.name, (Read(call.x, tuple(dims)),))


def _reshape(call: Called) -> Step:
    given, wanted = shape_of(call.x), call.shape
    dims: list[Source] = [None] * len(wanted)
    for left, right in _groups(given, wanted):
        if len(left) == len(right) == 1:
            dims[right[0]] = (left[0], Same())
            continue
        reason = f"{call.name} regroups dimensions {list(left)} of {given} into {wanted}"
        for d in right:
            repeat = wanted[d] // given[left[0]] if len(right) == 1 else None
            dims[d] = Regroup(left, repeat, reason)
    return _one(call, dims)


def _groups(given: Sequence[int], wanted: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The smallest runs of dimensions with equal products, sizes of 1 left out."""
    i = j = 0
    while True:
        while i < len(given) and given[i] == 1:
            i += 1
        while j < len(wanted) and wanted[j] == 1:
            j += 1
        if i >= len(given) or j >= len(wanted):
            return
        left, right = [i], [j]
        a, b, i, j = given[i], wanted[j], i + 1, j + 1
        while a != b:
            if a < b:
                left, a, i = [*left, i], a * given[i], i + 1
            else:
                right, b, j = [*right, j], b * wanted[j], j + 1
        yield tuple(d for d in left if given[d] > 1), tuple(d for d in right if wanted[d] > 1)


def _permute(call: Called) -> Step:
    rank = len(shape_of(call.x))
    order = [int(d) % rank for d in call.varargs(1, "dims")]
    return _one(call, [(d, Same()) for d in order])


def _transpose(call: Called) -> Step:
    rank = len(shape_of(call.x))
    a, b = call.dim(1, "dim0", rank, 0), call.dim(2, "dim1", rank, 1)
    if call.name == "t":
        a, b = (0, 1) if rank > 1 else (0, 0)
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return _one(call, [(d, Same()) for d in order])


def _movedim(call: Called) -> Step:
    rank = len(shape_of(call.x))
    source, target = call.get(1, "source"), call.get(2, "destination")
    sources = [int(d) % rank for d in (source if isinstance(source, (tuple, list)) else [source])]
    targets = [int(d) % rank for d in (target if isinstance(target, (tuple, list)) else [target])]
    places = dict(zip(targets, sources))
    rest = iter(d for d in range(rank) if d not in sources)
    return _one(call, [(places[d] if d in places else next(rest), Same()) for d in range(rank)])


def _attribute(call: Called) -> Step:
    name, rank = call.get(1, "name"), len(shape_of(call.x))
    if name == "T":
        return _one(call, [(d, Same()) for d in reversed(range(rank))])
    if name in ("mT", "mH"):
        order = [*range(rank - 2), rank - 1, rank - 2]
        return _one(call, [(d, Same()) for d in order])
    if name in ("data", "real", "imag", "grad"):
        return _one(call, same(call.x))
    return barrier(call, f"the attribute {name} is not known")


def _unsqueeze(call: Called) -> Step:
    at = call.dim(1, "dim", len(call.shape))
    dims = list(same(call.x))
    dims.insert(at, None)
    return _one(call, dims)


def _squeeze(call: Called) -> Step:
    given = shape_of(call.x)
    dim = call.get(1, "dim")
    chosen = [dim] if isinstance(dim, int) else list(dim) if dim is not None else range(len(given))
    gone = {int(d) % len(given) for d in chosen if given[int(d)] == 1}
    return _one(call, [(d, Same()) for d in range(len(given)) if d not in gone])


def _expand(call: Called) -> Step:
    given, wanted = shape_of(call.x), call.shape
    skip = len(wanted) - len(given)
    return _one(
        call,
        [
            None if d < skip else (d - skip, Same() if given[d - skip] == n else Stretch(n))
            for d, n in enumerate(wanted)
        ],
    )


def _reduce(call: Called) -> Step:
    """mean, sum, max, ...: reduced dimensions are read as a whole."""
    given, wanted = shape_of(call.x), call.shape
    dim = call.get(2 if call.name in _ORDERED else 1, "dim", call.node.kwargs.get("axis"))
    if dim is None and call.name in ("mode", "kthvalue"):
        dim = -1
    if dim is None or isinstance(dim, bool) or dim == () or dim == []:  # std(x, False): that is no dimension
        dim = range(len(given))
    gone = {int(d) % max(1, len(given)) for d in ([dim] if isinstance(dim, int) else dim)}
    keep = len(given) == len(wanted)
    dims: list[Source] = []
    for d in range(len(given)):
        if d in gone:
            dims += [(d, Whole())] if keep else []
        else:
            dims.append((d, Same()))
    return _one(call, dims, "pool")


def _order(call: Called) -> Step:
    """sort, topk: along one dimension a result may come from any position."""
    dims = list(same(call.x))
    d = 0 if call.name == "msort" else call.dim(2 if call.name == "topk" else 1, "dim", len(dims), -1)
    dims[d] = Regroup((d,), None, f"{call.name} orders dimension {d}")
    return _one(call, dims)


def _index(call: Called) -> Step:
    """``x[...]`` by slices, integers, None and Ellipsis."""
    index = call.get(1, "index")
    parts: list[Any] = list(index) if isinstance(index, tuple) else [index]
    given = shape_of(call.x)
    if any(isinstance(p, (fx.Node, list)) for p in parts):
        return barrier(call, "it is indexed by a tensor or a list")
    if any(isinstance(p, slice) and (p.step or 1) < 1 for p in parts) or any(isinstance(p, bool) for p in parts):
        return barrier(call, "it is indexed by a mask")
    used = sum(p is not None and p is not Ellipsis for p in parts)
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    dims: list[Source] = []
    at: list[tuple[int, int]] = []
    d = 0
    cut = False
    for part in parts:
        if part is Ellipsis:
            dims += [(d + k, Same()) for k in range(len(given) - used)]
            d += len(given) - used
        elif part is None:
            dims.append(None)
        elif isinstance(part, slice):
            # What is all of this size need not be all of another one.
            everything = part.start in (None, 0) and part.stop is None and part.step in (None, 1)
            dims.append((d, Same() if everything else Pick(part.start, part.stop, part.step or 1)))
            cut, d = cut or range(*part.indices(given[d])) != range(given[d]), d + 1
        else:
            at.append((d, int(part) % max(1, given[d])))
            d += 1
    cut = cut or any(given[d] > 1 for d, _ in at)
    return Step("crop" if cut else "reshape", call.name, (Read(call.x, tuple(dims), at=tuple(at)),))


def _narrow(call: Called) -> Step:
    given = shape_of(call.x)
    dim, start, length = call.dim(1, "dim", len(given)), int(call.get(2, "start")), int(call.get(3, "length"))
    start %= max(1, given[dim])
    dims = list(same(call.x))
    dims[dim] = (dim, Pick(start, start + length))
    return _one(call, dims, "crop")


def _select(call: Called) -> Step:
    return at_one(call, call.dim(1, "dim", len(shape_of(call.x))), int(call.get(2, "index")))


def _flip(call: Called) -> Step:
    dims = list(same(call.x))
    for d in call.varargs(1, "dims"):
        dims[d] = Regroup((int(d) % len(dims),), None, f"flip reverses dimension {d}")
    return _one(call, dims)


def _roll(call: Called) -> Step:
    shifts, chosen = call.get(1, "shifts"), call.get(2, "dims")
    if chosen is None:
        return barrier(call, "roll of the flattened tensor")
    rank = len(shape_of(call.x))
    pairs = zip(shifts, chosen) if isinstance(shifts, (tuple, list)) else [(shifts, chosen)]
    dims = list(same(call.x))
    for by, d in pairs:
        d = (d[0] if isinstance(d, (tuple, list)) else d) % rank
        dims[d] = (d, Roll(int(by)))
    return _one(call, dims, "crop")


def _repeat(call: Called) -> Step:
    given, wanted = shape_of(call.x), call.shape
    skip = len(wanted) - len(given)
    dims: list[Source] = [None] * skip
    for d, n in enumerate(given):
        if n == wanted[d + skip]:
            dims.append((d, Same()))
        else:
            dims.append(
                (d, Stretch(wanted[d + skip])) if n == 1 else Regroup((d,), None, f"{call.name} tiles dimension {d}")
            )
    return _one(call, dims)


def _repeat_interleave(call: Called) -> Step:
    times, dim = call.get(1, "repeats"), call.get(2, "dim")
    if not isinstance(times, int) or dim is None:
        return barrier(call, "repeat_interleave by a tensor or of the flattened tensor")
    dims = list(same(call.x))
    d = dim % len(dims)
    dims[d] = (d, Repeat(times))
    return _one(call, dims, "shuffle")


def _cat(call: Called) -> Step:
    rank = len(call.shape)
    dim = call.dim(1, "dim", rank, 0)
    reads: list[Read] = []
    offset = 0
    parts: Any = call.node.args[0] if call.node.args else call.node.kwargs.get("tensors", ())
    for part in parts:
        if not isinstance(part, fx.Node) or len(shape_of(part)) != rank:
            continue
        dims = list(same(part))
        dims[dim] = (dim, Shift(offset, call.shape[dim]))
        offset += shape_of(part)[dim]
        if part.op != "get_attr":
            reads.append(Read(part, tuple(dims)))
    return Step("merge" if len(reads) > 1 else "pointwise", call.name, tuple(reads))


def _stack(call: Called) -> Step:
    at = call.dim(1, "dim", len(call.shape), 0)
    reads: list[Read] = []
    for part in tensors(call.node):
        dims = list(same(part))
        dims.insert(at, None)
        reads.append(Read(part, tuple(dims)))
    return Step("merge" if len(reads) > 1 else "reshape", call.name, tuple(reads))


def part_of(call: Called, index: int) -> Step | None:
    """Part ``index`` of a call that returns several tensors (chunk, split, unbind); ``call`` is that call."""
    given = shape_of(call.x)
    if call.name == "unbind":
        return at_one(call, call.dim(1, "dim", len(given), 0), index)
    if call.name == "tensor_split":
        return Step("barrier", call.name, (Read(call.x, (None,) * len(given)),), "tensor_split")
    if call.name not in ("chunk", "split", "split_with_sizes", "unsafe_chunk", "unsafe_split"):
        return None
    dim = call.dim(2, "dim", len(given), 0)
    amount = next(a for a in (call.get(1, name) for name in _AMOUNTS) if a is not None)
    dims = list(same(call.x))
    if isinstance(amount, (tuple, list)):
        dims[dim] = (dim, Pick(sum(amount[:index]), sum(amount[: index + 1])))
    else:
        piece = Cut(index, int(amount)) if call.name.endswith("chunk") else Cut(index, width=int(amount))
        dims[dim] = (dim, piece)
    return Step("crop", call.name, (Read(call.x, tuple(dims)),))


_AMOUNTS = ("chunks", "split_size_or_sections", "split_size", "split_sizes")


_ORDERED = ("norm", "linalg_vector_norm", "kthvalue")
"""Reductions whose first number is an order."""
_REDUCTIONS = ("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "logsumexp", "prod", "any", "all")
_STATISTICS = ("median", "nanmedian", "mode", "kthvalue", "var_mean", "std_mean", "aminmax")
_ORDERS = ("sort", "argsort", "msort", "topk")
PAIRS = ("max", "min", *_STATISTICS, *_ORDERS)
"""Calls that can return two tensors of the same positions."""

READERS: dict[str, Reader] = {
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as"), _reshape),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "t"), _transpose),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    "getattr": _attribute,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys((*_REDUCTIONS, "nanmean", "linalg_vector_norm", "argmax", "argmin"), _reduce),
    **dict.fromkeys(_STATISTICS, _reduce),
    **dict.fromkeys(_ORDERS, _order),
    "getitem": _index,
    "narrow": _narrow,
    "select": _select,
    "flip": _flip,
    "roll": _roll,
    **dict.fromkeys(("repeat", "tile"), _repeat),
    "repeat_interleave": _repeat_interleave,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
}
