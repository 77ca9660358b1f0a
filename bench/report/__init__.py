"""Pages that show what the store holds; nothing here runs a model."""

from bench.report.build import build_report

__all__ = ["build_report"]
