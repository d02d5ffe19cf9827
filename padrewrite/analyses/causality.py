"""Signals that look back: what tells windows that read the past on purpose from branches that are off.

Beside where positions are centred (``Phases``) four things are known of every tensor:

* ``newest``: the newest input sample that position 0 reads. Branches that look back differ in centre, but not in this.
* ``aligned``: the centre, were windows all of whose reach is padding before the signal (``lo == reach``) centred on
  their newest sample. Padding behind the signal only makes more outputs of such a window, to be cut off.
* ``ahead``: how far behind the end of the input the last position may read, for whichever size. Networks that do not
  pad but crop beginnings read nothing there.
* ``back``: whether anything looks back at all. A signal that none of its windows takes to the past is off by mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import torch.fx as fx

from padrewrite.analyses.folding import AxisFold
from padrewrite.analyses.layout import Layout
from padrewrite.graph import Site
from padrewrite.ops.axis import AxisMap, Cut, Phase, Pick, Roll, Same, Shift, Slide, Spread, Straddle
from padrewrite.ops.conv import Conv
from padrewrite.ops.following import axis_of
from padrewrite.ops.step import shape_of


@dataclass(frozen=True)
class AxisLook:
    """How far positions of one dimension look: in input samples, of position 0 where nothing else is said."""

    scale: Fraction
    """Input samples per position."""
    aligned: Fraction
    newest: Fraction
    ahead: Fraction
    coarsest: Fraction
    """The largest scale before."""
    depth: int = 0
    """Windows along the deepest path: that to which ``aligned`` belongs."""
    apart: bool = False
    """Paths were joined whose newest samples differ; ``newest`` is the newest of all."""
    back: bool = False
    """Some window reads what is before its block and nothing behind it, or a beginning was cropped."""


class Causality:
    """Which merges and outputs of a layout are where they are because windows look back."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._agreeing: set[tuple[fx.Node, int]] = set()
        self._fold = AxisFold[AxisLook](layout, _start, _through, self._join)

    def agree(self, node: fx.Node, dim: int) -> bool:
        """Whether a merge's operands are apart by causal windows alone.

        The newest samples that they read are the same, something on their way looks back, and either their centres
        differ by causal windows only, or they read nothing behind the end of the signal.
        """
        return self._layout.spatial(node) == (dim,) and (node, dim) in self._agreeing

    def on_time(self, node: fx.Node, dim: int) -> bool:
        """Whether a signal as long as the input is shifted by causal windows alone.

        It is if it is aligned, or if it is neither late nor early as a whole: it ends with the input, and no position
        reads behind the block of the coarsest stride in which it lies. Without a window that looks back it is neither.
        """
        look = self._fold.of(node, dim)
        if look is None or not look.back or look.scale != 1 or self._layout.spatial(node) != (dim,):
            return False
        return look.aligned == 0 or (not look.apart and look.ahead == 0 and 0 <= look.newest < look.coarsest)

    def is_chomped(self, site: Site) -> bool:
        """Whether a signal's convolution is padded at both ends, and what looks ahead by that is cut off behind it."""
        op, node = site.op, self._layout.sites[site.id]
        if not isinstance(op, Conv) or op.window.rank > 1 or not looks_back(axis_of(op, 0)):
            return False
        dim = len(shape_of(node)) - 1
        kept = list(self._kept(node, dim))
        return bool(kept) and max(kept) <= shape_of(node)[dim] - op.window.hi[0]

    def _kept(self, node: fx.Node, dim: int) -> Iterator[int]:
        """How many positions each reader behind a tensor reads from the first on; what leaves them in place is none."""
        n = shape_of(node)[dim]
        if node in self._layout.outputs:
            yield n
        for user in self._used.intersection(self._layout.users.get(node, ())):
            reads = self._layout.steps[user].reads
            for read in (read for read in reads if read.node is node):
                if len(reads) == 1 and read.dims[dim] == (dim, Same()):
                    yield from self._kept(user, dim)
                else:
                    yield min((_stop(s[1], n) for s in read.dims if isinstance(s, tuple) and s[0] == dim), default=n)

    @cached_property
    def _used(self) -> set[fx.Node]:
        return self._layout.before(self._layout.outputs)

    def _join(self, node: fx.Node, dim: int, given: Sequence[AxisLook]) -> AxisLook:
        aligned = len({(look.scale, look.aligned) for look in given}) == 1
        newest, ahead = max(look.newest for look in given), max(look.ahead for look in given)
        together = len({(look.scale, look.newest) for look in given}) == 1
        back = any(look.back for look in given)
        if together and back and (aligned or ahead <= 0):
            self._agreeing.add((node, dim))
        main = max(given, key=lambda look: look.depth)
        apart = not together or any(look.apart for look in given)
        coarsest = max(look.coarsest for look in given)
        return replace(main, newest=newest, ahead=ahead, coarsest=coarsest, apart=apart, back=back)


