"""Paired counts: the interval of the difference against the test that it inverts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial

from bench.errors import InputError
from bench.statistics.paired import PairedCounts, holm_p_values

COUNTS = st.tuples(*[st.integers(0, 3000)] * 4).filter(any)


@given(COUNTS)
def test_the_interval_holds_the_difference_and_turns_with_order(
    counts: tuple[int, ...],
) -> None:
    both, first, second, neither = counts
    paired = PairedCounts(both, first, second, neither)
    low, high = paired.interval()
    assert -1 <= low <= paired.difference <= high <= 1
    assert low < high
    turned = PairedCounts(both, second, first, neither).interval()
    assert turned == pytest.approx((-high, -low), abs=1e-9)
    assert paired.accuracies[0] - paired.accuracies[1] == pytest.approx(paired.difference)


def test_at_no_difference_the_score_is_mcnemars() -> None:
    """Under no difference, the score is (b - c) / sqrt(b + c): the ends meet 0 where that is z."""
    z = 1.959963984540054
    for b, c in ((60, 40), (33, 20), (9, 1), (150, 118)):
        low, high = PairedCounts(500, b, c, 100).interval()
        assert (low > 0 or high < 0) == (abs(b - c) / math.sqrt(b + c) > z)


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.3, 0.05), (0.02, 0.2), (0.0, 0.15)])
def test_it_covers_the_true_difference(shares: tuple[float, float]) -> None:
    n = 30
    probabilities = [shares[0], shares[1], 1 - sum(shares)]
    counts = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    weights = multinomial.pmf([(b, c, n - b - c) for b, c in counts], n, probabilities)
    covered = 0.0
    for (b, c), weight in zip(counts, weights, strict=True):
        if weight > 1e-7:
            low, high = PairedCounts(n - b - c, b, c, 0).interval()
            covered += weight * (low <= shares[0] - shares[1] <= high)
    assert 0.92 < covered <= 1.0 + 1e-9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_are_no_smaller_and_keep_their_order(p_values: list[float]) -> None:
    adjusted = holm_p_values(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError, match="at least one sample"):
        PairedCounts(0, 0, 0, 0)
    with pytest.raises(InputError, match="counts >= 0"):
        PairedCounts(5, -1, 0, 0)
    with pytest.raises(InputError, match="confidence"):
        PairedCounts(5, 1, 0, 0).interval(1.0)
