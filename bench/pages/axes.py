"""What scatter plots of accuracies share: limits of the axes, error bars, and the legend."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.store.summary import Summary

Point = tuple[float, float]
"""In the units of the axes: clean and robust accuracy in percent."""
LEGEND_COLUMNS = 5
LEAST_SPAN = 10.0
"""The least length of an axis, in points of accuracy."""


def percent_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that shows all of `values`, percentages, with some room.

    It ends at 0 and 100, or a little beyond, so that marks there are whole. A few values close
    together do not fill it, or their differences would look larger than their errors.
    """
    span = max(values) - min(values)
    margin = max(0.06 * span, (LEAST_SPAN - span) / 2, 1.0)
    low, high = max(min(values) - margin, 0.0), min(max(values) + margin, 100.0)
    beyond = 0.02 * (high - low)
    return (low - beyond if low == 0 else low), (high + beyond if high == 100 else high)


def measured_point(summary: Summary) -> Point:
    """Return a run's clean and robust accuracy, in percent."""
    return 100 * summary.clean_accuracy, 100 * summary.robust_accuracy


def interval_bars(summary: Summary) -> list[list[Point]]:
    """Return both ends of the clean and of the robust accuracy's interval."""
    x, y = measured_point(summary)
    clean = summary.confidence_intervals["clean_accuracy"]
    robust = summary.confidence_intervals["robust_accuracy"]
    return [
        [(100 * clean.low, y), (100 * clean.high, y)],
        [(x, 100 * robust.low), (x, 100 * robust.high)],
    ]


def draw_legend(
    axes: Axes, handles: Sequence[tuple[Line2D, str]], columns: int = LEGEND_COLUMNS
) -> None:
    """Draw a legend of marks and their texts above the axes."""
    axes.legend(
        [each for each, _ in handles],
        [text for _, text in handles],
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        fontsize=9,
        handletextpad=0.4,
        columnspacing=1.6,
        borderaxespad=0.2,
    )
