"""Random parts of a finite population: intervals, sequences and tests, by their guarantees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from bench.errors import InputError
from bench.statistics import (
    anytime_interval,
    anytime_p_value,
    claim_p_value,
    exact_binomial_interval,
    exact_hypergeometric_interval,
    mcnemar_p_value,
    power,
    required_sample_size,
)
from bench.statistics.sequential import log_martingale


@st.composite
def draws(draw: st.DrawFn) -> tuple[int, int, int]:
    population = draw(st.integers(1, 2000))
    n = draw(st.integers(1, population))
    return draw(st.integers(0, n)), n, population


@given(draws())
def test_intervals_hold_the_estimate_and_what_is_possible(counts: tuple[int, int, int]) -> None:
    successes, n, population = counts
    for interval in (exact_hypergeometric_interval(*counts), anytime_interval(*counts)):
        assert successes / population <= interval.low + 1e-12
        assert interval.high <= 1 - (n - successes) / population + 1e-12
        # The population's share may lie up to one sample off the estimate: it is a whole number.
        assert interval.low - 1 / population <= successes / n <= interval.high + 1 / population


@given(draws())
def test_a_part_says_more_about_a_finite_population(counts: tuple[int, int, int]) -> None:
    successes, n, population = counts
    finite = exact_hypergeometric_interval(*counts)
    infinite = exact_binomial_interval(successes, n)
    assert finite.width <= infinite.width + 2 / population
    if n == population:
        assert finite.low == finite.high == successes / n


@given(draws())
def test_interval_and_test_agree(counts: tuple[int, int, int]) -> None:
    population = counts[2]
    interval = exact_hypergeometric_interval(*counts)
    low, high = round(interval.low * population), round(interval.high * population)
    for claimed in (low, high):
        assert claim_p_value(claimed, *counts) > 0.05 - 1e-12
    for claimed in (low - 1, high + 1):
        if 0 <= claimed <= population:
            assert claim_p_value(claimed, *counts) <= 0.05 + 1e-12


@pytest.mark.parametrize(("n", "population"), [(5, 20), (30, 60), (7, 200)])
def test_hypergeometric_coverage_is_never_below_the_confidence(n: int, population: int) -> None:
    intervals = [exact_hypergeometric_interval(k, n, population) for k in range(n + 1)]
    for ones in range(population + 1):
        covered = [each.low <= ones / population <= each.high for each in intervals]
        assert hypergeom.pmf(np.arange(n + 1)[covered], population, ones, n).sum() >= 0.95 - 1e-9


@given(draws())
def test_martingale_never_gains_at_the_truth(counts: tuple[int, int, int]) -> None:
    ones, n, population = counts[0], counts[1], counts[2]
    seen = np.arange(max(0, n - (population - ones)), min(n, ones) + 1)
    # Chances below the smallest float meet values beyond the largest one: multiply as logarithms.
    chance = hypergeom.logpmf(seen, population, ones, n)
    expected = np.exp(chance + log_martingale(ones, seen, n, population)).sum()
    assert expected <= 1 + 1e-6


@pytest.mark.parametrize(("ones", "population"), [(0, 50), (210, 500), (499, 500)])
def test_sequence_covers_at_all_times_at_once(ones: int, population: int) -> None:
    generator = np.random.default_rng(0)
    runs = 2000
    truth = np.zeros((runs, population))
    truth[:, :ones] = 1
    seen = generator.permuted(truth, axis=1).cumsum(axis=1)
    times = np.arange(1, population + 1)
    missed = (log_martingale(ones, seen, times, population) >= np.log(20)).any(axis=1)
    assert missed.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


@given(draws())
def test_sequence_and_its_p_value_agree(counts: tuple[int, int, int]) -> None:
    population = counts[2]
    interval = anytime_interval(*counts)
    low, high = round(interval.low * population), round(interval.high * population)
    assert anytime_p_value(low, *counts) > 0.05
    assert anytime_p_value(high, *counts) > 0.05
    assert high == population or anytime_p_value(high + 1, *counts) <= 0.05
    assert low == 0 or anytime_p_value(low - 1, *counts) <= 0.05


def test_mcnemar() -> None:
    assert mcnemar_p_value(0, 0) == 1
    assert mcnemar_p_value(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar_p_value(3, 9) == mcnemar_p_value(9, 3)
    with pytest.raises(InputError, match="counts >= 0"):
        mcnemar_p_value(-1, 2)


@pytest.mark.parametrize("claimed", [300, 4200, 9900])
def test_required_sample_size_has_the_power_and_little_less_has_not(claimed: int) -> None:
    population = 10_000
    n = required_sample_size(claimed, population)
    assert power(claimed, claimed - 100, n, population) >= 0.9
    assert power(claimed, claimed - 100, int(0.93 * n), population) < 0.9


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InputError, match="population >= n = 5, got 4"):
        exact_hypergeometric_interval(1, 5, 4)
    with pytest.raises(InputError, match=r"claim in \[0, 10\], got 11"):
        claim_p_value(11, 1, 5, 10)
