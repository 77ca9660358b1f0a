"""Draw accuracy against the passes that the attacks spent on each sample."""

from __future__ import annotations

from collections.abc import Collection

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from bench.formatting import count, percent
from bench.pages.passes import PassesCurve
from bench.pages.svg import ROLES, WIDE, drawing, printable
from bench.store.summary import AttackedSummary

FEW = 5
"""Attacks whose ends are all drawn, those too that broke nothing."""
LABEL_WIDTH = 14
"""Points between two names of attacks."""


def passes_plot(
    curve: PassesCurve, summary: AttackedSummary, identifier: str, width: float = WIDE
) -> Markup:
    """Draw the accuracy if the attacks on each sample had stopped after so many passes.

    Args:
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    most = max(float(curve.passes[-1]), 2.0)
    # A sample that the first image broke took less than a pass; log scales have no 0.
    passes = curve.passes.clip(0.8)
    accuracy = 100 * curve.accuracy
    low, high = float(accuracy.min()), float(accuracy.max())
    room = max(0.12 * (high - low), 1.0)
    with drawing(width, 4.4) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=0.75 / width, right=1 - 0.25 / width, bottom=0.13, top=0.96
        )
        axes.set_xscale("log")
        axes.set_xlim(0.8, most * 1.08)
        axes.set_ylim(max(low - room, 0), min(high + room, 100.5))
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.fill_between(passes, accuracy, 0, step="post", color=ROLES["robust"], alpha=0.10)
        (line,) = axes.step(passes, accuracy, where="post", color=ROLES["robust"], linewidth=1.8)
        sketch.set_title(line, "accuracy after so many passes on each sample")
        _draw_ends(axes, curve, {each.name for each in summary.attacks if each.broken})
        axes.axhline(100 * summary.robust_accuracy, color=ROLES["adversarial"], linewidth=1.0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
        axes.set_xlabel("Passes spent on a sample (forward and backward, log scale)")
        axes.set_ylabel("Accuracy (%)")
        text = (
            f"Accuracy against passes on a sample: from {percent(float(curve.accuracy[0]))}% "
            f"without attack to {percent(float(curve.accuracy[-1]))}% after {count(most)} passes."
        )
        return sketch.to_svg(identifier, text)


def _draw_ends(axes: Axes, curve: PassesCurve, broke: Collection[str]) -> None:
    """Draw where the attacks in `broke` and the last one ended, with names where there is room."""
    last = float("-inf")
    for end, name in curve.ends:
        if name not in broke and name != curve.ends[-1][1] and len(curve.ends) > FEW:
            continue
        axes.axvline(end, color=ROLES["muted"], linewidth=0.9, linestyle=(0, (2, 3)))
        place = float(axes.transData.transform((end, 0))[0])
        if place - last > LABEL_WIDTH:
            axes.annotate(
                f"{printable(name, 26)} ends",
                (end, 0.985),
                xycoords=axes.get_xaxis_transform(),
                xytext=(-3, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="top",
                fontsize=8.5,
                color=ROLES["muted"],
            )
            last = place
