"""Findings as SARIF 2.1.0 (OASIS standard), for code scanning services and editors.

Each code is a rule, each finding a result. Its physical location is the calling line, or the model's definition where
no line of a file makes the call: services refuse results without one. Files below the working directory are relative
to it, others are absolute. The logical location is the convolution call in the module tree. The pages that explain the
codes are relative to the project, and ``helpUri`` takes absolute URIs only: ``help`` names them as text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from padrewrite.__about__ import VERSION
from padrewrite.analyses.analysis import Analysis, Finding
from padrewrite.analyses.findings import CODES
from padrewrite.codec import encode
from padrewrite.reporting.analysis import MODEL, cure_text
from padrewrite.source import Source

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_BASE = "%SRCROOT%"


def sarif(analysis: Analysis, definition: Source | None = None) -> dict[str, Any]:
    """A SARIF log with one run; equal for equal analyses in the same working directory.

    Args:
        definition: where the model is defined; the place of every finding that has none of its own.
    """
    rules = list(CODES)
    results = [_result(finding, rules.index(finding.code), analysis, definition) for finding in analysis.findings]
    _tell_apart(results)
    driver = {"name": "padrewrite", "version": VERSION, "semanticVersion": VERSION, "rules": [*map(_rule, rules)]}
    about = {"model": analysis.model, "input": analysis.input, "recorded": analysis.how, "calls": analysis.calls}
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {_BASE: {"uri": _base()}},
        "results": results,
        "columnKind": "unicodeCodePoints",
        "properties": about,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    severity, meaning = CODES[code]
    sentence = _sentence(meaning)
    page = f"docs/findings/{code}.md"
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in code.split("-")),
        "shortDescription": {"text": sentence},
        "help": {"text": f"{sentence} See {page}.", "markdown": f"{sentence} See `{page}`."},
        "defaultConfiguration": {"level": severity},
    }


def _result(finding: Finding, rule: int, analysis: Analysis, definition: Source | None) -> dict[str, Any]:
    others = [site for site in dict.fromkeys(finding.sites) if site != finding.site]
    sources = {site: _source(site, analysis) for site in (finding.site, *others)}
    places = (finding.source, *sources.values(), definition)
    related = [{"id": i, **_location(site, [sources[site]], analysis)} for i, site in enumerate(others)]
    return {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": finding.severity,
        "message": {"text": _message(finding)},
        "locations": [_location(finding.site, places, analysis)],
        **({"relatedLocations": related} if related else {}),
        "partialFingerprints": {"codeAndSite/v1": f"{finding.code}@{finding.site}"},
        "properties": {"numbers": encode(finding.numbers), **({"cure": finding.cure} if finding.cure else {})},
    }


def _tell_apart(results: Iterable[dict[str, Any]]) -> None:
    """Numbers the second and later results with the code and the site of an earlier one: services drop equal ones."""
    seen = Counter[str]()
    for prints in (result["partialFingerprints"] for result in results):
        (name, text), = prints.items()
        seen[text] += 1
        if seen[text] > 1:
            prints[name] = f"{text}#{seen[text]}"


def _message(finding: Finding) -> str:
    """The site first: that is all a reader may see of the place where the calling line is not known."""
    text = _sentence(finding.message) if finding.site == MODEL else f"{finding.site}: {_stopped(finding.message)}"
    cure = f" Cure: {cure_text(finding.cure)}." if finding.cure else ""
    return text + cure


def _source(site: str, analysis: Analysis) -> str | None:
    record = analysis.sites.get(site)
    return None if record is None else record.source


def _location(site: str, sources: Iterable[str | None], analysis: Analysis) -> dict[str, Any]:
    """The first of ``sources`` whose file is known and there, and the call in the module tree."""
    known = next((s for s in sources if isinstance(s, Source) and Path(s.path).is_file()), None)
    physical: dict[str, Any] = {}
    if known is not None:
        place = {"artifactLocation": _artifact(known.path), "region": {"startLine": known.line}}
        physical = {"physicalLocation": place}
    return {**physical, "logicalLocations": [_logical(site, analysis)]}


def _artifact(path: str) -> dict[str, str]:
    uri, base = Path(path).as_uri(), _base()
    return {"uri": uri.removeprefix(base), "uriBaseId": _BASE} if uri.startswith(base) else {"uri": uri}


def _base() -> str:
    """The working directory; a base ends with a slash."""
    return (Path.cwd() / "_").as_uri().removesuffix("_")


def _logical(site: str, analysis: Analysis) -> dict[str, Any]:
    if site == MODEL:
        return {"name": analysis.model, "fullyQualifiedName": analysis.model, "kind": "type"}
    module, _, call = site.partition("#")
    name, kind = (call, "function") if call else (module.rpartition(".")[2], "member")
    return {"name": name, "fullyQualifiedName": site, "kind": kind}


def _sentence(text: str) -> str:
    return text[:1].upper() + _stopped(text[1:])


def _stopped(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
