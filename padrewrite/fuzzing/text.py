"""Specifications print as the Python that makes them again, without what is left at its default."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any


class Described:
    """Base of frozen dataclasses (with ``repr=False``) for which ``eval(repr(spec)) == spec``."""

    def __repr__(self) -> str:
        cls: Any = type(self)
        required = {f.name: getattr(self, f.name) for f in fields(cls) if f.default is MISSING}
        plain = cls(**required)
        shown = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(cls)
            if f.name in required or getattr(self, f.name) != getattr(plain, f.name)
        ]
        return f"{cls.__name__}({', '.join(shown)})"
