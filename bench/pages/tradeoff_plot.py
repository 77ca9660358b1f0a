"""Draw the trade-off: robust against clean accuracy of measured candidates and published models."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.claims import Claim
from bench.formatting import percent
from bench.pages.axes import Point, draw_legend, interval_bars, measured_point, percent_limits
from bench.pages.labels import Label, place_labels
from bench.pages.leaderboard import Entry
from bench.pages.pareto import pareto_front
from bench.pages.svg import ROLES, Drawing, drawing, printable


def tradeoff_plot(entries: Sequence[Entry], claims: Sequence[Claim], identifier: str) -> Markup:
    """Draw ranked candidates with their 95% intervals over the published models.

    Args:
        entries: at least one entry.
        claims: published models under the same threat model.
        identifier: unique on the page.

    Returns:
        an <svg> element.
    """
    with drawing(12.6, 6.8) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(left=0.052, right=0.99, bottom=0.08, top=0.915)
        published = [_published_point(claim) for claim in claims]
        measured = [measured_point(entry.summary) for entry in entries]
        bars = [bar for entry in entries for bar in interval_bars(entry.summary)]
        _set_limits(axes, [end for bar in bars for end in bar], published)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.set_xlabel("Clean accuracy (%)")
        axes.set_ylabel("Robust accuracy (%)")
        _draw_published(sketch, claims, published)
        _draw_front(axes, measured, "measured", "-")
        for entry, point in zip(entries, measured, strict=True):
            _draw_measured(sketch, entry, point)
        place_labels(sketch, _labels(entries), bars, published)
        hidden = sum(not _in_view(axes, point) for point in published)
        _draw_legend(sketch, entries, claims, hidden)
        return sketch.to_svg(identifier, _describe(entries, claims))


def _published_point(claim: Claim) -> Point:
    return 100 * (claim.clean_accuracy or 0), 100 * (claim.best_known_accuracy or 0)


def _set_limits(axes: Axes, measured: Sequence[Point], published: Sequence[Point]) -> None:
    """Show all measured points, and published ones except outliers far below the rest."""
    for axis, set_limits in ((0, axes.set_xlim), (1, axes.set_ylim)):
        values = [point[axis] for point in measured]
        others = [point[axis] for point in published]
        fence = _lower_fence(others)
        values += [value for value in others if value >= fence]
        set_limits(*percent_limits(values))


def _lower_fence(values: Sequence[float]) -> float:
    """Return Tukey's outer fence: three interquartile ranges below the first quartile."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4)
    return first - 3 * (third - first)


def _in_view(axes: Axes, point: Point) -> bool:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return left <= point[0] <= right and bottom <= point[1] <= top


def _draw_published(sketch: Drawing, claims: Sequence[Claim], points: Sequence[Point]) -> None:
    _draw_front(sketch.axes, points, "published-front", (0, (4, 3)))
    for claim, (x, y) in zip(claims, points, strict=True):
        if not _in_view(sketch.axes, (x, y)):
            continue
        (dot,) = sketch.axes.plot(
            [x],
            [y],
            marker="x" if claim.unreliable else "o",
            markersize=5.0 if claim.unreliable else 4.5,
            color=ROLES["published"],
            markeredgewidth=1.2 if claim.unreliable else 0.0,
            linestyle="none",
        )
        doubt = ", called unreliable" if claim.unreliable else ""
        sketch.set_title(
            dot,
            f"{claim.model_id} (published{doubt}): clean {percent(claim.clean_accuracy)}, "
            f"robust {percent(claim.best_known_accuracy)}",
        )


def _draw_front(axes: Axes, points: Sequence[Point], role: str, style: object) -> None:
    """Draw the Pareto front as a staircase, without interpolation."""
    corners = [points[index] for index in pareto_front(points)]
    if not corners:
        return
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    x = [left, *(corner[0] for corner in corners), corners[-1][0]]
    y = [corners[0][1], *(corner[1] for corner in corners), bottom]
    axes.plot(
        x, y, drawstyle="steps-pre", color=ROLES[role], linewidth=1.2, linestyle=style, alpha=0.55
    )


