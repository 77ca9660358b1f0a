"""Clopper-Pearson bounds: those of scipy, exact, and each error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from bench.errors import InputError
from bench.statistics import exact_binomial_interval
from bench.statistics.clopper_pearson import clopper_pearson_lower, clopper_pearson_upper


@settings(deadline=None)
@given(st.integers(1, 100_000), st.floats(0, 1), st.floats(1e-4, 0.4))
def test_bounds_are_scipys(n: int, share: float, failure: float) -> None:
    count = round(share * n)
    low = float(clopper_pearson_lower(count, n, failure))
    high = float(clopper_pearson_upper(count, n, failure))
    assert low <= count / n <= high
    for alternative, bound in (("greater", low), ("less", high)):
        theirs = binomtest(count, n, alternative=alternative).proportion_ci(1 - failure, "exact")
        assert bound == pytest.approx(theirs[alternative == "less"], abs=1e-11)
    both = binomtest(count, n).proportion_ci(1 - failure, "exact")
    ours = exact_binomial_interval(count, n, 1 - failure)
    assert (ours.low, ours.high) == pytest.approx((both.low, both.high), abs=1e-11)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(1e-4, 0.4))
def test_bounds_are_exact(n: int, share: float, failure: float) -> None:
    count = round(share * n)
    # At the bound, the count that was seen or one more extreme has just that probability.
    if count:
        low = float(clopper_pearson_lower(count, n, failure))
        assert binom.sf(count - 1, n, low) == pytest.approx(failure, rel=1e-6)
    if count < n:
        high = float(clopper_pearson_upper(count, n, failure))
        assert binom.cdf(count, n, high) == pytest.approx(failure, rel=1e-6)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InputError, match=r"failure probability in \(0, 1\), got 1"):
        clopper_pearson_lower(1, 2, 1.0)
    with pytest.raises(InputError, match=r"successes in \[0, draws\], got 3 of 2"):
        clopper_pearson_upper(3, 2, 0.1)
    with pytest.raises(InputError, match="at least 1 draw, got 0"):
        clopper_pearson_lower(0, 0, 0.1)
