"""One line about a whole model: how much there is, how coarse it gets, how far it looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from padrewrite.analyses.analysis import Analysis
from padrewrite.analyses.scene import BEHIND_POOL

T = TypeVar("T", int, Fraction)


@dataclass(frozen=True)
class Totals:
    """Sums and extremes over the convolution calls. Tuples run over the spatial axes, first to last."""

    convolutions: int
    """Calls, not layers."""
    warnings: int
    notes: int
    parameters: int
    macs: int | None
    """On the example inputs, all samples of the batch."""
    output_stride: tuple[Fraction, ...] | None
    """Input pixels per position of the last convolution's output; None if no convolution's is known."""
    coarsest_stride: tuple[Fraction, ...] | None
    """The most input pixels per position that any convolution's output has."""
    receptive_field: tuple[int, ...] | None
    """The largest that is known, in input pixels."""
    receptive_field_complete: bool
    """Whether all are known, but for those of convolutions behind a global pool; else the largest is at least that."""


def totals(analysis: Analysis) -> Totals:
    """The totals. Where convolutions differ in rank, strides and fields are those of the highest rank."""
    records = list(analysis.sites.values())
    strides = _complete([None if p is None else p.scale for p in record.phase] for record in records)
    fields = _complete(record.receptive_field for record in records)
    severities = [finding.severity for finding in analysis.findings]
    return Totals(
        convolutions=len(records),
        warnings=severities.count("warning"),
        notes=severities.count("note"),
        parameters=analysis.parameters,
        macs=analysis.macs,
        output_stride=strides[-1] if strides else None,
        coarsest_stride=_largest(strides),
        receptive_field=_largest(fields),
        receptive_field_complete=all(None not in one.receptive_field or one.ended == BEHIND_POOL for one in records),
    )


def _complete(values: Iterable[Sequence[T | None]]) -> list[tuple[T, ...]]:
    """Those that are known along every axis, of the highest rank among them."""
    known = [tuple(v for v in one if v is not None) for one in values if None not in one]
    rank = max(map(len, known), default=0)
    return [one for one in known if len(one) == rank]


def _largest(values: Sequence[tuple[T, ...]]) -> tuple[T, ...] | None:
    return tuple(map(max, zip(*values))) if values else None