def _start(n: int) -> AxisLook:
    zero = Fraction(0)
    return AxisLook(Fraction(1), zero, zero, zero, Fraction(1))


def _through(axis: AxisMap, value: AxisLook, n: int) -> AxisLook | None:
    phase = axis.phase(n)
    if phase is None:
        return None
    scale, newest = value.scale * phase[0], _newest(axis, phase, n)
    aligned = newest if looks_back(axis) else phase[1]
    ahead = value.ahead + value.scale * _ahead(axis, phase, n)
    newest = value.newest + value.scale * newest
    aligned, coarsest = value.aligned + value.scale * aligned, max(value.coarsest, scale)
    depth = value.depth + (isinstance(axis, (Slide, Spread)) and axis.kernel > 1)
    return AxisLook(scale, aligned, newest, ahead, coarsest, depth, value.apart, value.back or _is_back(axis, n))


def looks_back(axis: AxisMap) -> bool:
    """Whether all of a window's reach is padding before the signal: output i reads no newer input than i*stride."""
    return isinstance(axis, Slide) and not isinstance(axis, Straddle) and axis.lo == axis.reach > 0


def _is_back(axis: AxisMap, n: int) -> bool:
    """Whether outputs read the past of the inputs in whose place they stand, or the first whole step is cropped."""
    period = axis.period(n)
    if period is None or isinstance(axis, Straddle) or not isinstance(axis, (Slide, Spread, Pick, Cut)):
        return False
    reads = [tap for i in range(period[0]) for tap in axis.taps(i, n)]
    return bool(reads) and ((min(reads) < 0 and max(reads) < period[1]) or min(reads) >= period[1])


def _newest(axis: AxisMap, phase: Phase, n: int) -> Fraction:
    """How far behind input ``scale*i`` output ``i`` reads at most."""
    if isinstance(axis, Slide):
        return Fraction(axis.reach - axis.lo)
    period = axis.period(n)
    if period is None:
        return phase[1]
    reads = ((i, list(axis.taps(i, n))) for i in range(period[0]))
    return max((max(taps) - phase[0] * i for i, taps in reads if taps), default=phase[1])


def _ahead(axis: AxisMap, phase: Phase, n: int) -> Fraction:
    """How many inputs would have room between their end and the result's, for whichever size; cut off: negative."""
    if isinstance(axis, Slide):
        return Fraction(axis.hi)
    if isinstance(axis, Spread):
        return Fraction(axis.dilation * (axis.kernel - 1) - axis.hi + axis.extra - axis.stride + 1, axis.stride)
    if isinstance(axis, (Pick, Cut)):
        return Fraction(axis.stop_at(n) - n)
    if isinstance(axis, Shift):
        return Fraction(axis.total - axis.offset - n)
    return phase[1] if isinstance(axis, Roll) else Fraction(0)


def _stop(axis: AxisMap, n: int) -> int:
    """Where a call stops to read that cuts off the end only."""
    if isinstance(axis, (Pick, Cut)):
        return axis.stop_at(n) if list(axis.taps(0, n)) == [0] else n
    return n + min(axis.hi, 0) if isinstance(axis, Slide) and axis.kernel == 1 and axis.lo >= 0 else n
