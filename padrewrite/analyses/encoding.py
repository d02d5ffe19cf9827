"""An ``Analysis`` as JSON types. Fractions are text ("1/2", "3"); what is not known is null."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from padrewrite.analyses.analysis import Analysis, NodeRecord, SiteRecord
from padrewrite.analyses.phases import AxisPhase
from padrewrite.analyses.size_forms import SizeForm
from padrewrite.analyses.support import Reached
from padrewrite.analyses.totals import totals
from padrewrite.codec import encode


def analysis_json(analysis: Analysis) -> dict[str, Any]:
    """Everything but schema and version: the same content, in the same order, for the same analysis.

    Lengths are input pixels, lists run over the spatial axes first to last. ``sites`` and ``nodes`` are in execution
    order.
    """
    whole = totals(analysis)
    return {
        "model": analysis.model,
        "how": analysis.how,
        "calls": analysis.calls,
        "input": analysis.input,
        "totals": {
            **{name: getattr(whole, name) for name in ("convolutions", "warnings", "notes", "parameters", "macs")},
            "output_stride": _fractions(whole.output_stride),
            "coarsest_stride": _fractions(whole.coarsest_stride),
            "receptive_field": encode(whole.receptive_field),
            "receptive_field_complete": whole.receptive_field_complete,
        },
        "findings": [encode(finding) for finding in analysis.findings],
        "chains": [encode(chain) for chain in analysis.chains],
        "sites": {site: site_json(record) for site, record in analysis.sites.items()},
        "conditions": encode(analysis.conditions),
        "nodes": {name: node_json(record) for name, record in analysis.nodes.items()},
        "outputs": [{"id": record.id, **node_json(record)} for record in analysis.outputs],
        "notes": list(analysis.notes),
    }


def site_json(record: SiteRecord) -> dict[str, Any]:
    """One convolution call."""
    return {
        "op": encode(record.op.spec()),
        "source": record.source,
        "input_size": encode(record.input_size),
        "output_size": encode(record.output_size),
        "size": _sizes(record.size),
        "phase": _phases(record.phase),
        "receptive_field": list(record.receptive_field),
        "reached": None if record.reached is None else _reached(record.reached),
        "reached_of": {str(given): _reached(seen) for given, seen in record.reached_of.items()},
        "context": record.context,
        "valid_weights": None if record.valid_weights is None else str(record.valid_weights),
        "saw_padding": record.saw_padding,
        "border": encode(record.border),
        "partial_border": encode(record.partial_border),
        "parameters": record.parameters,
        "macs": record.macs,
        "ended": record.ended,
        "field_ended": record.field_ended,
    }


def node_json(record: NodeRecord) -> dict[str, Any]:
    """One tensor; lists run over ``dims``."""
    return {
        "call": record.call,
        "source": record.source,
        "shape": list(record.shape),
        "dims": list(record.dims),
        "inputs": [list(one) for one in record.inputs],
        "size": _sizes(record.size),
        "size_since": [None if form is None else form.since for form in record.size],
        "unchanged": record.unchanged,
        "phase": _phases(record.phase),
        "receptive_field": list(record.receptive_field),
        "ended": record.ended,
    }


def _sizes(forms: Sequence[SizeForm | None]) -> list[str | None]:
    return [None if form is None else str(form) for form in forms]


def _phases(phases: Sequence[AxisPhase | None]) -> list[dict[str, Any] | None]:
    return [None if phase is None else _phase(phase) for phase in phases]


def _phase(phase: AxisPhase) -> dict[str, Any]:
    """``offset`` is the deepest path's; ``low`` and ``high`` are those of all paths of the same scale."""
    return {
        "scale": str(phase.scale),
        "offset": str(phase.offset),
        "low": str(phase.low),
        "high": str(phase.high),
        "other_scales": [str(scale) for scale in phase.scales],
    }


def _reached(reached: Reached) -> dict[str, Any]:
    return {"extents": list(reached.extents), "count": reached.count, "holes": reached.holes}


def _fractions(values: Sequence[Fraction] | None) -> list[str] | None:
    return None if values is None else [str(value) for value in values]
