"""Draw the waterfall of one candidate: from all samples through each attack to the robust ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from markupsafe import Markup

from bench.formatting import count, percent
from bench.pages.svg import ROLES, WIDE, drawing, printable
from bench.store.summary import AttackedSummary

MOST_ROWS = 10
"""Rows that are drawn before those of attacks that broke nothing are drawn as one."""
LEFT_ROOM = 1.95
"""Inches for the names of the attacks."""

Row = tuple[str, float, float, str]
"""A name, the accuracy before and after, and how many samples were lost."""


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
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=LEFT_ROOM / width,
            right=1 - 0.19 / width,
            bottom=0.52 / height,
            top=1 - 0.08 / height,
        )
        for place, (name, before, after, lost) in enumerate(rows):
            role = "wrong" if place == 0 else "adversarial"
            axes.barh(place, 100 * after, 0.66, color=ROLES["grid"], zorder=1)
            (bar,) = axes.barh(
                place, 100 * (before - after), 0.66, left=100 * after, color=ROLES[role], zorder=2
            )
            sketch.set_title(bar, f"{name}: {lost}, {percent(after)}% left")
            axes.plot(
                [100 * after] * 2,
                [place - 0.33, place + 1.33],
                color=ROLES["muted"],
                linewidth=0.9,
                zorder=3,
            )
            label = axes.text(
                100 * after - 0.6,
                place,
                f"{percent(after)} · {lost}" if before > after else percent(after),
                ha="right" if after > least else "left",
                va="center_baseline",
                fontsize=9,
                zorder=4,
            )
            if after <= least:
                label.set_x(100 * before + 0.6)
        bottom = len(rows)
        robust = 100 * summary.robust_accuracy
        (bar,) = axes.barh(bottom, robust, 0.66, color=ROLES["robust"], zorder=2)
        bounds = summary.confidence_intervals["robust_accuracy"]
        sketch.set_title(bar, f"robust: {percent(summary.robust_accuracy)}%")
        axes.plot(
            [100 * bounds.low, 100 * bounds.high],
            [bottom, bottom],
            color=ROLES["ink"],
            marker="|",
            markersize=7,
            linewidth=1.4,
            zorder=5,
        )
        inside = robust > 110 * least
        axes.text(
            1.0 if inside else 100 * bounds.high + 1.0,
            bottom,
            f"robust {percent(summary.robust_accuracy)}",
            va="center_baseline",
            fontsize=9,
            fontweight="bold",
            color=ROLES["on-robust" if inside else "ink"],
            zorder=6,
        )
        names = [printable(name, 23) for name, *_ in rows]
        axes.set_yticks(range(bottom + 1), labels=[*names, "stood every attack"])
        axes.tick_params(axis="y", length=0, labelcolor=ROLES["ink"])
        axes.set_ylim(bottom + 0.6, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel(
            "Samples (%)"
            + ("; the line on the blue bar is the 95% interval" if width == WIDE else "")
        )
        axes.spines["left"].set_visible(False)
        return sketch.to_svg(identifier, _describe(rows, summary))


def waterfall_rows(summary: AttackedSummary) -> list[Row]:
    """Return the steps: wrong without attack, then each attack in its order."""
    n = summary.n_examples
    wrong = round(n * (1 - summary.clean_accuracy))
    rows: list[Row] = [
        ("wrong without attack", 1.0, summary.clean_accuracy, _lost(wrong, "wrong")),
    ]
    before = summary.clean_accuracy
    for done in summary.attacks:
        rows.append((done.name, before, done.accuracy_after, _lost(done.broken, "broken")))
        before = done.accuracy_after
    return rows if len(rows) <= MOST_ROWS else _without_repeats(rows)


def _without_repeats(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with one for all attacks in succession that broke nothing."""
    kept: list[Row] = []
    for broke, group in itertools.groupby(rows, key=lambda row: row[1] > row[2]):
        some = list(group)
        if broke or len(some) == 1:
            kept += some
        else:
            kept.append((f"{len(some)} attacks in turn", *some[0][1:3], some[0][3]))
    return kept


def _lost(number: int, how: str) -> str:
    return f"{count(number)} {how}" if number else f"none {how}"


def _describe(rows: Sequence[Row], summary: AttackedSummary) -> str:
    steps = "; ".join(f"{name}: {lost}, {percent(after)}% left" for name, _, after, lost in rows)
    return f"Waterfall of the samples. {steps}; robust {percent(summary.robust_accuracy)}%."
