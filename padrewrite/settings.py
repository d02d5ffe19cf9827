"""The environment variables that padrewrite reads. Each is read once, when what it sets is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    formulations: str | None
    """``PADREWRITE_FORMULATIONS``: a file of ``padrewrite bench --symmetric ... --tune FILE``, instead of the built-in
    table of how symmetric convolutions are computed."""

    @classmethod
    def from_environment(cls) -> Settings:
        return cls(formulations=os.environ.get("PADREWRITE_FORMULATIONS") or None)
