"""Passes that break one promise each, for the fuzzer to catch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from padrewrite.contracts import Contract
from padrewrite.graph import Graph
from padrewrite.ops.conv import Conv
from padrewrite.rewriting import Check, Match, Pass


@dataclass(frozen=True)
class Broken(Pass):
    """Zeros around a convolution become reflected pixels, and something goes wrong."""

    contract = "interior"

    def match(self, graph: Graph) -> Iterator[Match]:
        return Match.each(graph.convs())

    def legality(self, match: Match) -> Iterator[Check]:
        yield Check("transposed", isinstance(match.op, Conv), "it pads no input")
        yield Check.keep("unpadded", bool(match.conv.padded_axes), "it has no padding")
        yield Check.keep("already-reflected", self.wants(match.conv), "it is reflected already")

    def wants(self, op: Conv) -> bool:
        return "reflect" not in op.modes

    def rewrite(self, match: Match) -> tuple[Conv, ...]:
        return (replace(match.conv, modes=("reflect",) * match.conv.window.rank),)

    def promise(self, match: Match) -> Contract:
        return Contract.interior(match.conv)


@dataclass(frozen=True)
class Restless(Broken):
    """Never satisfied: the second run swaps replicate and reflect once more."""

    name = "restless"

    def wants(self, op: Conv) -> bool:
        return True

    def rewrite(self, match: Match) -> tuple[Conv, ...]:
        mode = "replicate" if "reflect" in match.conv.modes else "reflect"
        return (replace(match.conv, modes=(mode,) * match.conv.window.rank),)


@dataclass(frozen=True)
class Stumbling(Broken):
    """Its rewrite raises."""

    name = "stumbling"

    def rewrite(self, match: Match) -> tuple[Conv, ...]:
        raise ZeroDivisionError("no reason at all")


@dataclass(frozen=True)
class Overstepping(Broken):
    """Promises an equal interior and changes the stride."""

    name = "overstepping"

    def legality(self, match: Match) -> Iterator[Check]:
        yield Check.keep("already-strided", match.op.window.stride == (1, 1), "it is strided already")

    def rewrite(self, match: Match) -> tuple[Conv, ...]:
        window: Any = replace(match.conv.window, stride=(2, 2))
        return (replace(match.conv, window=window),)
