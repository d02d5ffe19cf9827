"""What every typed operation of a graph can say about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Op:
    """A call read from a graph, as numbers only: no tensors, no torch."""

    kind: ClassVar[str] = "op"

    def spec(self) -> dict[str, Any]:
        """What a report shows as ``before`` and ``after``."""
        raise NotImplementedError
