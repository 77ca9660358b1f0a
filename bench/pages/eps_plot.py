"""Draw robust accuracy against eps, from each sample's smallest known perturbation."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from bench.formatting import percent, radius
from bench.pages.svg import ROLES, WIDE, drawing
from bench.store.eps_curve import Curve
from bench.store.summary import AttackedSummary

FARTHEST = 4.0
"""Radii are drawn up to so many times the threat model's."""


def eps_plot(
    found: Curve, summary: AttackedSummary, identifier: str, width: float = WIDE
) -> Markup:
    """Draw the steps of the curve, its interval at each radius, and the threat model's radius.

    Args:
        found: the curve.
        summary: of its run.
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    threat = summary.manifest.threat_model
    levels = 255 if threat.norm == "Linf" and threat.eps < 0.1 else 1
    end = min(FARTHEST * threat.eps, max(1.08 * float(found.radii[-1]), 1.5 * threat.eps))
    shown = found.radii <= end
    radii = levels * np.append(found.radii[shown], end)
    accuracy, low, high = (
        100 * np.append(values[shown], values[shown][-1])
        for values in (found.accuracy, found.low, found.high)
    )
    with drawing(width, 4.2) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=0.75 / width, right=1 - 0.25 / width, bottom=0.14, top=0.95
        )
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.fill_between(
            radii, low, high, step="post", color=ROLES["robust"], alpha=0.14, linewidth=0
        )
        (line,) = axes.step(radii, accuracy, where="post", color=ROLES["robust"], linewidth=1.8)
        sketch.set_title(line, "robust accuracy at each radius")
        axes.axvline(
            levels * threat.eps, color=ROLES["muted"], linewidth=0.9, linestyle=(0, (2, 3))
        )
        (dot,) = axes.plot(
            [levels * threat.eps],
            [100 * summary.robust_accuracy],
            marker="o",
            markersize=7,
            color=ROLES["adversarial"],
            zorder=5,
        )
        sketch.set_title(dot, f"robust {percent(summary.robust_accuracy)}% at {radius(threat.eps)}")
        axes.annotate(
            f"{percent(summary.robust_accuracy)} at {radius(threat.eps)}",
            (levels * threat.eps, 100 * summary.robust_accuracy),
            xytext=(9, 7),
            textcoords="offset points",
            fontsize=9,
        )
        axes.set_xlim(0, levels * end)
        axes.set_ylim(0, 100.5)
        unit = ", in 8-bit levels" if levels > 1 else ", in the [0, 1] pixel scale"
        axes.set_xlabel(f"{threat.norm} radius eps{unit}")
        axes.set_ylabel("Accuracy (%)")
        text = (
            f"Robust accuracy against eps: {percent(float(found.accuracy[0]))}% at 0, "
            f"{percent(summary.robust_accuracy)}% at {radius(threat.eps)}."
        )
        return sketch.to_svg(identifier, text)
