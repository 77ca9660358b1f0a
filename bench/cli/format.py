"""How numbers are printed: percent with two decimals, as on RobustBench."""

from __future__ import annotations

from bench.records import Interval


def percent(fraction: float | None) -> str:
    """A fraction as percent; a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.2f}%"


def interval(bounds: Interval) -> str:
    """A 95% confidence interval as percent."""
    return f"[{100 * bounds.low:.2f}, {100 * bounds.high:.2f}]"
