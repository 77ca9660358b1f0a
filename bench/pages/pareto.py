"""The Pareto front: the points that no other point dominates."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other point dominates.

    A point dominates another if it is at least as large in both coordinates and larger in one.
    Equal points do not dominate each other.

    Args:
        points: (first, second) coordinates; larger is better in both.

    Returns:
        indices, sorted by ascending first coordinate; the second coordinate then never ascends.
    """
    by_first = sorted(range(len(points)), key=lambda i: (points[i], -i), reverse=True)
    front: list[int] = []
    for index in by_first:
        if (
            not front
            or points[index][1] > points[front[-1]][1]
            or points[index] == points[front[-1]]
        ):
            front.append(index)
    return front[::-1]
