"""Labels find places where nothing touches them, and are shortened where there is none."""

from __future__ import annotations

import itertools

from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from bench.pages.axes import Point
from bench.pages.labels import Label, place_labels
from bench.pages.svg import drawing

POINTS: list[Point] = [(30.0, 50.0), (33.0, 46.0), (38.0, 51.0), (34.0, 55.0), (70.0, 20.0)]
HALF = 12.0


def _bars(points: list[Point]) -> list[list[Point]]:
    return [
        bar
        for x, y in points
        for bar in ([(x - HALF, y), (x + HALF, y)], [(x, y - HALF), (x, y + HALF)])
    ]


def _placed(labels: list[Label], bars: list[list[Point]]) -> tuple[dict[str, Bbox], list[Bbox]]:
    """The boxes of the labels, by text, and those of the bars."""
    with drawing(12.6, 6.8) as sketch:
        sketch.axes.set_xlim(0, 100)
        sketch.axes.set_ylim(0, 100)
        place_labels(sketch, labels, bars, [])
        texts = [each for each in sketch.axes.texts if isinstance(each, Annotation)]
        boxes = {each.get_text(): each.get_window_extent() for each in texts}
        return boxes, [Bbox(sketch.axes.transData.transform(bar)) for bar in bars]


def test_labels_touch_neither_error_bars_nor_each_other() -> None:
    labels = [Label(point, f"candidate-{n}", str(n), "black") for n, point in enumerate(POINTS)]
    boxes, bars = _placed(labels, _bars(POINTS))
    assert len(boxes) == len(labels)
    assert "candidate-4" in boxes  # there is room around it
    assert not any(box.overlaps(bar) for box in boxes.values() for bar in bars)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes.values(), 2))


def test_a_label_without_a_short_form_crosses_a_bar_rather_than_vanish() -> None:
    bars: list[list[Point]] = [[(0.0, y), (100.0, y)] for y in range(0, 100, 2)]
    assert _placed([Label((50.0, 50.0), "alpha = 0.5", "", "black")], bars)[0].keys() == {
        "alpha = 0.5"
    }
