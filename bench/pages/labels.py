"""Place labels beside points where there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from bench.pages.axes import Point
from bench.pages.svg import Drawing
from bench.store.records import FloatArray

Horizontal = Literal["left", "center", "right"]
Vertical = Literal["bottom", "center", "top"]
Place = tuple[float, float, Horizontal, Vertical]

PLACES: tuple[Place, ...] = (
    (9, 7, "left", "bottom"),
    (-9, 7, "right", "bottom"),
    (9, -7, "left", "top"),
    (-9, -7, "right", "top"),
    (0, 12, "center", "bottom"),
    (0, -12, "center", "top"),
    (14, 0, "left", "center"),
    (-14, 0, "right", "center"),
    (18, 16, "left", "bottom"),
    (-18, 16, "right", "bottom"),
    (18, -16, "left", "top"),
    (-18, -16, "right", "top"),
    (9, 24, "left", "bottom"),
    (-9, 24, "right", "bottom"),
    (9, -24, "left", "top"),
    (-9, -24, "right", "top"),
)
"""Offsets of a label from its point, in points of 1/72 inch, and its alignment; best first."""

NO_ROOM = 1000.0
"""Cost of covering a labelled point or another label, or of extending beyond the axes."""
CROSSED_BAR = 10.0
"""Cost of touching an error bar: more than the cost of the last place."""
COVERED_DOT = 1.0
LATER_PLACE = 0.4

MARK_RADIUS = 6.0
"""Half the size of a labelled mark, in points of 1/72 inch."""
LABEL_DISTANCE = 4.0
"""Between two labels, in points of 1/72 inch."""
CAP_RADIUS = 4.0
"""Half the size of an error bar's cap."""


@dataclass(frozen=True)
class Label:
    """A label to place.

    Attributes:
        point: the labelled point.
        name: its text where there is room.
        short: its text where there is no room; if it is empty, the label is left out there.
    """

    point: Point
    name: str
    short: str
    color: str


def place_labels(
    sketch: Drawing,
    labels: Sequence[Label],
    bars: Sequence[Sequence[Point]],
    dots: Sequence[Point],
) -> None:
    """Write each label at the best place around its point that is free, one after the other.

    Args:
        sketch: the drawing; the limits of its axes are final.
        labels: the labels, the most important first, which find the most room.
        bars: both ends of horizontal and vertical lines that labels should not touch.
        dots: points that labels should not cover.
    """
    canvas = sketch.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call, unused-ignore]
    frame = sketch.axes.get_window_extent(renderer)
    to_pixels = sketch.axes.transData.transform
    taken = [
        list(Bbox([to_pixels(label.point)] * 2).padded(MARK_RADIUS).extents) for label in labels
    ]
    bar_boxes = _rows([list(Bbox(to_pixels(ends)).padded(CAP_RADIUS).extents) for ends in bars], 4)
    dot_pixels = _rows([to_pixels(dot).tolist() for dot in dots], 2)

    def cost(box: Bbox, place: int) -> float:
        conflicts = _overlapping(box, _rows(taken, 4))
        inside = (
            frame.x0 <= box.x0 <= box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1 <= frame.y1
        )
        return (
            NO_ROOM * (conflicts + 2 * (not inside))
            + CROSSED_BAR * _overlapping(box, bar_boxes)
            + COVERED_DOT * _overlapping(box, np.tile(dot_pixels, 2))
            + LATER_PLACE * place
        )

    for label in labels:
        texts = [label.name, label.short] if label.short else [label.name]
        tried: list[tuple[float, Annotation, Bbox]] = []
        for text in texts:
            for place in range(len(PLACES)):
                annotation = _annotate(sketch.axes, text, label, PLACES[place])
                box = annotation.get_window_extent(renderer).padded(1.0)
                tried.append((cost(box, place), annotation, box))
            if min(each for each, *_ in tried) < CROSSED_BAR:
                break
        lowest, kept, box = min(tried, key=lambda each: each[0])
        for _, annotation, _ in tried:
            if annotation is not kept or (lowest >= NO_ROOM and not label.short):
                annotation.remove()
        if lowest < NO_ROOM or label.short:
            sketch.set_halo(kept)
            taken.append(list(box.padded(LABEL_DISTANCE).extents))


def _rows(values: list[list[float]], columns: int) -> FloatArray:
    return np.asarray(values, dtype=np.float64).reshape(-1, columns)


def _overlapping(box: Bbox, others: FloatArray) -> int:
    """Return how many of the boxes (n, 4), each left, bottom, right, top, overlap `box`."""
    x0, y0, x1, y1 = box.extents
    left, bottom, right, top = others.T
    return int(((left <= x1) & (right >= x0) & (bottom <= y1) & (top >= y0)).sum())


def _annotate(axes: Axes, text: str, label: Label, place: Place) -> Annotation:
    dx, dy, horizontal, vertical = place
    return axes.annotate(
        text,
        label.point,
        xytext=(dx, dy),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=9.5,
        fontweight="bold",
        color=label.color,
        zorder=6,
    )
