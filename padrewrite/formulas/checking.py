"""What the formulas refuse, in words: the value, and what to give instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def at_least(least: int, name: str, value: object, fix: str) -> int:
    """``value``, if it is an integer of at least ``least``.

    Raises:
        ValueError: it is not; the message quotes it and ends with ``fix``.
    """
    if integer(name, value, fix) < least:
        raise ValueError(f"{name} is {value!r}, which is no integer of at least {least}; {fix}")
    return integer(name, value, fix)


def integer(name: str, value: object, fix: str) -> int:
    """``value``, if it is an integer.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, which is no integer; {fix}")
    return value


def listed(name: str, values: Any, fix: str) -> list[Any]:
    """``values`` as a list, if they are several.

    Raises:
        ValueError: they are none, but one thing.
    """
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"{name} is {values!r}; {fix}") from None


def read_rates(rates: Sequence[int]) -> list[int]:
    """A dilation rate per layer, checked.

    Raises:
        ValueError: there is none, or one is no integer of at least 1.
    """
    fix = "give the dilation of each layer, in order"
    read = listed("rates", rates, fix)
    if not read:
        raise ValueError(f"rates is {rates!r}, which has no layer; {fix}")
    return [at_least(1, f"rates[{i}]", r, "an undilated layer has rate 1") for i, r in enumerate(read)]


def per_layer(name: str, values: int | Sequence[int], layers: int) -> list[int]:
    """One integer of at least 1 per layer; a single integer holds for all.

    Raises:
        ValueError: there are more or fewer than ``layers``, or one is no integer of at least 1.
    """
    if isinstance(values, int):
        values = [values] * layers
    read = listed(name, values, "give one per layer, or one integer")
    if len(read) != layers:
        raise ValueError(f"{name} has {len(read)} entries for {layers} rates; give one per layer, or one integer")
    return [at_least(1, f"{name}[{i}]", v, f"give {name} in pixels") for i, v in enumerate(read)]
