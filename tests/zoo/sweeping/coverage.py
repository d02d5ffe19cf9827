"""docs/coverage.md: what of the zoo is recorded, decided, rewritten and verified, and what is refused or fails."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from .rows import COUNT, EAGER, RECORD, PassRow, Row

HEAD = """# Coverage

Written by `make zoo`, not by hand. Each network is built with random weights, in eval mode, and goes through every
step: its convolutions are counted at the dispatcher; it is recorded, and the graph, run without the engine, is
compared with eager (at other values too, if sizes were recorded symbolically); it is analysed; and each pass is
planned (one decision per counted convolution), applied, verified in float64 and reverted to the very numbers of the
original. A step that fails is listed here.

A pass's column reads *rewritten / kept / refused* in convolution calls, *+ n* for pools rewritten with them, then the
largest absolute error of its checks, rounded up to a power of ten, and `full` where the whole network was checked end
to end besides each convolution. Errors are allowed 1e-10 of the largest value that is compared.
`boundary-refinement{at=...}` refines one convolution: the last to run that is not transposed.

Feature extractors at output strides 16 and 8, at three sizes each, have a page of their own:
[output-stride](output-stride.md).
"""


def coverage_page(rows: Sequence[Row], missing: Sequence[str] = (), state: str = "") -> str:
    """The page as Markdown, the same text for the same rows in any order.

    Args:
        missing: networks of the catalogue that have no row.
        state: the hash of the sources that all rows were made with.
    """
    ordered = sorted(rows, key=lambda row: (row.package, row.name))
    sections = [HEAD, f"Everything here was measured with the sources of hash `{state}`, and with no others.\n"]
    sections += ["## Totals\n", "\n".join(f"* {line}" for line in totals(ordered)), "\n## Networks\n"]
    sections += [_networks(ordered), "\n## Kept, by code\n", _kept(ordered)]
    sections += ["\n## Refused\n", _refused(ordered), "\n## Failed\n", _failed(ordered)]
    sections += [
        "\n## Recorded with a note\n",
        _notes((note, row.name) for row in ordered for note in row.notes),
    ]
    unchecked = ((f"`{p.name}`: {note}", row.name) for row in ordered for p in row.passes for note in p.notes)
    sections += ["\n## Not verified in full\n", _notes(unchecked)]
    sections += ["\n## Where spatial reasoning ended\n", _ended(ordered)]
    if missing:
        why = f"This page has no row for {len(missing)} of the catalogue's {len(rows) + len(missing)} networks: "
        why += "the run that wrote it ended before them.\n"
        sections += ["\n## Not measured\n", why, ", ".join(sorted(missing))]
    return "\n".join(sections).rstrip() + "\n"


def totals(rows: Sequence[Row]) -> list[str]:
    """The sums, a line each."""
    counted = sum(row.convolutions or 0 for row in rows)
    how = Counter(row.how for row in rows if row.how)
    equal = sum(row.difference is not None and not _fails(row, EAGER) for row in rows)
    ways = ", ".join(f"{count} {way}" for way, count in sorted(how.items()))
    lines = [
        f"{len(rows)} networks, {counted} convolution calls",
        f"{sum(how.values())} recorded ({ways or 'none'}), {equal} equal to eager",
        f"{sum(row.analysis is not None for row in rows)} analysed",
    ]
    for name in pass_names(rows):
        found = [p for row in rows for p in row.passes if p.name == name]
        sites = " / ".join(str(sum(getattr(p, s) for p in found)) for s in ("rewritten", "kept", "refused"))
        went = sum(p.done for p in found)
        full = sum(p.level == "full" for p in found)
        lines.append(
            f"`{name}`: {went} networks without a failure, {full} end to end; "
            f"rewritten / kept / refused: {sites} convolutions"
        )
    lines.append(f"{sum(bool(row.failures) for row in rows)} networks with a failure")
    return lines


def pass_names(rows: Iterable[Row]) -> list[str]:
    """Every pass that some network met, sorted."""
    return sorted({p.name for row in rows for p in row.passes})


def _fails(row: Row, *steps: str) -> bool:
    return any(failure.step in steps for failure in row.failures)


def _networks(rows: Sequence[Row]) -> str:
    names = pass_names(rows)
    head = ["network", "package", "input", "convs", "recorded", "equal", "findings", *names, "failed"]
    return table(head, [_network(row, names) for row in rows])


def _network(row: Row, names: Sequence[str]) -> list[str]:
    passes = {p.name: p for p in row.passes}
    return [
        row.name,
        row.package,
        row.input,
        "" if row.convolutions is None else str(row.convolutions),
        row.how or ("no" if _fails(row, RECORD, COUNT) else ""),
        "" if row.difference is None else "no" if _fails(row, EAGER) else "yes",
        "" if row.analysis is None else str(len(row.analysis.findings)),
        *(_pass(passes[name]) if name in passes else "" for name in names),
        ", ".join(sorted({failure.step for failure in row.failures})),
    ]


def _pass(p: PassRow) -> str:
    if p.rewritten + p.kept + p.refused == 0 and not p.done:
        return "no plan"
    counts = f"{p.rewritten} / {p.kept} / {p.refused}" + (f" + {p.others}" if p.others else "")
    if not p.level:
        return counts
    return " ".join([counts, bound(p.worst), *(["full"] if p.level == "full" else [])])


def bound(error: float | None) -> str:
    """An error rounded up to a power of ten; the last digits differ between machines."""
    if error is None:
        return "nothing compared"
    return "0" if error == 0 else f"1e{math.ceil(math.log10(error))}"


def _kept(rows: Sequence[Row]) -> str:
    """Per pass and code: how many convolutions, in how many networks."""
    lines: list[list[str]] = []
    for name in pass_names(rows):
        found = [p.kept_codes or {} for row in rows for p in row.passes if p.name == name]
        for code in sorted({code for codes in found for code in codes}):
            counts = [codes[code] for codes in found if code in codes]
            lines.append([f"`{name}`", f"`{code}`", str(sum(counts)), str(len(counts))])
    return table(["pass", "code", "convolutions", "networks"], lines) if lines else "Nothing."


def _refused(rows: Sequence[Row]) -> str:
    """Per pass and code: how many convolutions, one of them with its reason, and the networks."""
    lines: list[list[str]] = []
    for name in pass_names(rows):
        found = [(row.name, r) for row in rows for p in row.passes if p.name == name for r in p.refusals]
        for code in sorted({r.code for _, r in found}):
            of = [(network, r) for network, r in found if r.code == code]
            network, first = min(of, key=lambda pair: (pair[0], pair[1].site))
            example = f"{network} `{first.site}`: {first.reason}"
            lines.append([f"`{name}`", f"`{code}`", str(len(of)), example, counted(n for n, _ in of)])
    return table(["pass", "code", "convolutions", "for example", "networks"], lines) if lines else "Nothing."


def _failed(rows: Sequence[Row]) -> str:
    lines = [[row.name, f.step, f.error, f.message] for row in rows for f in row.failures]
    return table(["network", "step", "error", "message"], lines) if lines else "Nothing."


def _notes(pairs: Iterable[tuple[str, str]]) -> str:
    by_note: dict[str, list[str]] = defaultdict(list)
    for note, network in pairs:
        by_note[note].append(network)
    lines = [[note, counted(networks)] for note, networks in sorted(by_note.items())]
    return table(["note", "networks"], lines) if lines else "Nothing."


def _ended(rows: Sequence[Row]) -> str:
    """Why, with how many convolutions lie behind it in each network; and what else the analysis notes."""
    pairs = [(r.name, r.analysis) for r in rows if r.analysis is not None]
    reasons = (
        (why, name) for name, a in pairs for why, sites in (a.ended or {}).items() for _ in range(sites)
    )
    notes = ((note, name) for name, a in pairs for note in a.notes)
    return _notes([*reasons, *notes])


def counted(names: Iterable[str]) -> str:
    """Names with how often they occur, if more than once."""
    return ", ".join(n if c == 1 else f"{n} ({c})" for n, c in sorted(Counter(names).items()))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in [head, rule, *lines])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
