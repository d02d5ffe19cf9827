"""What a rewrite promises about the numbers, and what was found when the promise was checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from padrewrite.ops.conv import Conv

KINDS = ("exact", "grid", "interior", "bounded", "shape")
"""From the strongest to the weakest; contracts of several rewrites compose to the weakest."""


@dataclass(frozen=True)
class Contract:
    """A promise: its kind and its numbers."""

    kind: str
    numbers: tuple[tuple[float, ...], ...] = ()
    """grid: ((s, ...),); interior: (lo, hi) outputs per axis that may differ; bounded: ((eps,),)."""

    def __str__(self) -> str:
        if not self.numbers:
            return self.kind
        if self.kind == "grid":
            steps = [f"{v:g}" for v in self.numbers[0]]
            return f"grid({steps[0] if len(set(steps)) == 1 else 'x'.join(steps)})"
        parts = ("..".join(f"{v:g}" for v in pair) for pair in self.numbers)
        return f"{self.kind}({', '.join(parts)})"

    @classmethod
    def interior(cls, op: Conv) -> Contract:
        """Equal except in the ring of outputs whose window touches padding, at most this many per side."""
        ring = tuple(tuple(float(-(-pad // s)) for pad in pair) for pair, s in zip(op.padding, op.stride))
        return cls("interior", ring)

    @classmethod
    def grid(cls, factors: Sequence[int]) -> Contract:
        """``new[..., ::s] == old``, one s per axis."""
        return cls("grid", (tuple(float(f) for f in factors),))

    @classmethod
    def bounded(cls, eps: float) -> Contract:
        """A relative error of at most ``eps``."""
        return cls("bounded", ((eps,),))

    @classmethod
    def weakest(cls, contracts: list[Contract]) -> Contract:
        """What several rewrites together still promise."""
        return max(contracts, key=lambda c: KINDS.index(c.kind), default=cls("exact"))


@dataclass(frozen=True)
class Evidence:
    """One check of one contract."""

    site: str
    """A site id, or "end to end"."""
    contract: str
    max_abs_error: float
    vacuous: bool
    """True if the check compared nothing; never counted as a pass."""
    ok: bool
    note: str = ""
    positions: int = 0
    """How many output values were compared."""
