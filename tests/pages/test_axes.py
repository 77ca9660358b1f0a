"""The limits of axes of accuracies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.pages.axes import LEAST_SPAN, percent_limits


@given(values=st.lists(st.floats(0, 100), min_size=1))
def test_an_axis_holds_its_values_and_does_not_magnify_small_differences(
    values: list[float],
) -> None:
    low, high = percent_limits(values)
    assert low <= min(values) <= max(values) <= high
    assert high - low > LEAST_SPAN / 2 - 1e-9  # half of it may lie beyond 0 or 100
    assert low > -3
    assert high < 103
