"""Intervals of the accuracies that the benchmark reports."""

from __future__ import annotations

from scipy.stats import beta

from bench.errors import InputError
from bench.records import Interval


def exact_binomial_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact (Clopper-Pearson) interval of a proportion.

    Over independent draws it covers the true proportion with probability at least `confidence`,
    whatever that proportion is; each side fails with at most half of the rest.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
    of the binomial", Biometrika 26 (1934).

    Args:
        successes: how many of the draws succeeded, in [0, n].
        n: how many draws, at least 1.
        confidence: in (0, 1).

    Returns:
        the interval, as fractions in [0, 1].

    Raises:
        InputError: an argument out of its range.
    """
    if n < 1:
        raise InputError(f"expected n >= 1, got {n}; an interval needs at least one sample")
    if not 0 <= successes <= n:
        raise InputError(f"expected 0 <= successes <= n = {n}, got {successes}")
    if not 0 < confidence < 1:
        raise InputError(f"expected a confidence in (0, 1), got {confidence}; 0.95 is usual")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.isf(tail, successes + 1, n - successes)) if successes < n else 1.0
    return Interval(low=low, high=high)
