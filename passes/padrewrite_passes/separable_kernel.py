"""Separable kernels: a large kernel becomes two pairs of thin ones, k x 1 then 1 x k beside 1 x k then k x 1.

    W[o,c,y,x] = sum_m A[o,m,x] B[m,c,y] + sum_n C[o,n,y] D[n,c,x]        up to a stated relative error

Weights are carried over: by a truncated singular value decomposition for one branch, the best there is, by alternating
least squares for two. Stride, dilation, padding, its mode and groups are kept, each axis by the convolution along it,
and the border too, because nothing lies between the two but the channels. Costs 2 k m (c_in + c_out) weights for
k^2 c_in c_out, with m middle channels.

Source: Peng et al. 2017, Large Kernel Matters (GCN), Section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from padrewrite.analyses.rates import can_fill
from padrewrite.contracts import Contract
from padrewrite.graph import Graph
from padrewrite.ops.assembly import Assembly, Carry
from padrewrite.ops.conv import Conv
from padrewrite.ops.separable import enlarged, full_rank, separate
from padrewrite.rewriting import Check, Match, Pass


@dataclass(frozen=True)
class SeparableKernel(Pass):
    """Large kernels become separable ones."""

    name: ClassVar[str] = "separable-kernel"
    contract: ClassVar[str] = "bounded"
    codes: ClassVar[Mapping[str, str]] = {
        "transposed": "a transposed convolution is not rewritten",
        "one-dimensional": "a kernel of one axis has nothing to separate",
        "three-dimensional": "kernels of three axes are not separated",
        "symmetric": "blocks of its channels are read from different sides",
        "no-size": "kernel=global needs the size of the feature map",
        "smaller-kernel": "the wanted kernel is smaller than the one there is",
        "off-centre": "the old kernel would not lie in the middle of the new one",
        "too-small": "the new padding is wider than its mode can fill at the recorded input size",
        "enlarged-partial": "partial padding would count the taps that a larger kernel adds",
        "small-kernel": "its kernel is smaller than min_kernel",
        "already-separable": "its kernel extends along one axis only",
    }

    mid: int | float | str | None = None
    """Middle channels: a number, a fraction of the output channels (0.5), or by what they keep of the kernel's square
    sum ("95%"). By default as many as output channels."""
    init: str = "als"
    """"als" fits two branches to the weights in turn, "svd" one after the other, "random" starts anew."""
    max_error: float | None = None
    """Refuse a layer whose weights would be carried over with a larger relative error."""
    min_kernel: int = 5
    """Smallest kernel, on its longer axis, that is rewritten."""
    branches: int = 2
    """2 as in the paper, or 1: k x 1 then 1 x k alone."""
    kernel: int | str | None = None
    """Another kernel size, the old one in its middle: a number, or "global" for the largest with room in the map."""

    def __post_init__(self) -> None:
        if self.init not in ("als", "svd", "random"):
            raise ValueError(f"init={self.init!r} is not one of als, svd, random")
        if self.branches not in (1, 2):
            raise ValueError(f"branches={self.branches!r} is neither 1 nor 2")
        if not (self.kernel in (None, "global") or (type(self.kernel) is int and self.kernel > 0)):
            raise ValueError(f"kernel={self.kernel!r} is neither a size nor global")
        if type(self.min_kernel) is not int or self.min_kernel < 1:
            raise ValueError(f"min_kernel={self.min_kernel!r} is not a size")
        if not (self.max_error is None or (type(self.max_error) in (int, float) and self.max_error >= 0)):
            raise ValueError(f"max_error={self.max_error!r} is not a relative error, such as 0.1")
        share = self._energy
        number = (type(self.mid) is int and self.mid > 0) or (isinstance(self.mid, float) and 0 < self.mid <= 1)
        if share is None and self.mid is not None and not number:
            raise ValueError(f"mid={self.mid!r} is not a number of channels, a fraction, or a share such as 95%")
        if share is not None and not (0 < share <= 1 and self.init != "random"):
            raise ValueError(f"mid={self.mid!r} is not between 0% and 100% of weights that are carried over")

    def match(self, graph: Graph) -> Iterator[Match]:
        return Match.each(graph.convs())

    def legality(self, match: Match) -> Iterator[Check]:
        op, size = match.op, _size(match)
        yield Check("transposed", isinstance(op, Conv), "a transposed convolution is not rewritten")
        yield Check.keep("one-dimensional", op.window.rank > 1, "its kernel has one axis")
        yield Check("three-dimensional", op.window.rank == 2, "its kernel has three axes; two are separated")
        yield Check.keep("already-separable", min(op.kernel) > 1 or max(op.kernel) == 1, "it extends along one axis")
        yield Check("symmetric", match.conv.symmetric is None, "blocks of its channels are read from different sides")
        own = "x".join(map(str, op.kernel))
        small = f"its kernel is {own}, below {self.min_kernel}"
        yield Check.keep("small-kernel", max(op.kernel) >= self.min_kernel, small)
        yield Check("no-size", self.kernel != "global" or size is not None, "kernel=global needs example_inputs")
        wanted = self._kernel(match.conv, size)
        large = all(k >= old for k, old in zip(wanted, op.kernel))
        yield Check("smaller-kernel", large, f"its kernel is {own}, {max(wanted)} is wanted")
        new = enlarged(match.conv, wanted)
        yield Check("off-centre", new is not None, f"a kernel of {own} has no middle in {max(wanted)}")
        same = match.conv.partial is None or wanted == op.kernel or self.init == "random"
        yield Check("enlarged-partial", same, "its partial padding would count the taps that are added: revert first")
        fits = new is not None and (size is None or can_fill(new, size))
        yield Check("too-small", fits, f"{match.conv.padding_mode} cannot fill the new padding")

    def rewrite(self, match: Match) -> tuple[Assembly]:
        op = match.conv
        new = enlarged(op, self._kernel(op, _size(match)))
        assert new is not None
        carry = None if self.init == "random" else Carry("separable", self.init, self._energy, self.max_error)
        return (separate(new, self._mid(new), self.branches, carry, cheaper=True),)

    def promise(self, match: Match) -> Contract:
        return Contract("shape" if self.init == "random" else "bounded")

    @property
    def _energy(self) -> float | None:
        """The share of the kernel's square sum that ``mid`` asks for, if it is a share."""
        given = self.mid.removesuffix("%") if isinstance(self.mid, str) and self.mid.endswith("%") else ""
        try:
            return float(given) / 100
        except ValueError:
            return None

    def _mid(self, op: Conv) -> int:
        """A multiple of the groups, and no more than what computes every kernel exactly."""
        wanted = self.mid if isinstance(self.mid, (int, float)) else op.out_channels
        channels = wanted if isinstance(wanted, int) else wanted * op.out_channels
        return min(ceil(channels / op.groups) * op.groups, full_rank(op))

    def _kernel(self, op: Conv, size: tuple[int, ...] | None) -> tuple[int, ...]:
        if self.kernel == "global" and size is not None:
            # The largest kernel that spans no more than the map, with the old one in its middle.
            fits = (1 + (n - 1) // d for n, d in zip(size, op.dilation))
            return tuple(max(k, n - (n - k) % 2) for k, n in zip(op.kernel, fits))
        return op.kernel if self.kernel is None else (int(self.kernel),) * len(op.kernel)


def _size(match: Match) -> tuple[int, ...] | None:
    shape = match.site.input_shape
    return None if shape is None else shape[-match.op.window.rank :]
