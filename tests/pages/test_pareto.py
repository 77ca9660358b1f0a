"""Law of the Pareto front."""

from hypothesis import given
from hypothesis import strategies as st

from bench.pages.pareto import pareto_front

COORDINATE = st.integers(0, 6).map(float)  # few values, so that ties are frequent
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), max_size=12)


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    expected = {
        index
        for index, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    }
    front = pareto_front(points)
    assert len(front) == len(expected)
    assert set(front) == expected


@given(POINTS)
def test_front_ascends_in_one_and_descends_in_the_other(points: list[tuple[float, float]]) -> None:
    front = [points[index] for index in pareto_front(points)]
    assert [x for x, _ in front] == sorted(x for x, _ in front)
    assert [y for _, y in front] == sorted((y for _, y in front), reverse=True)
