"""An analysis as text of at most 100 columns: totals, outputs, findings by code, dilated chains, all convolutions.

Findings with the same message are one entry that lists their sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import RenderableType
from rich.text import Text

from padrewrite.__about__ import VERSION
from padrewrite.analyses.analysis import Analysis, Finding
from padrewrite.analyses.chains import Chain, Gridding
from padrewrite.analyses.totals import Totals, totals
from padrewrite.registry import known_passes
from padrewrite.reporting.aligned import Group, aligned
from padrewrite.reporting.layout import WIDTH, Cell, clean, grid, plain_text
from padrewrite.reporting.outputs import outputs_text
from padrewrite.reporting.sites import count_text, once, per_axis, sites_parts
from padrewrite.reporting.text import recorded

MODEL = "(model)"
"""The site of findings about the model as a whole."""

SHOWN = 5
"""Different messages of one code that are shown; ``full`` shows all."""

NAMED = 3
"""Sites of one message that are named; ``full`` names all."""

_STYLES = {"warning": "bold yellow", "note": "cyan"}
_LABEL = 9


def analysis_text(analysis: Analysis, full: bool = False) -> str:
    """An analysis as plain text of at most 100 columns."""
    return plain_text(analysis_parts(analysis, full=full))


def analysis_parts(analysis: Analysis, width: int = WIDTH, full: bool = False) -> Iterator[RenderableType]:
    """Heading, totals, outputs, findings (warnings first), dilated chains, with ``full`` every convolution, notes."""
    whole = totals(analysis)
    yield Text(_heading(analysis), style="bold", overflow="fold")
    yield _totals(analysis, whole, width)
    outputs = outputs_text(analysis)
    if outputs is not None:
        yield grid([("output".ljust(_LABEL), outputs)], width, least=(0, 20), fold=(1,))
    yield Text("-" * width, style="dim")
    if analysis.findings:
        yield from _findings(analysis, width, full)
    else:
        yield Text(_nothing_found(analysis), style="green", overflow="fold")
    if analysis.chains:
        yield Text()
        yield from _chains(analysis, width)
    if full and analysis.sites:
        yield Text("-" * width, style="dim")
        yield from sites_parts(analysis.sites.values(), width)
    if analysis.notes:
        yield grid([("note".ljust(_LABEL), note) for note in analysis.notes], width, least=(0, 20), fold=(1,))


def _heading(analysis: Analysis) -> str:
    words = (f"padrewrite {VERSION}", analysis.model, f"recorded: {recorded(analysis)}")
    return "  ".join(map(clean, (*words, f"input {analysis.input or 'none'}")))


_TOTALS = ("convolutions", "parameters", "MACs", "output stride", "receptive field", "input", "warnings", "notes")


def _totals(analysis: Analysis, whole: Totals, width: int) -> RenderableType:
    row: tuple[Cell, ...] = (
        str(whole.convolutions),
        count_text(whole.parameters),
        count_text(whole.macs),
        _stride(whole),
        _field(whole),
        _input_size(analysis, whole),
        Text(str(whole.warnings), style=_STYLES["warning"] if whole.warnings else "green"),
        str(whole.notes),
    )
    bold = tuple(Text(name, style="bold") for name in _TOTALS)
    return grid([bold, row], width, least=(4, 4, 4, 13, 4, 4, 4, 4), right=range(8), fold=(3,))


def _stride(whole: Totals) -> str:
    """That of the last convolution, and the coarsest if it was coarser before."""
    last, coarsest = once(whole.output_stride), once(whole.coarsest_stride)
    return last if last == coarsest else f"{last} (coarsest {coarsest})"


def _field(whole: Totals) -> str:
    """The largest receptive field, or what it is at least."""
    text = per_axis(whole.receptive_field)
    return text if whole.receptive_field is None or whole.receptive_field_complete else f">= {text}"


def _input_size(analysis: Analysis, whole: Totals) -> str:
    """The spatial size of the input, where there is one input that is all numbers."""
    shape = (analysis.input or "").split("x")
    if whole.receptive_field is None or not all(part.isdigit() for part in shape):
        return "-"
    return per_axis([int(part) for part in shape[-len(whole.receptive_field) :]])


def _nothing_found(analysis: Analysis) -> str:
    if analysis.calls is None:
        return "No findings in the windows alone. Everything else needs example inputs."
    return "No findings."


def _findings(analysis: Analysis, width: int, full: bool) -> Iterator[RenderableType]:
    """Three columns: severity and how many, code, message; below the message where it is and what cures it."""
    rows: list[tuple[Cell, ...]] = []
    indent = max(len(finding.code) for finding in analysis.findings)
    for (severity, code), members in groupby(_by_severity(analysis.findings), lambda f: (f.severity, f.code)):
        found = list(members)
        label = Text(severity if len(found) == 1 else f"{severity} {len(found)}", style=_STYLES[severity])
        heads = [label, Text(code, style="bold")]
        for name, text in _code_rows(found, analysis, full):
            head = heads or [Text(), Text(name.rjust(indent), style="dim")]
            rows.append((*head, text))
            heads = []
    yield grid(rows, width, least=(0, 12, 30), fold=(1, 2))
    yield Text("docs/findings/ has a page for each: what it means, when it is harmless, what cures it", style="dim")


def _by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Warnings first, each code in one stretch, codes in the order in which they first occur."""
    codes = list(dict.fromkeys(finding.code for finding in findings))
    return sorted(findings, key=lambda f: (f.severity != "warning", codes.index(f.code)))


