"""Reports for people and machines: plain text of at most 100 columns, rich renderables, JSON."""

from __future__ import annotations

from padrewrite.reporting.reports import Report
from padrewrite.reporting.text import plan_text, report_text, verification_text

__all__ = ["Report", "plan_text", "report_text", "verification_text"]
