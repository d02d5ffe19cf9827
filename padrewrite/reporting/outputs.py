"""One line about a model's outputs: their size for all inputs, and where it is the input's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from padrewrite.analyses.analysis import Analysis, NodeRecord
from padrewrite.analyses.size_forms import SMALLEST, SizeForm

_SYMBOLS = {2: ("H", "W"), 3: ("D", "H", "W")}
_RESIDUES = 6
"""Residues that are listed."""


def outputs_text(analysis: Analysis) -> str | None:
    """About the first output that has positions, and how many more there are; None if there is none."""
    placed = [record for record in analysis.outputs if record.dims]
    if not placed:
        return None
    first, more = placed[0], len(placed) - 1
    path = "" if analysis.conditions == () else " on the recorded path"
    text = f"{'x'.join(map(str, first.shape))}: {_size(first, path)}"
    return text + (f"; {more} more output{'s' * (more > 1)}" if more else "")


def _size(record: NodeRecord, path: str) -> str:
    forms = [form for form in record.size if form is not None]
    if len(forms) < len(record.size) or record.ended is not None:
        return "its size for other inputs is not known"
    if record.unchanged:
        return f"as large as the input for {_sizes(forms)}{path}"
    if len(forms) > 1 and all(form.same_as(forms[0]) for form in forms):
        return f"{forms[0]} along each axis{_where(forms[0], 'H')}"
    symbols = _SYMBOLS.get(len(forms), ("H",) * len(forms))
    texts = [form.text(symbol) for form, symbol in zip(forms, symbols)]
    size = " x ".join(map(_bracketed, texts)) if len(texts) > 1 else texts[0]
    return size + "".join(_where(form, symbol) for form, symbol in zip(forms, symbols) if not form.unchanged)


def _bracketed(text: str) -> str:
    return f"({text})" if re.search(r" [+-] \w[^()]*$", text) else text


def _sizes(forms: Sequence[SizeForm]) -> str:
    starts = [form.since for form in forms if form.since is not None]
    if len(starts) < len(forms):
        return "all but small input sizes"
    return "every input size" if max(starts) <= SMALLEST else f"every input size of at least {max(starts)}"


def _where(form: SizeForm, symbol: str) -> str:
    """For which sizes of the input a dimension has them, too; nothing if for none."""
    changed = set(form.changed)
    kept = [r for r in range(form.period) if r not in changed]
    if not kept:
        return ""
    shown = ", ".join(map(str, kept[:_RESIDUES])) + (", ..." if len(kept) > _RESIDUES else "")
    return f"; unchanged only if {symbol} mod {form.period} = {shown}"
