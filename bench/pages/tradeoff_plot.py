"""Draw the trade-off: robust against clean accuracy of measured candidates and published models."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.formatting import percent
from bench.pages.addresses import link, suite_page
from bench.pages.axes import LEGEND_COLUMNS, Point, draw_legend, percent_limits
from bench.pages.labels import Label, place_labels
from bench.pages.mixes import mix_of
from bench.pages.pareto import pareto_front
from bench.pages.rows import Row, RowKind
from bench.pages.svg import ROLES, WIDE, Drawing, drawing, printable
from bench.store.summary import SweepPoint, SweepSummary

MOST_LABELS = 30
"""Further points have no label: their names are shown when the pointer rests on them."""
WIDEST_INTERVAL = 30.0
"""Wider intervals, in points, do not decide the limits of the axes."""


@dataclass(frozen=True)
class Look:
    """How points of one kind are drawn and named in the legend."""

    marker: str
    role: str
    is_filled: bool
    title: str


LOOKS: dict[RowKind, Look] = {
    "full": Look("o", "measured", True, "measured"),
    "partial": Look("o", "measured", False, "measured on a part of the images"),
    "express": Look("v", "measured", False, "express (upper bound)"),
    "certified": Look("^", "certified", False, "certified (lower bound)"),
}
"""By kind, the most important first. Triangles point to where the accuracy may be."""


def tradeoff_plot(
    suite: str,
    rows: Sequence[Row],
    sweeps: Sequence[SweepSummary],
    identifier: str,
    width: float = WIDE,
) -> Markup:
    """Draw the measured candidates with their 95% intervals and sweeps over the published models.

    Args:
        suite: the suite's name, to whose page the drawing belongs.
        rows: at least one measured or published row.
        sweeps: sweeps of mixes under the same threat model.
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    measured, published = _measured(rows), _published(rows)
    columns = LEGEND_COLUMNS if width == WIDE else 2
    with drawing(width, 6.8) as sketch:
        axes = sketch.axes
        handles = _legend(measured, published, sweeps)
        top = 1 - (0.12 + 0.22 * math.ceil(len(handles) / columns)) / 6.8
        sketch.figure.subplots_adjust(
            left=0.66 / width, right=1 - 0.13 / width, bottom=0.08, top=top
        )
        curves = [[_sweep_point(point) for point in run.sweep] for run in sweeps]
        points = [point for curve in curves for point in curve]
        limit_axes(axes, measured, points, [_point(row) for row in published])
        _label_axes(axes)
        _draw_published(sketch, published)
        full = [_point(row) for row in measured if row.kind == "full"]
        _draw_front(axes, full, "measured", "-")
        for run in sweeps:
            _draw_sweep(sketch, run)
        for row in reversed(measured):
            _draw_measured(sketch, suite, row)
        labels = _labels(measured)
        labels += [label for run in sweeps for label in _base_labels(run)]
        bars = [bar for row in measured for bar in _bars(row)]
        place_labels(sketch, labels, bars, [*map(_point, published), *points])
        draw_legend(axes, handles, columns)
        _note_hidden(axes, published)
        return sketch.to_svg(identifier, _describe(measured, published))


def _note_hidden(axes: Axes, published: Sequence[Row]) -> None:
    """Say how many published models lie outside of the axes."""
    hidden = sum(not _in_view(axes, _point(row)) for row in published)
    if hidden:
        text = f"{hidden} published not shown: far below the others"
        axes.annotate(
            text,
            (0, 0),
            xycoords="axes fraction",
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=9,
            color=ROLES["muted"],
        )


def thumbnail(rows: Sequence[Row], identifier: str) -> Markup:
    """Draw the same as `tradeoff_plot` small, without names; returns an <svg> element.

    Args:
        rows: at least one measured or published row.
        identifier: unique on the page.
    """
    measured, published = _measured(rows), _published(rows)
    with drawing(4.4, 2.5) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(left=0.13, right=0.985, bottom=0.2, top=0.97)
        points = [_point(row) for row in published]
        limit_axes(axes, measured, [], points)
        _label_axes(axes)
        shown = [each for each in points if _in_view(axes, each)]
        axes.plot(
            [x for x, _ in shown],
            [y for _, y in shown],
            marker="o",
            markersize=3.5,
            color=ROLES["published"],
            markeredgewidth=0,
            linestyle="none",
        )
        _draw_front(axes, [_point(row) for row in measured if row.kind == "full"], "measured", "-")
        for row in reversed(measured):
            axes.plot(*_point(row), **_marker(row, 6.0))
        return sketch.to_svg(identifier, _describe(measured, published))


