"""How two tensors are compared, where numbers are none."""

from __future__ import annotations

import torch

from padrewrite.checks.compare import Comparison

NAN = float("nan")


def compared(got: list[float], wanted: list[float]) -> tuple[bool, bool, int]:
    comparison = Comparison(1e-10)
    comparison.add(torch.tensor(got).double(), torch.tensor(wanted).double())
    evidence = comparison.evidence("site", "reference")
    return evidence.ok, evidence.vacuous, evidence.positions


def test_what_is_nan_in_both_is_not_compared() -> None:
    assert compared([1.0, NAN, 2.0], [1.0, NAN, 2.0]) == (True, False, 2)
    assert compared([1.0, NAN, 2.0], [1.0, NAN, 3.0])[0] is False
    assert compared([NAN, NAN], [NAN, NAN]) == (True, True, 0)


def test_what_is_nan_in_one_differs() -> None:
    assert compared([NAN, 1.0], [0.0, 1.0])[0] is False
    assert compared([0.0, 1.0], [NAN, 1.0])[0] is False
