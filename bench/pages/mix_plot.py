"""Draw a family of mixes: the curve from the accurate to the robust base, and other mixes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.lines import Line2D

from bench.formatting import percent
from bench.pages.axes import (
    LEGEND_COLUMNS,
    Point,
    draw_legend,
    interval_bars,
    measured_point,
    percent_limits,
)
from bench.pages.labels import Label, place_labels
from bench.pages.mixes import Family, mix_of, weight_of
from bench.pages.svg import ROLES, WIDE, Drawing, drawing, printable
from bench.store.summary import Summary, SweepPoint, SweepSummary

LABEL_DISTANCE = 0.1
"""Least distance of labelled points of a curve, as a fraction of the axes' lengths."""
CHEAP = "fixed mixes, cheap attack: an upper bound"
Mark = tuple[Summary, str, str, str]
"""A run, its label, the role of its color, and its marker."""


def mix_plot(family: Family, identifier: str, width: float = WIDE) -> Markup:
    """Draw robust against clean accuracy along the weight, with the bases and the other mixes.

    Args:
        family: a family with a sweep or at least one base's run.
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    marks = _marks(family)
    curves = [[_point(each) for each in run.sweep] for run in family.sweeps]
    bars = [bar for run, *_ in marks for bar in interval_bars(run)]
    columns = LEGEND_COLUMNS if width == WIDE else 1
    with drawing(width, 6.2) as sketch:
        axes = sketch.axes
        handles = _legend(family)
        top = 1 - (0.4 + 0.22 * math.ceil(len(handles) / columns)) / 6.2
        sketch.figure.subplots_adjust(
            left=0.66 / width, right=1 - 0.13 / width, bottom=0.088, top=top
        )
        _set_limits(sketch, [end for bar in bars for end in bar], curves)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.set_xlabel("Clean accuracy (%)")
        axes.set_ylabel("Robust accuracy (%)")
        for run in family.sweeps:
            _draw_curve(sketch, run)
        for mark in marks:
            _draw_mark(sketch, mark)
        labels = [
            Label(measured_point(run), printable(text), "", ROLES[role])
            for run, text, role, _ in marks
        ]
        labels += [label for run in family.sweeps for label in _curve_labels(sketch, run)]
        place_labels(sketch, labels, bars, [point for curve in curves for point in curve])
        draw_legend(axes, handles, columns)
        return sketch.to_svg(identifier, _describe(family))


def _marks(family: Family) -> list[Mark]:
    """Return the marks, the most important first."""
    marks: list[Mark] = []
    marks += [(run, run.manifest.candidate, "adaptive", "D") for run in family.adaptive]
    marks += [(run, run.manifest.candidate, "adaptive", "^") for run in family.bent]
    for run, name in zip(family.bases, family.names, strict=True):
        if run is not None:
            marks.append((run, name or run.manifest.candidate, "ink", "s"))
    marks += [(run, _weight(weight_of(run)), "measured", "o") for run in family.fixed]
    return marks


def _weight(alpha: float) -> str:
    return f"α = {alpha:.3g}"


def _point(point: SweepPoint) -> Point:
    return 100 * point.clean_accuracy, 100 * point.attacked_accuracy


def _set_limits(sketch: Drawing, ends: Sequence[Point], curves: Sequence[Sequence[Point]]) -> None:
    points = [*ends, *(point for curve in curves for point in curve)]
    for axis, set_limits in ((0, sketch.axes.set_xlim), (1, sketch.axes.set_ylim)):
        values = [point[axis] for point in points]
        set_limits(*percent_limits(values))


def _draw_curve(sketch: Drawing, run: SweepSummary) -> None:
    points = run.sweep
    x, y = zip(*map(_point, points), strict=True)
    blue = ROLES["measured"]
    sketch.axes.plot(x, y, color=blue, linewidth=1.2, linestyle=(0, (4, 2)), alpha=0.7)
    for point in points:
        (dot,) = sketch.axes.plot(
            *_point(point),
            marker="o",
            markersize=5.0,
            markerfacecolor=ROLES["surface"],
            markeredgecolor=blue,
            markeredgewidth=1.2,
            linestyle="none",
        )
        sketch.set_title(
            dot,
            f"{_weight(point.alpha)}{_scales(run)}: clean {percent(point.clean_accuracy)}, after "
            f"the cheap attack {percent(point.attacked_accuracy)}",
        )


def _scales(run: Summary) -> str:
    """Return the base scales of a sweep, where they are not 1."""
    described = mix_of(run)
    scales = [described.get(f"{role}_scale", 1) for role in ("accurate", "robust")]
    return "" if scales == [1, 1] else f", scales {scales[0]:g} and {scales[1]:g}"


def _curve_labels(sketch: Drawing, run: SweepSummary) -> list[Label]:
    """Label both ends, and points between them that are far enough apart for text."""
    points = run.sweep
    (left, right), (bottom, top) = sketch.axes.get_xlim(), sketch.axes.get_ylim()

    def distance(one: SweepPoint, other: SweepPoint) -> float:
        (a, b), (c, d) = _point(one), _point(other)
        return math.hypot((a - c) / (right - left), (b - d) / (top - bottom))

    chosen: list[SweepPoint] = []
    for point in [points[-1], points[0], *points[1:-1]]:
        if all(distance(point, other) >= LABEL_DISTANCE for other in chosen):
            chosen.append(point)
    color = ROLES["muted"]
    return [Label(_point(point), _weight(point.alpha), "", color) for point in chosen]


def _draw_mark(sketch: Drawing, mark: Mark) -> None:
    run, label, role, marker = mark
    color = ROLES[role]
    for ends in interval_bars(run):
        x, y = zip(*ends, strict=True)
        sketch.axes.plot(x, y, color=color, linewidth=1.2, alpha=0.6)
    (dot,) = sketch.axes.plot(
        *measured_point(run), marker=marker, markersize=8.0, color=color, linestyle="none", zorder=5
    )
    sketch.set_title(
        dot,
        f"{label} ({run.manifest.protocol} protocol): clean {percent(run.clean_accuracy)}, robust "
        f"{percent(run.robust_accuracy)}",
    )


def _legend(family: Family) -> list[tuple[Line2D, str]]:
    """Return a mark and a text for each kind of mark that is drawn."""

    def handle(role: str, **style: Any) -> Line2D:
        settings: dict[str, Any] = {"color": ROLES[role], "linestyle": "none", "markersize": 7}
        return Line2D([], [], **settings | style)

    handles = []
    if family.sweeps:
        curve = handle(
            "measured",
            marker="o",
            markersize=5,
            markerfacecolor=ROLES["surface"],
            linestyle=(0, (4, 2)),
        )
        handles.append((curve, CHEAP))
    if family.fixed:
        handles.append((handle("measured", marker="o"), "fixed mixes, full protocol"))
    if family.adaptive:
        handles.append((handle("adaptive", marker="D"), "adaptive mixes, full protocol"))
    if family.bent:
        handles.append((handle("adaptive", marker="^"), "nonlinear mixes, full protocol"))
    if any(family.bases):
        handles.append((handle("ink", marker="s"), "the bases"))
    return handles


def _describe(family: Family) -> str:
    parts = [
        f"{label}: {percent(run.clean_accuracy)} clean, {percent(run.robust_accuracy)} robust"
        for run, label, *_ in _marks(family)[:12]
    ]
    for run in family.sweeps:
        points = run.sweep
        curve = "; ".join(
            f"{point.alpha:g}: {percent(point.clean_accuracy)}, {percent(point.attacked_accuracy)}"
            for point in points[:: max(len(points) // 10, 1)]
        )
        parts.append(f"sweep of the weight, clean and attacked accuracy at {curve}")
    return f"Robust against clean accuracy in percent of mixes of {family.title}. " + "; ".join(
        parts
    )
