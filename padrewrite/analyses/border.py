"""What the border does to values: how much signal zeros take away, and how far made-up values spread inwards.

Mean field ([C2sp] Eq. 7): with independent zero-mean weights of the usual scale, the second moment ``v`` of an output
is the mean of ``v`` over its window, a padding zero counting as 0; partial padding rescales by the real taps. Away from
the border v stays 1. The signal at a position is ``sqrt(v)``; Q, the information left, is its mean over the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod

import torch
import torch.fx as fx
from torch import Tensor

from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import Layout
from padrewrite.ops.axis import AxisMap, Same, Slide, Spread, Straddle, Whole
from padrewrite.ops.step import Read, Source, shape_of


@dataclass(frozen=True)
class Border:
    """The mean-field signal ``sqrt(v)`` of a tensor, relative to an input of 1 everywhere."""

    q: float
    """Its mean over the map: the information left (erosion)."""
    corner: float
    edge: float
    centre: float


class Borders:
    """The mean-field moments of all tensors, each map freed after its last use."""

    def __init__(self, layout: Layout, keep: Sequence[fx.Node], partial: str | None = None) -> None:
        """
        Args:
            keep: tensors that will be asked for.
            partial: pretend that zero padding is partial padding of this scale ("mean" or "sqrt").
        """
        self._layout, self._partial = layout, partial
        self._kept: dict[fx.Node, Border] = {}
        last = {read.node: node for node, step in layout.steps.items() for read in step.reads}
        alive: dict[fx.Node, Tensor | None] = {}
        wanted = set(keep)
        for node in layout.inputs:
            spatial = layout.spatial(node)
            sizes = [n if d in spatial else 1 for d, n in enumerate(shape_of(node))]
            alive[node] = torch.ones(sizes, dtype=torch.float64) if all(sizes) else None
        for node, step in layout.steps.items():
            moments = self._step(node, [(read, alive.get(read.node)) for read in step.reads])
            if node in wanted and moments is not None:
                self._kept[node] = _border(moments, layout.spatial(node))
            if node in last:
                alive[node] = moments
            for read in step.reads:
                if last[read.node] is node:
                    alive.pop(read.node, None)

    def of(self, node: fx.Node) -> Border | None:
        """The moments of a tensor; None if its positions are lost, or it has none."""
        return self._kept.get(node)

    def _step(self, node: fx.Node, given: Sequence[tuple[Read, Tensor | None]]) -> Tensor | None:
        rank, spatial = len(shape_of(node)), self._layout.spatial(node)
        if not all(shape_of(node)[d] for d in spatial):
            return None
        parts: list[tuple[float, Tensor]] = []
        located = {read: sum(_is_local(read.dims[d]) for d in spatial) for read, _ in given}
        for read, moments in given:
            # Gates and masks that lack an axis scale what they meet; they bring no signal of their own.
            if moments is None or located[read] < max(located.values()):
                continue
            weight = float(sum(share for share, _ in read.parts)) if read.parts else 1.0
            if self._layout.steps[node].name in ("cat", "concat", "concatenate"):
                weight = prod(shape_of(read.node))
            parts.append((weight, self._read(read, moments, rank, spatial)))
        if not parts or not spatial or self._layout.lost(node) is not None:
            return None
        total = sum(weight for weight, _ in parts)
        return torch.stack(torch.broadcast_tensors(*(m * (w / total) for w, m in parts))).sum(0)

    def _read(self, read: Read, moments: Tensor, rank: int, spatial: Sequence[int]) -> Tensor:
        if read.parts:
            total = sum(share for share, _ in read.parts)
            ways = ((float(share / total), replace(read, dims=dims, parts=())) for share, dims in read.parts)
            return torch.stack([share * self._read(one, moments, rank, spatial) for share, one in ways]).sum(0)
        shape = shape_of(read.node)
        order: list[int] = []
        for d in spatial:
            source = read.dims[d]
            if isinstance(source, tuple):
                order.append(source[0])
                moments = self._through(source[1], moments, source[0], shape[source[0]])
        rest = [d for d in range(moments.dim()) if d not in order and moments.shape[d] > 1]
        moments = moments.mean(rest, keepdim=True) if rest else moments
        placed = moments.permute(*order, *(d for d in range(moments.dim()) if d not in order))
        sizes = iter(placed.shape[: len(order)])
        wanted = [next(sizes) if d in spatial and isinstance(read.dims[d], tuple) else 1 for d in range(rank)]
        return placed.reshape(wanted)

    def _through(self, axis: AxisMap, moments: Tensor, dim: int, n: int) -> Tensor:
        if isinstance(axis, Same) or moments.shape[dim] != n:
            return moments
        index, factor = _gather(axis, n, self._partial)
        padded = torch.cat([moments, torch.zeros_like(moments.narrow(dim, 0, 1))], dim)
        taken = padded.index_select(dim, index.flatten())
        taken = taken.unflatten(dim, index.shape).sum(dim + 1)
        return taken * factor.reshape([-1 if d == dim else 1 for d in range(taken.dim())])


def _is_local(source: Source) -> bool:
    return isinstance(source, tuple) and not isinstance(source[1], Whole)


@lru_cache(maxsize=256)
def _gather(axis: AxisMap, n: int, partial: str | None) -> tuple[Tensor, Tensor]:
    """(outputs x most taps) indices of what each output reads, ``n`` for nothing, and a factor per output."""
    rows = axis.reads(n)
    if isinstance(axis, Slide) and axis.mode in ("reflect", "replicate", "circular"):
        # A pixel that is read twice counts twice.
        inside = [[axis.inside(p, n) for p in axis.taps(i, n)] for i in range(axis.size(n))]
        rows = tuple(tuple(p for p in row if p is not None) for row in inside)
    most = max(1, *map(len, rows))
    index = torch.tensor([[*row, *[n] * (most - len(row))] for row in rows])
    counts = torch.tensor([float(max(1, len(row))) for row in rows], dtype=torch.float64)
    if isinstance(axis, Slide):
        kernel = axis.kernel
        if isinstance(axis, Straddle):  # channels read from both sides share one ratio
            kernel -= 1
            both = [replace(axis, side=side).reads(n) for side in (0, 1)]
            counts = torch.tensor([max(1, len(a) + len(b)) / 2 for a, b in zip(*both)], dtype=torch.float64)
        scale = {"partial": "mean", "partial-sqrt": "sqrt", "zeros": partial}.get(axis.mode)
        if scale is not None:
            return index, kernel / counts**2 if scale == "mean" else 1 / counts
        # Windows are whole, but for one that hangs over the end of the padding.
        whole = [sum(p < n + axis.hi for p in axis.taps(i, n)) for i in range(len(rows))]
        return index, 1 / (counts if axis.mode == "ignored" else torch.tensor(whole, dtype=torch.float64))
    if isinstance(axis, Spread):
        return index, torch.full_like(counts, axis.stride / axis.kernel)
    return index, 1 / counts


def _border(moments: Tensor, spatial: Sequence[int]) -> Border:
    signal = moments.sqrt()
    flat = signal.squeeze() if signal.numel() > 1 else signal.reshape(1)
    middle = tuple(n // 2 for n in flat.shape)
    corners = [flat[index] for index in product(*((0, n - 1) for n in flat.shape))]
    edges = [flat[(*middle[:a], end, *middle[a + 1 :])] for a, n in enumerate(flat.shape) for end in (0, n - 1)]
    return Border(
        float(signal.mean()),
        float(torch.stack(corners).mean()),
        float(torch.stack(edges).mean()),
        float(flat[middle]),
    )


class Clean:
    """Which positions depend on no made-up value, per axis: a position is clean if all its axes are.

    What arrives as context (global pools, gates, statistics) is left out. That is exact but for two rare things, for
    which some positions too many count as touched: maps of different borders laid side by side (concatenated along an
    axis), and positions that a transposed convolution fills with nothing (kernels smaller than the stride).
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

        def start(n: int) -> tuple[bool, ...]:
            return (True,) * n

        self._fold = AxisFold[tuple[bool, ...]](layout, start, _clean_through, _clean_join, strict=True)
        self._hidden: set[fx.Node] = set()
        for node, step in layout.steps.items():
            if any(self._hides(read, layout.spatial(node)) for read in step.reads):
                self._hidden.add(node)

    def share(self, node: fx.Node) -> float | None:
        """Share of the positions of ``node`` that saw padding; None if positions are lost or pooled away."""
        kept = [self._fold.of(node, d) for d in self._layout.spatial(node)]
        if not kept or node in self._hidden or any(axis is None for axis in kept):
            return None
        return 1 - prod(sum(axis) / len(axis) for axis in kept if axis)

    def _hides(self, read: Read, spatial: Sequence[int]) -> bool:
        """Whether made-up values enter along an axis without positions: one that is read as a whole, or was before."""
        sources = (read.dims[d] for d in spatial)
        kept = {s[0] for s in sources if isinstance(s, tuple) and not isinstance(s[1], Whole)}
        at = dict(read.at)
        for d in self._layout.spatial(read.node):
            axis = self._fold.of(read.node, d)
            seen = axis if axis is None or d not in at else (axis[at[d]],)
            if kept and d not in kept and (seen is None or not all(seen)):
                return True
        before = read.node in self._hidden or self._layout.lost(read.node) is not None
        return bool(kept) and (before or read.made_up)


def _clean_through(axis: AxisMap, value: tuple[bool, ...], n: int) -> tuple[bool, ...] | None:
    if len(value) != n:
        return None
    made_up = axis.made_up(n)
    return tuple(not made_up[i] and all(value[p] for p in row) for i, row in enumerate(axis.reads(n)))


def _clean_join(node: fx.Node, dim: int, given: Sequence[tuple[bool, ...]]) -> tuple[bool, ...]:
    return tuple(all(axis) for axis in zip(*given))
