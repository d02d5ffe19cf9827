"""Symmetric even kernels: channels are read from all sides, so that an even kernel no longer shifts the map.

    out[i] = sum over directions j, channels c in C_j, t of  w[c, t] x[c, i + d*t - p_j]     mean of p_j = d(k-1)/2 + n

Where d(k-1) is odd, at stride 1, no padding can centre the window: every output sits half a pixel off, and layers add
up. Here the channels are cut into 2 blocks per axis; each is padded on other sides, half a pixel off in another
direction, and the mean is a whole pixel n (0 where a map keeps its size). Same weights, sizes, parameters and
multiply-accumulates; but the network computes something else: fine-tune.

With ``from_odd``, odd kernels become even ones of one tap less per axis, too, for 3x3 with 4/9 of the weights: each
channel's is the nearest to the trained one, a corner. Strided ones average first, and so do the branches beside them.

Source: Wu et al. 2019, Convolution with even-sized kernels and symmetric padding (C2sp), Section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from padrewrite.analyses.evening import Hindrance, groups_of, made_even
from padrewrite.analyses.evenness import causal_axes, half_pixel_axes, made_symmetric, rest_text, shift_text, why_left
from padrewrite.analyses.rates import can_fill
from padrewrite.contracts import Contract
from padrewrite.graph import Graph, PoolSite, Site
from padrewrite.ops.assembly import Assembly
from padrewrite.ops.conv import Conv
from padrewrite.ops.directions import ORDERS
from padrewrite.rewriting import Check, Match, Pass


@dataclass(frozen=True)
class Odd(Match):
    """Odd convolutions, and strided 1x1 ones beside them, that become even together."""

    hindrances: tuple[Hindrance, ...] = ()


@dataclass(frozen=True)
class SymmetricEven(Pass):
    """Even kernels that shift the map by half a pixel become symmetric; odd ones become even on request."""

    name: ClassVar[str] = "symmetric-even"
    contract: ClassVar[str] = "shape"
    codes: ClassVar[Mapping[str, str]] = {
        "transposed": "a transposed convolution has no window over a padded input",
        "already-symmetric": "it is symmetric already, in the same order of directions",
        "other-order": "it is symmetric already, in another order of directions",
        "odd-kernel": "its kernel has a middle",
        "patchify": "kernel and stride are equal, so the middle of each patch is the output's place",
        "aligned": "stride or dilation centre the even kernel",
        "strided": "its stride leads to a coarser grid, off which its padding shifts it",
        "whole-pixels": "its padding shifts it by whole pixels, not by half a pixel",
        "causal": "it is padded before the map only: it is meant to look back",
        "one-position": "its output is one position, which reads the whole map",
        "unseen-padding": "it has no padding of its own, and without inputs no padding before it is seen",
        "depthwise": "each output reads one channel, so no other channel cancels its shift",
        "too-small": "the mode of its padding cannot fill the new one at the recorded input size",
        "few-channels": "an odd kernel whose channels are fewer than the sides to read them from",
        "odd-channels": "an odd kernel whose channels are odd in number: an even one would shift the map a little",
        "unpoolable": "a strided odd kernel whose outputs no average over cells of its stride has",
        "unlike-branches": "a branch beside the strided odd kernel cannot be moved as that would be",
        "unseen-branches": "a strided odd kernel, and without inputs no branch beside it is seen",
        "unknown-positions": "positions are not followed behind the strided odd kernel",
    }

    order: str = "balanced"
    """Of the directions over the input channels: "balanced"; "author" as in the paper's code; "raster" as in ports."""
    size: str = "keep"
    """Of the output: "keep" leaves it; "same" makes it that of the input, where padding grows or shrinks it."""
    from_odd: bool | tuple[int, ...] = False
    """Make odd kernels even: True for those of 3 and 5 taps, or the sizes that are meant, as in [3] or [3,5,7]."""

    def __post_init__(self) -> None:
        for name, known in (("order", ORDERS), ("size", ("keep", "same"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(known)}")
        sizes = self.from_odd if isinstance(self.from_odd, tuple) else (3,) * isinstance(self.from_odd, bool)
        if not sizes or not all(isinstance(k, int) and k > 1 and k % 2 for k in sizes):
            raise ValueError(f"from_odd={self.from_odd!r} is neither True nor a list of odd kernel sizes, such as [3]")

    def match(self, graph: Graph) -> Iterator[Match]:
        kernels = self.from_odd if isinstance(self.from_odd, tuple) else (3, 5) if self.from_odd else ()
        groups = groups_of(graph, kernels) if kernels else []
        yield from (Odd(group.sites, hindrances=group.hindrances) for group in groups)
        odd = {site.id for group in groups for site in group.sites}
        yield from Match.each(site for site in graph.convs() if site.id not in odd)

    def legality(self, match: Match) -> Iterator[Check]:
        if isinstance(match, Odd):
            yield from (Check(why.code, False, why.reason, why.status) for why in match.hindrances)
            return
        yield Check("transposed", isinstance(match.op, Conv), "a transposed convolution pads no input")
        op, site = match.conv, match.site
        done = op.symmetric is not None and not half_pixel_axes(op)
        order = op.symmetric.order if op.symmetric is not None else self.order
        yield Check.keep("already-symmetric", not (done and order == self.order), "it is symmetric already")
        yield Check("other-order", op.symmetric is None, f"it is symmetric in order {order}; revert it first")
        code, reason = why_left(op)
        yield Check.keep(code, bool(half_pixel_axes(op)), reason)
        axes = self._axes(op)
        yield Check.keep("causal", bool(axes), f"padding {op.padding} is all before the map, so it looks back")
        sizes = (site.input_shape or ())[-op.window.rank :]
        single = bool(sizes) and all(op.window.size(a, sizes[a]) == 1 for a in axes)
        yield Check.keep("one-position", not single, "its output is one position: nothing is beside it")
        seen = site.input_shape is not None or any(op.padding[a] != (0, 0) for a in axes)
        yield Check("unseen-padding", seen, "whether something pads before it shows with example_inputs only")
        channels = op.in_channels // op.groups
        yield Check("depthwise", channels > 1, "each output reads one channel, whose shift nothing cancels")
        new = self._symmetric(op) if axes and channels > 1 else op
        yield Check("too-small", can_fill(new, sizes), f"{new.padding_mode} cannot fill {new.padding} around {sizes}")

    def rewrite(self, match: Match) -> tuple[Conv | Assembly, ...]:
        if isinstance(match, Odd):
            return tuple(made_even(site.op, self.order) for site in match.sites if isinstance(site.op, Conv))
        return (self._symmetric(match.conv),)

    def _symmetric(self, op: Conv) -> Conv:
        return made_symmetric(op, self.order, self._axes(op), self.size == "keep")

    def promise(self, match: Match) -> Contract:
        return Contract("shape")

    def reason_at(self, match: Match, site: Site | PoolSite) -> str:
        if isinstance(match, Odd):
            return "one tap less on each axis: fine-tune"
        channels, shifts = match.conv.in_channels // match.conv.groups, self._shifts(match.conv)
        return f"{shifts}, {channels} channels read from {min(channels, 2 ** len(self._axes(match.conv)))} sides"

    def note(self, match: Match) -> str | None:
        if isinstance(match, Odd):
            return None
        left = rest_text(self._symmetric(match.conv))
        return f"{match.site.id}: {left}" if left else self._shifts(match.conv)

    def _shifts(self, op: Conv) -> str:
        return shift_text(op, self._symmetric(op), self._axes(op))

    def _axes(self, op: Conv) -> tuple[int, ...]:
        return tuple(a for a in half_pixel_axes(op) if a not in causal_axes(op))
