"""Laws of the intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from bench.errors import InputError
from bench.statistics import exact_binomial_interval


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 10_000))
    return draw(st.integers(0, n)), n


@given(counts(), st.floats(0.5, 0.999))
def test_interval_holds_the_measured_proportion(count: tuple[int, int], confidence: float) -> None:
    successes, n = count
    interval = exact_binomial_interval(successes, n, confidence)
    assert 0 <= interval.low <= successes / n <= interval.high <= 1


@given(counts())
def test_interval_of_failures_mirrors_that_of_successes(count: tuple[int, int]) -> None:
    successes, n = count
    interval = exact_binomial_interval(successes, n)
    mirrored = exact_binomial_interval(n - successes, n)
    assert interval.low == pytest.approx(1 - mirrored.high, abs=1e-9)
    assert interval.high == pytest.approx(1 - mirrored.low, abs=1e-9)


@given(counts())
def test_one_more_success_moves_both_ends_up(count: tuple[int, int]) -> None:
    successes, n = count
    interval = exact_binomial_interval(max(successes - 1, 0), n)
    moved = exact_binomial_interval(max(successes, 1), n)
    assert moved.low >= interval.low
    assert moved.high >= interval.high


@given(counts(), st.integers(2, 5))
def test_more_samples_narrow_the_interval(count: tuple[int, int], factor: int) -> None:
    successes, n = count
    few = exact_binomial_interval(successes, n)
    many = exact_binomial_interval(successes * factor, n * factor)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("n", [1, 10, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_is_never_below_the_confidence(n: int, confidence: float) -> None:
    intervals = [exact_binomial_interval(k, n, confidence) for k in range(n + 1)]
    low = np.array([interval.low for interval in intervals])
    high = np.array([interval.high for interval in intervals])
    for p in np.linspace(0.001, 0.999, 97):
        covered = binom.pmf(np.arange(n + 1), n, p)[(low <= p) & (p <= high)].sum()
        assert covered >= confidence - 1e-9


def test_known_value() -> None:
    interval = exact_binomial_interval(8, 10)  # as R's binom.test(8, 10)
    assert interval.low == pytest.approx(0.4439045, abs=1e-7)
    assert interval.high == pytest.approx(0.9747893, abs=1e-7)


@pytest.mark.parametrize(
    ("successes", "n", "confidence", "expected"),
    [
        (0, 0, 0.95, "n >= 1"),
        (-1, 5, 0.95, "successes"),
        (6, 5, 0.95, "got 6"),
        (1, 5, 1, "(0, 1)"),
    ],
)
def test_wrong_arguments_are_named(
    successes: int, n: int, confidence: float, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        exact_binomial_interval(successes, n, confidence)
    assert expected in str(caught.value)
