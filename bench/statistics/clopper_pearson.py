"""Exact one-sided bounds of a proportion, for many counts at once.

They are quantiles of the beta distribution, computed by scipy. scipy's `binomtest(k, n)` has the
same bounds with 12 digits by a root search, one count at a time, in 2.6 ms instead of 5
microseconds. The sequential procedure asks for many bounds, so this closed form is used; the tests
compare it with `binomtest`.

Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
the binomial", Biometrika 26 (1934).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betainccinv, betaincinv

from bench.errors import InputError

Bounds = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def clopper_pearson_lower(
    successes: npt.ArrayLike, draws: npt.ArrayLike, failure_probability: float
) -> Bounds:
    """Return lower confidence bounds of proportions.

    Args:
        successes: (...) integers in [0, draws].
        draws: (...) integers >= 1.
        failure_probability: the largest probability, over the draws, that a bound is above the
            true proportion, in (0, 1).

    Returns:
        (...) in [0, 1).

    Raises:
        InputError: an argument is out of its range.
    """
    check_failure_probability(failure_probability)
    count, total = _check_counts(successes, draws)
    some = np.maximum(count, 1)
    bound = betaincinv(some, total - some + 1, failure_probability)
    return np.asarray(np.where(count > 0, bound, 0.0), dtype=np.float64)


def clopper_pearson_upper(
    successes: npt.ArrayLike, draws: npt.ArrayLike, failure_probability: float
) -> Bounds:
    """Return upper confidence bounds, in (0, 1]; otherwise as `clopper_pearson_lower`."""
    check_failure_probability(failure_probability)
    count, total = _check_counts(successes, draws)
    failures = np.maximum(total - count, 1)
    bound = betainccinv(total - failures + 1, failures, failure_probability)
    return np.asarray(np.where(count < total, bound, 1.0), dtype=np.float64)


def check_failure_probability(value: float) -> None:
    """Refuse a failure probability that is not in (0, 1).

    Raises:
        InputError: it is not.
    """
    if not 0 < value < 1:
        raise InputError(f"expected a failure probability in (0, 1), got {value}; 0.001 is usual")


def _check_counts(successes: npt.ArrayLike, draws: npt.ArrayLike) -> tuple[Counts, Counts]:
    count, total = np.broadcast_arrays(np.asarray(successes), np.asarray(draws))
    if np.any(total < 1):
        raise InputError(f"expected at least 1 draw, got {total.min()}")
    if np.any((count < 0) | (count > total)):
        raise InputError(f"expected successes in [0, draws], got {count} of {total}")
    return count.astype(np.int64), total.astype(np.int64)
