"""``padrewrite analyze``: what to show, what to write, and which findings count as such."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator

from torch import nn

from padrewrite.analyses.analysis import Analysis, Finding
from padrewrite.cli.loading import definition_of
from padrewrite.cli.printing import show
from padrewrite.reporting.analysis import analysis_parts
from padrewrite.reporting.sarif import sarif


def show_analysis(args: Namespace, analysis: Analysis) -> None:
    if args.json:
        print(analysis.to_json())
    else:
        show(lambda width: analysis_parts(analysis, width, args.full))


def files(args: Namespace, analysis: Analysis, model: nn.Module) -> Iterator[tuple[str, str]]:
    """(path, content) of every file that was asked for."""
    if args.output:
        yield args.output, analysis.to_json()
    if args.sarif:
        yield args.sarif, json.dumps(sarif(analysis, definition_of(args.model, model)), indent=1, allow_nan=False)


def warnings(analysis: Analysis) -> list[Finding]:
    """What ``--strict`` fails on; notes are worth knowing and nothing more."""
    return [finding for finding in analysis.findings if finding.severity == "warning"]
