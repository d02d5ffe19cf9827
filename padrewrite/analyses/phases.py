"""Phase: where the positions of every tensor sit on the input, as exact fractions; and merges that disagree.

Position ``i`` of a tensor is centred on input coordinate ``scale*i + offset``. Along a path the maps compose:
``offset = offset_a + scale_a*offset_b``, ``scale = scale_a*scale_b``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch.fx as fx

from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import Layout
from padrewrite.analyses.polyphase import is_space_to_depth
from padrewrite.ops.axis import AxisMap, Phase, Slide, Spread


@dataclass(frozen=True)
class AxisPhase:
    """The phase of one dimension along its deepest path, and how far the other paths stray from it."""

    scale: Fraction
    """Input pixels per position."""
    offset: Fraction
    """Input coordinate of position 0, in input pixels."""
    low: Fraction
    high: Fraction
    """Smallest and largest offset over all paths of this scale."""
    scales: tuple[Fraction, ...] = ()
    """Other scales that merged paths have."""
    depth: int = 0
    """Windows along the deepest path."""

    @property
    def centred(self) -> Fraction:
        """The offset less that of a grid of this scale whose cells tile the input: 0 where nothing is shifted."""
        return self.offset - (self.scale - 1) / 2


@dataclass(frozen=True)
class Misalignment:
    """A merge whose operands do not sit on the same coordinates."""

    node: fx.Node
    dim: int
    phases: tuple[Phase, ...]
    """(scale, offset) per operand that has one, in operand order."""

    @property
    def apart(self) -> Fraction | None:
        """Distance of the offsets in input pixels; None if the scales differ too."""
        offsets = [offset for _, offset in self.phases]
        return max(offsets) - min(offsets) if len({scale for scale, _ in self.phases}) == 1 else None


class Phases:
    """Phases of all tensors of a layout."""

    def __init__(self, layout: Layout) -> None:
        self.misaligned: list[Misalignment] = []
        self.ends: dict[tuple[fx.Node, int], fx.Node] = {}
        """Dimensions without a phase, and the call that ended it: all its positions read one place."""
        self._layout = layout
        self._fold = AxisFold[AxisPhase](layout, _start, _through, self._join, self._settle)

    def of(self, node: fx.Node, dim: int) -> AxisPhase | None:
        """The phase of a dimension; None if its positions all read one place. Branches without one take no part."""
        return self._fold.of(node, dim)

    def _settle(self, node: fx.Node, dim: int, value: AxisPhase | None) -> AxisPhase | None:
        if value is None:
            sources = ((read.node, read.dims[dim]) for read in self._layout.steps[node].reads)
            before = ((given, source[0]) for given, source in sources if isinstance(source, tuple))
            self.ends[node, dim] = next((self.ends[place] for place in before if place in self.ends), node)
        return value

    def _join(self, node: fx.Node, dim: int, given: Sequence[AxisPhase]) -> AxisPhase:
        main = max(given, key=lambda p: p.depth)
        if is_space_to_depth(node, self._layout):
            return _middle(given)
        if len({(p.scale, p.offset) for p in given}) > 1:
            self.misaligned.append(Misalignment(node, dim, tuple((p.scale, p.offset) for p in given)))
        alike = [p for p in given if p.scale == main.scale]
        scales = {s for p in given for s in (p.scale, *p.scales)} - {main.scale}
        low, high = min(p.low for p in alike), max(p.high for p in alike)
        return replace(main, low=low, high=high, scales=tuple(sorted(scales)))


def _middle(given: Sequence[AxisPhase]) -> AxisPhase:
    """The middle of a patch whose positions are put beside each other, as of a window that reads it."""
    first = min(given, key=lambda p: p.offset)
    moved = sum((p.offset for p in given), Fraction(0)) / len(given) - first.offset
    low, high = first.low + moved, first.high + moved
    return replace(first, offset=first.offset + moved, low=low, high=high, depth=first.depth + 1)


def _start(n: int) -> AxisPhase:
    zero = Fraction(0)
    return AxisPhase(Fraction(1), zero, zero, zero)


def _through(axis: AxisMap, value: AxisPhase, n: int) -> AxisPhase | None:
    phase = axis.phase(n)
    if phase is None:
        return None
    scale, moved = value.scale * phase[0], value.scale * phase[1]
    window = isinstance(axis, (Slide, Spread)) and axis.kernel > 1
    scales = tuple(sorted({s * phase[0] for s in value.scales}))
    return AxisPhase(scale, value.offset + moved, value.low + moved, value.high + moved, scales, value.depth + window)
