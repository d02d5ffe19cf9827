"""The edit: one site's way from what it computes to what it is to compute, as it will be written into modules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from padrewrite.graph import PoolSite, Site
from padrewrite.ops.assembly import Assembly, Attached
from padrewrite.ops.carrying import Carried
from padrewrite.ops.conv import Conv
from padrewrite.ops.pool import Pool
from padrewrite.ops.realise import ExplicitPad, Realisation, realise

RETUNE, REBIND, REDIRECT = "retune", "rebind", "redirect"
"""Set attributes of a stock layer; swap its class; run the owner's forward under a mode that redirects the call."""
REPLACE, ATTACH = "replace", "attach"
"""Put a layer with other parameters in the place of a stock one, in all its parents; give a layer a child behind it."""

@dataclass(frozen=True)
class Edit:
    """One site's way from ``before`` to ``after``."""

    site: Site | PoolSite
    before: Conv | Pool
    after: Conv | Pool | Assembly | Attached
    way: str
    owner: str
    """FQN of the module that is changed."""
    explicit: tuple[ExplicitPad, ...] = ()
    """Pads in front of the changed call that stay where they are, nearest first."""
    bound: float | None = None
    """Largest relative error that carrying the weights over makes, as the contract states it."""
    _carried: Carried | None = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_carried": None}

    @property
    def carried(self) -> Carried | None:
        """The new parameters as planning made them, with the weight they were made from; gone in copies."""
        return self._carried

    @property
    def assembly(self) -> Assembly | None:
        """What replaces the layer or is attached to it, if something is."""
        after = self.after.assembly if isinstance(self.after, Attached) else self.after
        return after if isinstance(after, Assembly) else None

    @property
    def fresh(self) -> bool:
        """The layer is replaced by one whose parameters begin anew: nothing of the old ones is carried over."""
        return isinstance(self.after, Assembly) and bool(self.after.branches) and self.after.carry is None

    @property
    def below(self) -> str:
        """FQN of the module whose children the assembly's are."""
        return ".".join(filter(None, (self.owner, self.after.name if isinstance(self.after, Attached) else "")))

    @property
    def change(self) -> Realisation:
        """The call that has to be made instead, of a convolution."""
        return realise(self.conv, self.explicit)

    @property
    def resizes(self) -> bool:
        """The new op has another output size than the old one."""
        growth = [[sum(p) - s for p, s in zip(op.padding, op.reach.span)] for op in (self.before, self.after)]
        return self.before.window.stride != self.after.window.stride or growth[0] != growth[1]

    @property
    def keeps_interior(self) -> bool:
        """Where no window touches padding, the new op computes what the old one did."""
        if self.before.window != self.after.window or self.assembly is not None:
            return False
        return isinstance(self.after, Pool) or self.conv.symmetric == self.old.symmetric

    @property
    def conv(self) -> Conv:
        """``after``, of a convolution."""
        assert isinstance(self.after, Conv)
        return self.after

    @property
    def old(self) -> Conv:
        """``before``, of a convolution."""
        assert isinstance(self.before, Conv)
        return self.before