def _measured(rows: Sequence[Row]) -> list[Row]:
    """Return the measured rows that can be drawn, the most important kind first."""
    order = list(LOOKS)
    drawn = [row for row in rows if row.kind in LOOKS and _is_drawn(row)]
    return sorted(drawn, key=lambda row: order.index(row.kind))


def _published(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.kind == "published" and _is_drawn(row)]


def _is_drawn(row: Row) -> bool:
    return row.clean.fraction is not None and row.height.fraction is not None


def _point(row: Row) -> Point:
    return 100 * (row.clean.fraction or 0), 100 * (row.height.fraction or 0)


def _bars(row: Row) -> list[list[Point]]:
    """Return both ends of the clean and of the robust accuracy's interval, where there is one."""
    x, y = _point(row)
    bars = []
    if row.clean.interval is not None:
        bars.append([(100 * row.clean.interval.low, y), (100 * row.clean.interval.high, y)])
    if row.height.interval is not None:
        bars.append([(x, 100 * row.height.interval.low), (x, 100 * row.height.interval.high)])
    return bars


def _label_axes(axes: Axes) -> None:
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.set_xlabel("Clean accuracy (%)")
    axes.set_ylabel("Robust accuracy (%)")


def limit_axes(
    axes: Axes, measured: Sequence[Row], points: Sequence[Point], published: Sequence[Point]
) -> None:
    """Show all measured points, and published ones except outliers far below the rest.

    Wide intervals may be cut off, where there are narrow ones.
    """
    bars = [bar for row in measured for bar in _bars(row)]
    for axis, set_limits in ((0, axes.set_xlim), (1, axes.set_ylim)):
        along = [bar for bar in bars if bar[0][axis] != bar[1][axis]]
        whole = [bar for bar in along if _is_narrow(bar)] or along
        shown = [*map(_point, measured), *(end for bar in whole for end in bar), *points]
        values = [point[axis] for point in shown]
        others = [point[axis] for point in published]
        fence = _lower_fence(others)
        values += [value for value in others if value >= fence]
        set_limits(*percent_limits(values or [0.0, 100.0]))


def _is_narrow(bar: Sequence[Point]) -> bool:
    (x, y), (right, top) = bar
    return max(right - x, top - y) <= WIDEST_INTERVAL


