"""Partial padding: a border output is the mean-preserving rescale of what its window really saw.

    out[i] = (sum_t w[t] x[i*s + d*t - p]) * prod_axis k/count(i) + b          count(i) = real taps of window i

Where count = 0 the output is 0, without bias. The ratio is a product of one vector per axis: no mask tensor, no
epsilon, no state, any size. Costs no multiply-accumulates; fuses into whatever follows the convolution.

Source: Liu et al. 2018, Partial Convolution based Padding, Eq. 1-3 (border form, per axis).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from padrewrite.contracts import Contract
from padrewrite.graph import Graph
from padrewrite.ops.conv import Conv
from padrewrite.rewriting import Check, Match, Pass


@dataclass(frozen=True)
class PartialPadding(Pass):
    """Zero padding becomes partial padding."""

    name: ClassVar[str] = "partial-padding"
    contract: ClassVar[str] = "interior"
    codes: ClassVar[Mapping[str, str]] = {
        "transposed": "a transposed convolution has no window over a padded input",
        "already-partial": "it is partial already, with the same scale",
        "other-scale": "it is partial already, with another scale",
        "unpadded": "no window of it ever touches padding",
        "non-zero-padding": "its padding is not made of zeros, so nothing made up enters the sum",
        "cropping": "negative padding crops the input instead of padding it",
    }

    scale: str = "mean"
    """"mean" keeps each window's mean (the paper); "sqrt" keeps its variance."""

    def __post_init__(self) -> None:
        if self.scale not in ("mean", "sqrt"):
            raise ValueError(f"scale={self.scale!r} is not one of mean, sqrt")

    def match(self, graph: Graph) -> Iterator[Match]:
        return Match.each(graph.convs())

    def legality(self, match: Match) -> Iterator[Check]:
        yield Check("transposed", isinstance(match.op, Conv), "a transposed convolution pads no input")
        op = match.conv
        yield Check.keep(
            "already-partial", op.partial != self.scale, f"it is partial with scale {self.scale} already"
        )
        yield Check(
            "other-scale", op.partial is None, f"it is partial with scale {op.partial}; revert it first"
        )
        yield Check.keep("unpadded", bool(op.padded_axes), _unpadded(op))
        zeros = any(op.modes[axis] == "zeros" for axis in op.padded_axes)
        yield Check.keep("non-zero-padding", zeros, f"{op.padding_mode} padding repeats real input")
        yield Check("cropping", min(map(min, op.padding)) >= 0, f"padding {op.padding} crops")

    def rewrite(self, match: Match) -> tuple[Conv, ...]:
        return (replace(match.conv, partial=self.scale),)

    def promise(self, match: Match) -> Contract:
        return Contract.interior(match.conv)


def _unpadded(op: Conv) -> str:
    shape = "x".join(map(str, op.kernel))
    return f"a {shape} kernel without padding sees none" if max(op.kernel) == 1 else "it has no padding"
