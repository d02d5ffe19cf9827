"""Find, explain, rewrite and verify the spatial choices of every convolution in a PyTorch model."""

from padrewrite import errors, formulas, nn, ops
from padrewrite.__about__ import VERSION as __version__
from padrewrite.analyses.analysis import Analysis, Finding
from padrewrite.checks.verification import Verification
from padrewrite.contracts import Contract, Evidence
from padrewrite.emitting.backend import compile_model as compile
from padrewrite.graph import Graph, Site
from padrewrite.pipeline import analyze, apply, plan, record, report, revert, transform, verify
from padrewrite.plans import Decision, Plan
from padrewrite.reporting.reports import Report
from padrewrite.rewriting import Check, Match, Pass

__all__ = [
    "Analysis",
    "Check",
    "Contract",
    "Decision",
    "Evidence",
    "Finding",
    "Graph",
    "Match",
    "Pass",
    "Plan",
    "Report",
    "Site",
    "Verification",
    "__version__",
    "analyze",
    "apply",
    "compile",
    "errors",
    "formulas",
    "nn",
    "ops",
    "plan",
    "record",
    "report",
    "revert",
    "transform",
    "verify",
]