def _draw_measured(sketch: Drawing, entry: Entry, point: Point) -> None:
    color = _color(entry)
    for ends, cap in zip(interval_bars(entry.summary), "|_", strict=True):
        sketch.axes.plot(
            [x for x, _ in ends],
            [y for _, y in ends],
            color=color,
            linewidth=1.6,
            marker=cap,
            markersize=6.0,
            markeredgewidth=1.6,
        )
    (dot,) = sketch.axes.plot(
        [point[0]],
        [point[1]],
        marker="D" if entry.summary.flags else "o",
        markersize=7.0 if entry.summary.flags else 8.0,
        markerfacecolor=color if entry.on_front else ROLES["surface"],
        markeredgecolor=color,
        markeredgewidth=1.6,
        linestyle="none",
        zorder=5,
    )
    sketch.set_title(
        dot,
        f"{entry.manifest.candidate}: clean {percent(entry.summary.clean_accuracy)}, "
        f"robust {percent(entry.summary.robust_accuracy)}",
    )


def _color(entry: Entry) -> str:
    return ROLES["flagged" if entry.summary.flags else "measured"]


def _labels(entries: Sequence[Entry]) -> list[Label]:
    """Return the labels, the most important first; ranks replace names where there is no room."""
    ordered = sorted(entries, key=lambda entry: (not entry.on_front, not entry.summary.flags))
    return [
        Label(
            measured_point(entry.summary),
            name=printable(entry.manifest.candidate.removeprefix("robustbench:")),
            short=str(entry.rank),
            color=_color(entry),
        )
        for entry in ordered
    ]


def _draw_legend(
    sketch: Drawing, entries: Sequence[Entry], claims: Sequence[Claim], hidden: int
) -> None:
    def handle(**style: Any) -> Line2D:
        return Line2D([], [], **{"linestyle": "none", **style})

    blue, grey = ROLES["measured"], ROLES["published"]
    handles = [
        (handle(marker="o", color=blue, markersize=7), "measured, on the Pareto front"),
    ]
    if any(not entry.on_front for entry in entries):
        hollow = handle(
            marker="o",
            markeredgecolor=blue,
            markerfacecolor=ROLES["surface"],
            markersize=7,
            markeredgewidth=1.6,
        )
        handles.append((hollow, "measured, behind it"))
    line = handle(color=blue, linestyle="-", linewidth=1.2, alpha=0.55)
    handles.append((line, "measured Pareto front"))
    if any(entry.summary.flags for entry in entries):
        handles.append((handle(marker="D", color=ROLES["flagged"], markersize=6), "flagged"))
    if claims:
        outside = f", {hidden} of them outside" if hidden else ""
        dot = handle(marker="o", color=grey, markersize=4.5)
        handles.append((dot, f"published (RobustBench{outside})"))
        if any(claim.unreliable for claim in claims):
            cross = handle(marker="x", color=grey, markersize=5)
            handles.append((cross, "published, called unreliable"))
        line = handle(color=ROLES["published-front"], linestyle=(0, (4, 3)), linewidth=1.2)
        handles.append((line, "published Pareto front"))
    draw_legend(sketch.axes, handles)


def _describe(entries: Sequence[Entry], claims: Sequence[Claim]) -> str:
    names = ", ".join(
        f"{entry.manifest.candidate} {percent(entry.summary.clean_accuracy)} clean, "
        f"{percent(entry.summary.robust_accuracy)} robust"
        for entry in entries[:8]
    )
    more = f" and {len(entries) - 8} more" if len(entries) > 8 else ""
    behind = f", before {len(claims)} published models" if claims else ""
    return f"Scatter plot of robust against clean accuracy in percent: {names}{more}{behind}."
