"""Random choices behind one interface, so that a seed and hypothesis draw from the same description."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Choices(Protocol):
    """A source of choices. The first of all values is the simplest: hypothesis shrinks towards it."""

    def integer(self, lo: int, hi: int) -> int:
        """One of lo, ..., hi, both included."""
        ...

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``; what stands there twice is twice as likely."""
        ...


class Seeded:
    """Choices by a seed: the same in every process and on every machine."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, lo: int, hi: int) -> int:
        return self._random.randint(lo, hi)

    def pick(self, options: Sequence[T]) -> T:
        return options[self._random.randrange(len(options))]


class Drawn:
    """Choices by the ``draw`` function of a hypothesis ``@composite`` strategy."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        from hypothesis import strategies

        self._draw, self._strategies = draw, strategies

    def integer(self, lo: int, hi: int) -> int:
        return int(self._draw(self._strategies.integers(lo, hi)))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]


def chance(choices: Choices, percent: int) -> bool:
    """True in ``percent`` of all cases; False is the simpler one."""
    return choices.integer(0, 99) >= 100 - percent