def _code_rows(findings: Sequence[Finding], analysis: Analysis, full: bool) -> Iterator[tuple[str, Text]]:
    """Message and place of everything found under one code; a cure that is the same for all stands at the end."""
    groups: dict[tuple[str, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.message, finding.cure), []).append(finding)
    cures = {finding.cure for finding in findings}
    shown = list(groups.items())[: None if full else SHOWN]
    for (message, cure), members in shown:
        yield "", Text(clean(message))
        where = _where(members, analysis, full)
        if where:
            yield "at", Text(where, style="dim")
        if cure and len(cures) > 1:
            yield "cure", Text(cure_text(cure), style="green")
    if len(groups) > len(shown):
        rest = sum(len(members) for members in list(groups.values())[len(shown) :])
        yield "", Text(f"and {rest} more: ask for the full table", style="dim")
    if len(cures) == 1 and findings[0].cure:
        yield "cure", Text(cure_text(findings[0].cure), style="green")


def cure_text(cure: str) -> str:
    """The pass, and whether it is not there: findings name the passes of the catalogue, installed or not."""
    missing = "" if cure.partition("{")[0] in known_passes() else " (no such pass is installed)"
    return clean(cure) + missing


def _where(findings: Sequence[Finding], analysis: Analysis, full: bool) -> str:
    """Sites with the line that calls them; the line once if it is the same for all."""
    places: dict[str, str | None] = {}
    for finding in findings:
        for site in finding.sites or (finding.site,):
            record = analysis.sites.get(site)
            own = finding.source if site == finding.site else None
            places[site] = own if record is None else record.source
    places.pop(MODEL, None)
    lines = set(places.values())
    shown = list(places.items())[: None if full else NAMED]
    same = len(lines) == 1
    texts = [site if same or not source else f"{site} ({source})" for site, source in shown]
    more = f" and {len(places) - len(shown)} more" if len(places) > len(shown) else ""
    line = lines.pop() if same else None
    return clean(", ".join(texts) + more + (f" ({line})" if line else ""))


_CHAIN = ("dilated chain", "rates", "M_2", "kernel", "covers", "score", "networks")


def _chains(analysis: Analysis, width: int) -> Iterator[RenderableType]:
    """Two rows per chain: by itself, and with the convolutions of rate 1 before it."""
    groups: list[Group] = []
    for chain in analysis.chains:
        title = Text(f"{clean(chain.sites[0])} to {clean(chain.sites[-1])}", style="bold")
        title.append(f"  {len(chain.sites)} convolutions{_axes(chain, analysis)}", style="not bold")
        rows = [_gridding("alone", chain.alone)]
        if chain.lead_in:
            rows.append(_gridding(f"with {len(chain.lead_in)} before it", chain.with_lead_in))
        groups.append((title, rows))
    yield from aligned(_CHAIN, groups, width, least=(12, 6, 0, 0, 0, 0, 0), right=(2, 3, 5, 6))
    yield Text("M_2 should be at most the kernel; score: 0 even, 1 split into networks that never meet", style="dim")


def _axes(chain: Chain, analysis: Analysis) -> str:
    """The dimensions of what it reads, unless the chain's numbers hold for all."""
    first = chain.sites[0]
    rank = analysis.sites[first].op.window.rank
    lead = len(analysis.nodes[first].shape) - rank if first in analysis.nodes else 2
    return "" if len(chain.axes) == rank else f" along dimension {' and '.join(str(lead + a) for a in chain.axes)}"


def _gridding(name: str, numbers: Gridding) -> tuple[Cell, ...]:
    covers = Text("all", style="green") if numbers.hole_free else Text("holes", style="yellow")
    networks = str(numbers.networks) + (" per axis" if numbers.networks > 1 else "")
    m2 = Text(str(numbers.m2), style="yellow" if numbers.m2 > max(numbers.kernels) else "")
    kernels = once(numbers.kernels) if len(set(numbers.kernels)) == 1 else runs(numbers.kernels)
    return (name, runs(numbers.rates), m2, kernels, covers, f"{numbers.score:.3f}", networks)


def runs(numbers: Sequence[int]) -> str:
    """``1(x4),2(x6)``: equal neighbours once, with how many they are."""
    found = [(number, len(list(group))) for number, group in groupby(numbers)]
    if len(found) == 1:
        return str(found[0][0]) if len(numbers) == 1 else f"{found[0][0]}(x{len(numbers)})"
    return ",".join(str(number) if many == 1 else f"{number}(x{many})" for number, many in found)
