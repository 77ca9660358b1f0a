"""Pages that show what the store holds; nothing here runs a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.report.build import build_report, page_name

__all__ = ["build_report", "page_name"]


def __getattr__(name: str) -> Any:
    """Import what writes pages when it is used: it needs matplotlib, which tables do not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bench.report import build

    return getattr(build, name)
