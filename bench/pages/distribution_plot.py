"""Distributions over samples: a mixing network's weights, and the confidence margins of bases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from bench.pages.mixes import MixSamples
from bench.pages.svg import ROLES, WIDE, drawing, printable
from bench.store.records import FloatArray

BINS = 40
Distribution = tuple[str, FloatArray, str]
"""A name, values (n,), and a color's role."""


def alpha_plot(samples: MixSamples, identifier: str, width: float = WIDE) -> Markup:
    """Draw the weights that a mix gave to clean and to adversarial images.

    Args:
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    shown: list[Distribution] = [
        ("clean images", samples.alpha_clean, "clean"),
        ("adversarial images", samples.alpha_adversarial, "adversarial"),
    ]
    both = np.concatenate([values for _, values, _ in shown])
    margin = max(0.02 * float(np.ptp(both)), 1e-3)
    ends = max(both.min() - margin, 0.0), min(both.max() + margin, 1.0)
    with drawing(width, 3.4) as sketch:
        sketch.figure.subplots_adjust(
            left=0.65 / width,
            right=1 - 0.25 / width,
            bottom=0.16,
            top=0.87 if width == WIDE else 0.82,
        )
        _draw(sketch.axes, shown, ends, legend_columns=2 if width == WIDE else 1)
        sketch.axes.set_xlabel("Weight α of the robust base")
        name = printable(samples.candidate, 80)
        return sketch.to_svg(identifier, f"Histograms of the weight in {name}. {_describe(shown)}")


def margin_plot(
    samples: MixSamples, names: Sequence[str | None], identifier: str, width: float = WIDE
) -> Markup:
    """Draw each base's confidence margins on images that it classifies correctly, and wrongly.

    Args:
        names: names of the accurate and the robust base; None if unknown.
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.

    Returns:
        an <svg> element.
    """
    texts = []
    # Side by side where there is room, else one above the other.
    places = ((0.052, 0.14, 0.44, 0.65), (0.55, 0.14, 0.44, 0.65))
    if width != WIDE:
        places = ((0.11, 0.57, 0.86, 0.325), (0.11, 0.07, 0.86, 0.325))
    with drawing(width, 3.9 if width == WIDE else 7.8) as sketch:
        sketch.axes.set_position(places[0])
        panels = (sketch.axes, sketch.figure.add_axes(places[1]))
        roles = ("Accurate", "Robust")
        for axes, role, name, margins in zip(panels, roles, names, samples.margins, strict=True):
            shown: list[Distribution] = [
                ("clean and right", margins.clean_right, "clean"),
                ("attacked and wrong", margins.attacked_wrong, "adversarial"),
            ]
            _draw(axes, shown, (0.0, 1.0), legend_columns=1)
            axes.set_xlabel("Confidence margin")
            title = f"{role} base" + (f": {printable(name, 50)}" if name else "")
            axes.set_title(title, loc="left", fontsize=10, pad=36)
            texts.append(f"{title}. {_describe(shown)}")
        return sketch.to_svg(identifier, "Histograms of confidence margins. " + " ".join(texts))


def _draw(
    axes: Axes, shown: Sequence[Distribution], ends: tuple[float, float], legend_columns: int = 2
) -> None:
    bins = np.linspace(*ends, BINS + 1).tolist()
    for name, values, role in shown:
        if not len(values):
            continue
        weights = np.full(len(values), 100 / len(values))
        color = ROLES[role]
        label = f"{name}, n = {len(values):,}, median {np.median(values):.3f}"
        axes.hist(values, bins, weights=weights, color=color, alpha=0.35, label=label)
        axes.hist(values, bins, weights=weights, color=color, histtype="step", linewidth=1.2)
        axes.axvline(float(np.median(values)), color=color, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.set_xlim(*ends)
    axes.grid(visible=True, axis="y")
    axes.set_axisbelow(True)
    axes.set_ylabel("Images (%)")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=legend_columns,
        fontsize=9,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.6,
        borderaxespad=0.2,
    )


def _describe(shown: Sequence[Distribution]) -> str:
    return "; ".join(
        f"{name}: {len(values)}, median {np.median(values):.3f}" if len(values) else f"{name}: none"
        for name, values, _ in shown
    )
