"""What a pass is: it finds matches in a graph, says what is legal, and returns new ops. It touches no module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from padrewrite.contracts import Contract
from padrewrite.graph import Graph, PoolSite, Rewritten, Site
from padrewrite.ops.conv import Conv, TransposedConv

Status = Literal["rewritten", "kept", "refused"]


@dataclass(frozen=True)
class Check:
    """One condition of a rewrite. The first that fails is the report's entry for the match."""

    code: str
    """Stable name of the FAILURE, as in ``unpadded``. Codes that begin with ``already`` count as an effect."""
    ok: bool
    reason: str
    """Why it fails, as a clause a reader understands without the source."""
    status: Literal["kept", "refused"] = "refused"

    @classmethod
    def keep(cls, code: str, ok: bool, reason: str) -> Check:
        """A condition whose failure means that there is nothing to do here."""
        return cls(code, ok, reason, "kept")


@dataclass(frozen=True)
class Match:
    """What a pass decides about as a whole: one site, or several that stand or fall together."""

    sites: tuple[Site, ...]
    pools: tuple[PoolSite, ...] = ()
    """Pools that are rewritten with them; selectors speak of the convolutions only."""
    grid: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Convolutions whose old output stands in the new one at these steps, one per axis (contract ``grid``)."""
    ended: tuple[str, ...] = ()
    """Calls behind which that is no longer promised, and why."""

    @classmethod
    def each(cls, sites: Iterable[Site]) -> Iterator[Match]:
        """One match per site."""
        return (cls((site,)) for site in sites)

    @property
    def site(self) -> Site:
        """The site of a match that has one."""
        (site,) = self.sites
        return site

    @property
    def op(self) -> Conv | TransposedConv:
        return self.site.op

    @property
    def conv(self) -> Conv:
        """The site's op, for use after a check that it is not transposed."""
        assert isinstance(self.site.op, Conv)
        return self.site.op


@dataclass(frozen=True)
class Pass(ABC):
    """A rewrite. Subclasses are frozen dataclasses; their fields are their options."""

    name: ClassVar[str]
    contract: ClassVar[str]
    """Kind of the contract, for the catalogue; ``promise`` gives the numbers."""
    needs: ClassVar[Literal["module", "dataflow"]] = "module"
    codes: ClassVar[Mapping[str, str]] = {}
    """Every code that ``legality`` can report, and what it means."""
    before: ClassVar[tuple[str, ...]] = ()
    """Passes that must not run before this one."""

    @abstractmethod
    def match(self, graph: Graph) -> Iterable[Match]:
        """Everything this pass has an opinion about."""

    @abstractmethod
    def legality(self, match: Match) -> Iterator[Check]:
        """Conditions, in the order in which they are to be read."""

    @abstractmethod
    def rewrite(self, match: Match) -> tuple[Rewritten, ...]:
        """The new op of each of the match's sites, then of each of its pools. Called only if every condition holds."""

    @abstractmethod
    def promise(self, match: Match) -> Contract:
        """The contract of this rewrite."""

    def promise_at(self, match: Match, site: Site | PoolSite) -> Contract:
        """The contract at one site of the match; by default that of the match."""
        return self.promise(match)

    def reason_at(self, match: Match, site: Site | PoolSite) -> str:
        """Why a site is rewritten, for its entry in the report."""
        return "every condition held"

    def note(self, match: Match) -> str | None:
        """A line for the report about a match that is rewritten, as numbers before and after; equal ones count."""
        return None

    @property
    def spec(self) -> str:
        """The pass as text: its name, and the options that differ from their defaults."""
        options = [
            f"{f.name}={_text(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return self.name + (f"{{{','.join(options)}}}" if options else "")


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(map(_text, value)) + "]"  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    return str(value)