def _lower_fence(values: Sequence[float]) -> float:
    """Return Tukey's outer fence: three interquartile ranges below the first quartile."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4)
    return first - 3 * (third - first)


def _in_view(axes: Axes, point: Point) -> bool:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return left <= point[0] <= right and bottom <= point[1] <= top


def _draw_published(sketch: Drawing, rows: Sequence[Row]) -> None:
    _draw_front(sketch.axes, [_point(row) for row in rows], "published-front", (0, (4, 3)))
    for row in rows:
        if not _in_view(sketch.axes, _point(row)):
            continue
        (dot,) = sketch.axes.plot(
            *_point(row),
            marker="x" if row.unreliable else "o",
            markersize=5.0 if row.unreliable else 4.5,
            color=ROLES["published"],
            markeredgewidth=1.2 if row.unreliable else 0.0,
            linestyle="none",
        )
        doubt = ", called unreliable" if row.unreliable else ""
        sketch.set_title(
            dot,
            f"{row.name} (published{doubt}): clean {percent(row.clean.fraction)}, "
            f"robust {percent(row.best.fraction)}",
            row=row.key,
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


def _draw_sweep(sketch: Drawing, run: SweepSummary) -> None:
    x, y = zip(*map(_sweep_point, run.sweep), strict=True)
    color = ROLES["adaptive"]
    sketch.axes.plot(x, y, color=color, linewidth=1.2, linestyle=(0, (4, 2)), alpha=0.8)
    for point in run.sweep:
        (dot,) = sketch.axes.plot(
            *_sweep_point(point), marker="o", markersize=3.5, color=color, linestyle="none"
        )
        sketch.set_title(
            dot,
            f"{_names(run)}, \N{GREEK SMALL LETTER ALPHA} = {point.alpha:.3g}: clean "
            f"{percent(point.clean_accuracy)}, robust at most {percent(point.attacked_accuracy)}",
        )


def _sweep_point(point: SweepPoint) -> Point:
    return 100 * point.clean_accuracy, 100 * point.attacked_accuracy


def _names(run: SweepSummary) -> str:
    described = mix_of(run)
    names = [described.get(role) for role in ("accurate", "robust")]
    return " + ".join(str(name) for name in names if name) or run.manifest.candidate


def _base_labels(run: SweepSummary) -> list[Label]:
    """Label both ends of a sweep with the weight: there the bases are."""
    alpha = "\N{GREEK SMALL LETTER ALPHA}"
    return [
        Label(_sweep_point(point), f"{alpha} = {point.alpha:.3g}", "", ROLES["adaptive"])
        for point in (run.sweep[0], run.sweep[-1])
    ]


def _draw_measured(sketch: Drawing, suite: str, row: Row) -> None:
    is_full = row.kind == "full"
    for ends in _bars(row):
        sketch.axes.plot(
            [x for x, _ in ends],
            [y for _, y in ends],
            color=_color(row),
            linewidth=1.6 if is_full else 1.0,
            alpha=1.0 if is_full else 0.6,
            marker="|" if ends[0][1] == ends[1][1] else "_",
            markersize=6.0,
            markeredgewidth=1.6 if is_full else 1.0,
        )
    (dot,) = sketch.axes.plot(*_point(row), **_marker(row, 8.0), zorder=5)
    sketch.set_title(dot, _say(row), link(suite_page(suite), row.address), row.key)


def _marker(row: Row, size: float) -> dict[str, Any]:
    look, color = LOOKS[row.kind], _color(row)
    return {
        "marker": "D" if row.flags and row.kind == "full" else look.marker,
        "markersize": size,
        "markerfacecolor": color if look.is_filled else ROLES["surface"],
        "markeredgecolor": color,
        "markeredgewidth": 1.6,
        "linestyle": "none",
    }


def _color(row: Row) -> str:
    return ROLES["flagged" if row.flags else LOOKS[row.kind].role]


def _say(row: Row) -> str:
    """Return the name and the numbers of a measured row."""
    what = {"full": "robust", "certified": "certified at least"}.get(row.kind, "robust at most")
    if row.kind == "partial":
        what = "robust"
    part = f" ({row.samples} images)" if row.samples else ""
    interval = f" (95%: {row.height.interval_text})" if row.height.interval else ""
    flags = f"; flagged: {', '.join(flag.name for flag in row.flags)}" if row.flags else ""
    return (
        f"{row.name}{part}: clean {percent(row.clean.fraction)}, {what} "
        f"{percent(row.height.fraction)}{interval}{flags}"
    )


def _labels(rows: Sequence[Row]) -> list[Label]:
    """Return the labels, the most important first; ranks replace names where there is no room."""
    ordered = sorted(rows, key=lambda row: not (row.entry is not None and row.entry.on_front))
    return [
        Label(
            _point(row),
            name=printable(row.name.removeprefix("robustbench:"))
            + (f" ({row.samples})" if row.samples else ""),
            short=str(row.rank) if row.rank is not None else "",
            color=_color(row),
        )
        for row in ordered[:MOST_LABELS]
    ]


def _legend(
    measured: Sequence[Row], published: Sequence[Row], sweeps: Sequence[SweepSummary]
) -> list[tuple[Line2D, str]]:
    """Return a mark and a text for each kind of mark that is drawn."""

    def handle(**style: Any) -> Line2D:
        return Line2D([], [], **{"linestyle": "none", **style})

    handles = []
    for kind, look in LOOKS.items():
        if any(row.kind == kind for row in measured):
            color = ROLES[look.role]
            mark = handle(
                marker=look.marker,
                markeredgecolor=color,
                markerfacecolor=color if look.is_filled else ROLES["surface"],
                markersize=7,
                markeredgewidth=1.6,
            )
            handles.append((mark, look.title))
    if any(row.flags for row in measured):
        handles.append((handle(marker="D", color=ROLES["flagged"], markersize=6), "flagged"))
    if any(row.kind == "full" for row in measured):
        line = handle(color=ROLES["measured"], linestyle="-", linewidth=1.2, alpha=0.55)
        handles.append((line, "measured Pareto front"))
    if sweeps:
        line = handle(
            color=ROLES["adaptive"],
            linestyle=(0, (4, 2)),
            linewidth=1.2,
            marker="o",
            markersize=3.5,
        )
        handles.append((line, "sweep of a mix (upper bound)"))
    if published:
        dot = handle(marker="o", color=ROLES["published"], markersize=4.5)
        handles.append((dot, "published (RobustBench)"))
        if any(row.unreliable for row in published):
            cross = handle(marker="x", color=ROLES["published"], markersize=5)
            handles.append((cross, "published, called unreliable"))
        line = handle(color=ROLES["published-front"], linestyle=(0, (4, 3)), linewidth=1.2)
        handles.append((line, "published Pareto front"))
    return handles


def _describe(measured: Sequence[Row], published: Sequence[Row]) -> str:
    names = ", ".join(_say(row) for row in measured[:8])
    more = f" and {len(measured) - 8} more" if len(measured) > 8 else ""
    behind = f"{len(published)} published models" if published else ""
    parts = [part for part in (names + more, behind) if part]
    return f"Scatter plot of robust against clean accuracy in percent: {'; '.join(parts)}."
