"""Draw reliability diagrams, and how confident a candidate is where it is right and wrong."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from bench.formatting import count, percent
from bench.pages.calibration import Reliability
from bench.pages.svg import ROLES, WIDE, Drawing, drawing
from bench.store.records import FloatArray

BINS = 40


def reliability_plot(
    clean: Reliability, attacked: Reliability, identifier: str, width: float = WIDE
) -> Markup:
    """Draw accuracy against confidence on clean images, and on what the attacks left.

    Args:
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    # Side by side where there is room, else one above the other.
    places = ((0.052, 0.1, 0.43, 0.81), (0.552, 0.1, 0.43, 0.81))
    if width != WIDE:
        places = ((0.11, 0.55, 0.86, 0.41), (0.11, 0.05, 0.86, 0.41))
    with drawing(width, 5.6 if width == WIDE else 11) as sketch:
        sketch.axes.set_position(places[0])
        panels = (sketch.axes, sketch.figure.add_axes(places[1]))
        texts = []
        parts = (("Clean images", clean, "clean"), ("Under attack", attacked, "adversarial"))
        for axes, (title, found, role) in zip(panels, parts, strict=True):
            _panel(sketch, axes, found, role)
            axes.set_title(
                f"{title}: ECE {100 * found.error:.2f}, confidence "
                f"{percent(found.mean_confidence)}, accuracy {percent(found.mean_accuracy)}",
                loc="left",
                fontsize=10,
            )
            texts.append(f"{title}: ECE {100 * found.error:.2f}% on {found.n} samples")
        return sketch.to_svg(identifier, "Reliability diagrams. " + "; ".join(texts) + ".")


def _panel(sketch: Drawing, axes: Axes, found: Reliability, role: str) -> None:
    edges = np.linspace(0, 100, len(found.count) + 1)
    width = float(edges[1])
    axes.plot([0, 100], [0, 100], color=ROLES["muted"], linewidth=1.0, linestyle=(0, (4, 3)))
    largest = max(int(found.count.max()), 1)
    for place in np.flatnonzero(found.count).tolist():
        accuracy, confidence = 100 * found.accuracy[place], 100 * found.confidence[place]
        number = int(found.count[place])
        # The share of the samples shows as the bar's width.
        wide = width * (0.25 + 0.67 * np.sqrt(number / largest))
        middle = edges[place] + width / 2
        (bar,) = axes.bar(middle, accuracy, wide, color=ROLES[role], alpha=0.45)
        sketch.set_title(
            bar,
            f"confidence {edges[place]:.0f} to {edges[place + 1]:.0f}%: {count(number)} samples, "
            f"mean confidence {confidence:.1f}%, accuracy {accuracy:.1f}%",
        )
        axes.plot([confidence] * 2, [accuracy, confidence], color=ROLES[role], linewidth=1.6)
        axes.plot(
            [confidence], [accuracy], marker="o", markersize=5, color=ROLES[role], clip_on=False
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.set_xlabel("Confidence (%)")
    axes.set_ylabel("Accuracy (%)")


def confidence_plot(
    right: FloatArray, wrong: FloatArray, identifier: str, width: float = WIDE
) -> Markup:
    """Draw the confidence on clean images that are right, and on witnesses.

    Args:
        right: (n,) confidence in the right class.
        wrong: (m,) confidence in the wrong class.
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    parts = (("clean and right", right, "clean"), ("attacked and wrong", wrong, "adversarial"))
    texts = []
    bins = np.linspace(0, 100, BINS + 1).tolist()
    with drawing(width, 3.4) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=0.65 / width,
            right=1 - 0.25 / width,
            bottom=0.16,
            top=0.87 if width == WIDE else 0.82,
        )
        for name, values, role in parts:
            values = 100 * values[np.isfinite(values)]
            if not len(values):
                texts.append(f"{name}: none")
                continue
            weights = np.full(len(values), 100 / len(values))
            middle = float(np.median(values))
            label = f"{name}, n = {count(len(values))}, median {middle:.1f}%"
            color = ROLES[role]
            axes.hist(values, bins, weights=weights, color=color, alpha=0.35, label=label)
            axes.hist(values, bins, weights=weights, color=color, histtype="step", linewidth=1.2)
            axes.axvline(middle, color=color, linewidth=1.2, linestyle=(0, (4, 2)))
            texts.append(label)
        axes.set_xlim(0, 100)
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel("Confidence in the predicted class (%)")
        axes.set_ylabel("Images (%)")
        columns = 2 if width == WIDE else 1
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, fontsize=9,
                        handlelength=1.0, handleheight=1.0)  # fmt: skip
        return sketch.to_svg(identifier, "Histograms of confidence. " + "; ".join(texts) + ".")
