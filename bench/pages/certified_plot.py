"""Certified accuracy against radius, one curve a certification, and the envelope over sigma."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from bench.pages.certified import CertifiedBoard, describe
from bench.pages.svg import ROLES, WIDE, Drawing, drawing, printable
from bench.store.records import FloatArray

COLORS = ("measured", "flagged", "certified", "adaptive", "attack-2", "attack-5", "ink")
STYLES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MOST_CURVES = len(COLORS) * len(STYLES)

Line = tuple[str, FloatArray]
"""A name and certified accuracies on the board's grid."""


def certified_plot(board: CertifiedBoard, identifier: str, width: float = WIDE) -> Markup:
    """Draw certified accuracy against radius of each entry; returns an <svg> element.

    Args:
        identifier: unique on the page.
        width: in inches, `WIDE` or `NARROW`.
    """
    lines = [
        (label, entry.curve(board.grid))
        for label, entry in zip(board.labels, board.entries, strict=True)
    ][:MOST_CURVES]
    return _plot(board, lines, identifier, width, describe(board))


def envelope_plot(board: CertifiedBoard, identifier: str, width: float = WIDE) -> Markup | None:
    """Draw each method's best certified accuracy over its sigmas; None if none has several.

    Arguments are those of `certified_plot`.
    """
    lines = list(board.envelopes.items())[:MOST_CURVES]
    if not lines:
        return None
    what = ", ".join(name for name, _ in lines)
    text = f"The best certified accuracy over sigma at each radius: {what}."
    return _plot(board, lines, identifier, width, text)


def _plot(
    board: CertifiedBoard, lines: Sequence[Line], identifier: str, width: float, text: str
) -> Markup:
    is_wide = width == WIDE
    above = 0.17 if is_wide else 0.3 + 0.2 * len(lines)  # inches; where it is narrow, the legend's
    height = (5.4 if is_wide else 4.4) + above
    with drawing(width, height) as sketch:
        axes = sketch.axes
        sketch.figure.subplots_adjust(
            left=0.66 / width,
            right=0.67 if is_wide else 1 - 0.17 / width,
            bottom=0.5 / height,
            top=1 - above / height,
        )
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.set_xlabel("L2 radius, in the [0, 1] pixel scale")
        axes.set_ylabel("Certified accuracy (%)")
        axes.set_xlim(0, max(float(board.grid[-1]), board.eps * 1.05))
        axes.set_ylim(0, 101)
        axes.axvline(board.eps, color=ROLES["muted"], linewidth=0.8, linestyle=(0, (2, 3)))
        for place, line in enumerate(lines):
            _draw(sketch, board.grid, line, place)
        axes.legend(
            loc="upper left" if is_wide else "lower left",
            bbox_to_anchor=(1.01, 1.01) if is_wide else (-0.01, 1.0),
            fontsize=9,
            handlelength=2.6,
        )
        return sketch.to_svg(identifier, text)


def _draw(sketch: Drawing, grid: FloatArray, line: Line, place: int) -> None:
    name, accuracies = line
    color = ROLES[COLORS[place % len(COLORS)]]
    style = STYLES[place // len(COLORS) % len(STYLES)]
    # A curve stops where it reaches 0.
    shown = 1 + np.count_nonzero(accuracies)
    (curve,) = sketch.axes.plot(
        grid[:shown],
        100 * accuracies[:shown],
        color=color,
        linestyle=style,
        linewidth=1.6,
        label=printable(name, 48),
    )
    sketch.set_title(curve, name)
