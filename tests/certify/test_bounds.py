"""Confidence bounds: exact values, coverage, and each error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from bench.certify import bounds
from bench.errors import InputError


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(1e-4, 0.4))
def test_clopper_pearson_is_the_exact_bound(n: int, share: float, failure: float) -> None:
    count = round(share * n)
    low = float(bounds.clopper_pearson_lower(count, n, failure))
    high = float(bounds.clopper_pearson_upper(count, n, failure))
    assert low <= count / n <= high
    # At the bound, the count that was seen or one more extreme has just that probability.
    if count:
        assert binom.sf(count - 1, n, low) == pytest.approx(failure, rel=1e-6)
    if count < n:
        assert binom.cdf(count, n, high) == pytest.approx(failure, rel=1e-6)


@pytest.mark.parametrize("concentration", [0.3, 3.0, 60.0])
def test_bounds_of_means_hold_and_betting_gains_where_draws_vary_little(
    concentration: float,
) -> None:
    generator = np.random.default_rng(3)
    mean, n, failure = 0.8, 400, 0.1
    shape = (mean * concentration, (1 - mean) * concentration)
    values = generator.beta(*shape, size=(600, n))
    betting = bounds.betting_lower(values, failure)
    hoeffding = bounds.hoeffding_lower(values.mean(axis=1), n, failure)
    # Three standard errors of a rate of 0.1 over 600 samples.
    assert max((betting > mean).mean(), (hoeffding > mean).mean()) <= failure + 0.037
    assert concentration < 60 or (mean - betting).mean() < (mean - hoeffding).mean() / 2


def test_bounds_of_all_classes_hold_together() -> None:
    generator = np.random.default_rng(4)
    probabilities, n, failure = np.array([0.6, 0.3, 0.1]), 300, 0.1
    concentrated = generator.dirichlet(20 * probabilities, size=(400, n))
    classes = np.zeros(400, dtype=np.int64)
    for found in (
        bounds.vote_bounds(generator.multinomial(n, probabilities, 400), classes, failure),
        bounds.mean_softmax_bounds(concentrated.mean(axis=1), n, classes, failure),
        bounds.softmax_bounds(concentrated, classes, failure),
    ):
        assert found.others.shape == (400, 2)
        failed = (found.right > 0.6) | (found.others < [0.3, 0.1]).any(axis=1)
        assert failed.mean() <= failure + 0.045
        assert np.all(found.others <= 1 - found.right[:, None])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InputError, match=r"failure probability in \(0, 1\), got 1"):
        bounds.clopper_pearson_lower(1, 2, 1.0)
    with pytest.raises(InputError, match=r"successes in \[0, draws\], got 3 of 2"):
        bounds.clopper_pearson_lower(3, 2, 0.1)
    with pytest.raises(InputError, match="at least 1 draw, got 0"):
        bounds.hoeffding_lower(0.5, 0, 0.1)
    with pytest.raises(InputError, match=r"values in \[0, 1\]"):
        bounds.betting_lower(np.array([0.5, 1.5]), 0.1)
    with pytest.raises(InputError, match=r"classes in \[0, 3\)"):
        bounds.vote_bounds(np.ones((1, 3), dtype=np.int64), np.array([3]), 0.1)
