from padrewrite.reporting.reports import Report as Report
