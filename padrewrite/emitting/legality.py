"""What a compiler backend cannot do for a pass, as checks around the pass's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch.fx as fx

from padrewrite.contracts import Contract
from padrewrite.graph import Graph, Rewritten, Site
from padrewrite.ops.assembly import Assembly, Attached
from padrewrite.ops.conv import Conv
from padrewrite.ops.pad import read_pad
from padrewrite.rewriting import Check, Match, Pass

CODES = {
    "symbolic-arguments": "an argument of the convolution depends on the input's size",
    "symbolic-padding": "explicit padding that depends on the input's size, in a form that holds for one size only",
    "expanded": "its partial or symmetric padding is written out in the compiler's graph already",
    "resolved-size": "the output's size would change, and the compiler has computed with the old one",
    "new-parameters": "the model would need new parameters, and a compiler sees it after they were read",
    "not-compiled": "no compiled graph contains it: it did not run, or it ran outside any graph",
}
SYMBOLIC = Check("symbolic-arguments", False, CODES["symbolic-arguments"])
SYMBOLIC_PADDING = Check("symbolic-padding", False, CODES["symbolic-padding"])
EXPANDED = Check("expanded", False, CODES["expanded"])


@dataclass(frozen=True)
class Emitted(Pass):
    """A pass as the backend runs it: the same matches and rewrites, and the backend's own conditions."""

    of: Pass
    refusals: Mapping[str, Check]
    """Sites that cannot be rewritten, and why."""

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.of.name

    @property
    def spec(self) -> str:
        return self.of.spec

    def match(self, graph: Graph) -> Iterable[Match]:
        return self.of.match(graph)

    def legality(self, match: Match) -> Iterator[Check]:
        refusals = [self.refusals[site.id] for site in match.sites if site.id in self.refusals]
        # What depends on sizes is not known well enough for the pass to judge; the others may be as wanted already.
        yield from (check for check in refusals if check is not EXPANDED)
        yield from self.of.legality(match)
        yield from refusals
        for site, after in zip(match.sites, self.of.rewrite(match)):
            plain = not isinstance(after, (Assembly, Attached))
            yield Check("new-parameters", plain, "it would need new parameters; transform the model, then compile it")
            same = isinstance(site.op, Conv) and isinstance(after, Conv) and _same_size(site.op, after)
            yield Check("resolved-size", same, "Dynamo has resolved the sizes; transform the model, then compile it")

    def rewrite(self, match: Match) -> tuple[Rewritten, ...]:
        return self.of.rewrite(match)

    def promise(self, match: Match) -> Contract:
        return self.of.promise(match)


def symbolic_padding(graph: Graph) -> dict[str, Check]:
    """Sites whose explicit pads depend on the input's size in a way that a rewrite would freeze.

    One pad is carried over as an expression. Several pads, a pad on top of the convolution's own padding, and one
    that happened to be 0 when Dynamo traced are known as numbers only.
    """
    return {site.id: SYMBOLIC_PADDING for site in graph.convs() if _freezes(site, graph.pads_of(site.id))}


def _freezes(site: Site, pads: tuple[fx.Node, ...]) -> bool:
    rank = len(site.op.padding)
    for pad, resolved in zip(pads, site.handle.amounts):
        call = read_pad(pad.target, pad.args, dict(pad.kwargs))
        assert call is not None
        given = (((0, 0),) * rank + tuple(call.amounts))[-rank:]
        for axis, pair in enumerate(given):
            if not any(isinstance(v, fx.Node) for v in pair):
                continue
            if len(pads) > 1 or resolved.amounts[axis] == (0, 0) or resolved.amounts[axis] != site.op.padding[axis]:
                return True
    return False


def _same_size(before: Conv, after: Conv) -> bool:
    growth = [[sum(p) - s for p, s in zip(op.padding, op.reach.span)] for op in (before, after)]
    return before.stride == after.stride and growth[0] == growth[1]
