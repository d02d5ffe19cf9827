"""docs/zoo-findings.md: which findings real networks have, and which networks have them."""

from __future__ import annotations

from collections.abc import Sequence

from .coverage import counted, table
from .rows import Finding, Row

HEAD = """# Findings in the zoo

Written by `make zoo`, not by hand: what `padrewrite.analyze` says about every network of [coverage.md](coverage.md).
A site counts once for a code, however many findings of that code it has. The inputs are small, often smaller than
what a network is made for, so findings that depend on the size, unused weights first of all, are commoner here.
"""


def findings_page(rows: Sequence[Row]) -> str:
    """The page as Markdown, the same text for the same rows in any order."""
    ordered = sorted(rows, key=lambda row: (row.package, row.name))
    analysed = [row for row in ordered if row.analysis is not None]
    if not analysed:
        return f"{HEAD}\nNo network was analysed.\n"
    found = [(row.name, finding) for row in analysed if row.analysis for finding in row.analysis.findings]
    clean = [row.name for row in analysed if row.analysis and not row.analysis.findings]
    codes = sorted({finding.code for _, finding in found})
    parts = [HEAD, f"{len(analysed)} of {len(ordered)} networks were analysed.\n"]
    parts.append(
        table(["finding", "severity", "networks", "sites"], [_summed(code, found) for code in codes])
    )
    for code in codes:
        parts.append(_section(code, found))
    parts.append(f"\n## Without any finding\n\n{', '.join(clean) or 'None.'}")
    failed = [row.name for row in ordered if row.analysis is None]
    if failed:
        parts.append(f"\n## Not analysed\n\n{', '.join(failed)}")
    return "\n".join(parts).rstrip() + "\n"


def _summed(code: str, found: Sequence[tuple[str, Finding]]) -> list[str]:
    mine = [(network, f) for network, f in found if f.code == code]
    severity = ", ".join(sorted({f.severity for _, f in mine}))
    sites = sites_of(mine)
    return [f"`{code}`", severity, str(len({network for network, _ in mine})), str(len(sites))]


def _section(code: str, found: Sequence[tuple[str, Finding]]) -> str:
    """One finding as it reads, and the networks that have it with how many sites each."""
    mine = [(network, f) for network, f in found if f.code == code]
    network, first = min(mine, key=lambda pair: (pair[0], pair[1].site, pair[1].message))
    example = f"For example {network} `{first.site}`: {first.message}"
    sites = sorted(sites_of(mine))
    return f"\n## `{code}`\n\n{example}\n\n{counted(network for network, _ in sites)}"


def sites_of(found: Sequence[tuple[str, Finding]]) -> set[tuple[str, str]]:
    """(network, site) for every site that the findings are about."""
    return {(network, site) for network, f in found for site in (f.sites or (f.site,))}
