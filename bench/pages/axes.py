"""What part of the percentages a drawing shows."""

from __future__ import annotations

from collections.abc import Sequence


def percent_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that shows all of `values`, percentages, with some room.

    It ends at 0 and 100, or a little beyond, so that marks there are whole.
    """
    margin = max(0.06 * (max(values) - min(values)), 1.0)
    low, high = max(min(values) - margin, 0.0), min(max(values) + margin, 100.0)
    beyond = 0.02 * (high - low)
    return (low - beyond if low == 0 else low), (high + beyond if high == 100 else high)
