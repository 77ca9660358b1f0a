"""Draw the waterfall of one candidate: from all samples through each attack to the robust ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes

from bench.formatting import count, percent
from bench.pages.svg import ROLES, WIDE, Drawing, drawing, printable
from bench.store.summary import AttackedSummary

MOST_ROWS = 10
"""Rows that are drawn before those of attacks that broke nothing are drawn as one."""
LEFT_ROOM = 1.95
"""Inches for the names of the attacks."""

BAR = 0.66
"""The height of a bar, of a row that has height 1."""


class Row(NamedTuple):
    """One step: what it is called, the accuracy before and after it, and how many were lost."""

    name: str
    before: float
    after: float
    lost: str


def waterfall_plot(summary: AttackedSummary, identifier: str, width: float = WIDE) -> Markup:
    """Draw which share of the samples each step takes; attacks that broke nothing stay in view.

    Args:
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    rows = waterfall_rows(summary)
    least = 0.2 if width == WIDE else 0.4  # the share of the samples in whose bar a text fits
    height = 0.36 * (len(rows) + 1) + 0.6
    with drawing(width, height) as sketch:
        sketch.figure.subplots_adjust(
            left=LEFT_ROOM / width,
            right=1 - 0.19 / width,
            bottom=0.52 / height,
            top=1 - 0.08 / height,
        )
        for place, row in enumerate(rows):
            _draw_step(sketch, place, row, least)
        _draw_robust(sketch, len(rows), summary, least)
        _draw_axes(sketch.axes, rows, width == WIDE)
        return sketch.to_svg(identifier, _describe(rows, summary))


def _draw_step(sketch: Drawing, place: int, row: Row, least: float) -> None:
    """Draw the share that is left after a step, the share that it took, and a line to the next.

    Args:
        least: the share of the samples in whose bar a text fits.
    """
    name, before, after, lost = row
    axes = sketch.axes
    role = "wrong" if place == 0 else "adversarial"
    axes.barh(place, 100 * after, BAR, color=ROLES["grid"], zorder=1)
    (bar,) = axes.barh(
        place, 100 * (before - after), BAR, left=100 * after, color=ROLES[role], zorder=2
    )
    sketch.set_title(bar, f"{name}: {lost}, {percent(after)}% left")
    axes.plot(
        [100 * after] * 2,
        [place - BAR / 2, place + 1 + BAR / 2],
        color=ROLES["muted"],
        linewidth=0.9,
        zorder=3,
    )
    fits = after > least
    axes.text(
        100 * after - 0.6 if fits else 100 * before + 0.6,
        place,
        f"{percent(after)} · {lost}" if before > after else percent(after),
        ha="right" if fits else "left",
        va="center_baseline",
        fontsize=9,
        zorder=4,
    )


def _draw_robust(sketch: Drawing, place: int, summary: AttackedSummary, least: float) -> None:
    """Draw the share that survived all attacks, with its interval; arguments as of `_draw_step`."""
    axes = sketch.axes
    robust = 100 * summary.robust_accuracy
    (bar,) = axes.barh(place, robust, BAR, color=ROLES["robust"], zorder=2)
    bounds = summary.confidence_intervals["robust_accuracy"]
    sketch.set_title(bar, f"robust: {percent(summary.robust_accuracy)}%")
    axes.plot(
        [100 * bounds.low, 100 * bounds.high],
        [place, place],
        color=ROLES["ink"],
        marker="|",
        markersize=7,
        linewidth=1.4,
        zorder=5,
    )
    fits = robust > 110 * least
    axes.text(
        1.0 if fits else 100 * bounds.high + 1.0,
        place,
        f"robust {percent(summary.robust_accuracy)}",
        va="center_baseline",
        fontsize=9,
        fontweight="bold",
        color=ROLES["on-robust" if fits else "ink"],
        zorder=6,
    )


def _draw_axes(axes: Axes, rows: Sequence[Row], explains_interval: bool) -> None:
    """Name the rows from top to bottom, and the axis of the samples."""
    names = [printable(row.name, 23) for row in rows]
    axes.set_yticks(range(len(rows) + 1), labels=[*names, "survived every attack"])
    axes.tick_params(axis="y", length=0, labelcolor=ROLES["ink"])
    axes.set_ylim(len(rows) + 0.6, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(
        "Samples (%)"
        + ("; the line on the blue bar is the 95% interval" if explains_interval else "")
    )
    axes.spines["left"].set_visible(False)


def waterfall_rows(summary: AttackedSummary) -> list[Row]:
    """Return the steps: wrong without attack, then each attack in its order."""
    n = summary.n_examples
    wrong = round(n * (1 - summary.clean_accuracy))
    rows: list[Row] = [
        Row("wrong without attack", 1.0, summary.clean_accuracy, _lost(wrong, "wrong")),
    ]
    before = summary.clean_accuracy
    for done in summary.attacks:
        rows.append(Row(done.name, before, done.accuracy_after, _lost(done.broken, "broken")))
        before = done.accuracy_after
    return rows if len(rows) <= MOST_ROWS else _without_repeats(rows)


def _without_repeats(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with one for all attacks in succession that broke nothing."""
    kept: list[Row] = []
    for broke, group in itertools.groupby(rows, key=lambda row: row.before > row.after):
        some = list(group)
        if broke or len(some) == 1:
            kept += some
        else:
            kept.append(some[0]._replace(name=f"{len(some)} attacks in turn"))
    return kept


def _lost(number: int, how: str) -> str:
    return f"{count(number)} {how}" if number else f"none {how}"


def _describe(rows: Sequence[Row], summary: AttackedSummary) -> str:
    steps = "; ".join(f"{name}: {lost}, {percent(after)}% left" for name, _, after, lost in rows)
    return f"Waterfall of the samples. {steps}; robust {percent(summary.robust_accuracy)}%."
