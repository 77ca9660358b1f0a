"""Pages that show what the store holds; nothing here runs a model."""

from bench.report.build import build_report, page_name

__all__ = ["build_report", "page_name"]
