"""Intervals of an accuracy if the number of samples was fixed in advance.

The interval of a binomial proportion is scipy's; scipy has none for the hypergeometric
distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bench.errors import InputError
from bench.statistics.clopper_pearson import clopper_pearson_lower, clopper_pearson_upper


class Interval(BaseModel):
    """A confidence interval of a fraction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    kind: Literal["binomial", "hypergeometric", "anytime"] = "binomial"
    """What the fraction refers to: the population of images (binomial), or the finite test set of
    which the samples are a random part, of a size that was fixed in advance (hypergeometric) or
    found while sampling (anytime)."""

    @property
    def width(self) -> float:
        """The length of the interval, a fraction."""
        return self.high - self.low


def exact_binomial_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the exact (Clopper-Pearson) interval of a proportion.

    Over independent draws, the interval covers the true proportion with probability at least
    `confidence`, whatever that proportion is; each side fails with at most half of the rest.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
    of the binomial", Biometrika 26 (1934).

    Args:
        successes: the number of draws that succeeded, in [0, n].
        n: the number of draws, at least 1.
        confidence: in (0, 1).

    Returns:
        the interval, as fractions in [0, 1].

    Raises:
        InputError: an argument is out of its range.
    """
    check_counts(successes, n, confidence)
    tail = (1 - confidence) / 2
    return Interval(
        low=float(clopper_pearson_lower(successes, n, tail)),
        high=float(clopper_pearson_upper(successes, n, tail)),
    )


def exact_hypergeometric_interval(
    successes: int, n: int, population: int, confidence: float = 0.95
) -> Interval:
    """Return the exact interval of a finite population's proportion, from a random part of it.

    Over random subsets of n, the interval covers the population's proportion with probability at
    least `confidence`; each side fails with at most half of the rest. Where the whole population
    was seen, the interval is the proportion itself.

    Source: the interval inverts the tests of the hypergeometric distribution, as Clopper and
    Pearson do for the binomial; Wang, "Exact optimal confidence intervals for hypergeometric
    parameters", JASA 110 (2015), calls it the standard interval.

    Args:
        successes: the number of ones among those drawn, in [0, n].
        n: how many were drawn without replacement, in [1, population].
        population: the size of the population.
        confidence: in (0, 1).

    Returns:
        the interval, as fractions in [0, 1].

    Raises:
        InputError: an argument is out of its range.
    """
    from scipy.stats import hypergeom  # slow to import

    check_counts(successes, n, confidence, population)
    tail = (1 - confidence) / 2
    least, most = successes, population - (n - successes)
    # The fewest successes in the population that still give as many as were seen, by bisection:
    # P(X >= successes) grows with them, P(X <= successes) falls.
    low = _first(
        least, most, lambda total: hypergeom.sf(successes - 1, population, total, n) > tail
    )
    high = most - _first(
        0, most - least, lambda less: hypergeom.cdf(successes, population, most - less, n) > tail
    )
    return Interval(low=low / population, high=high / population, kind="hypergeometric")


def check_counts(
    successes: int, n: int, confidence: float = 0.95, population: int | None = None
) -> None:
    """Refuse counts or a confidence that are out of range.

    Raises:
        InputError: one of them is.
    """
    if n < 1:
        raise InputError(f"expected n >= 1, got {n}; an interval needs at least one sample")
    if not 0 <= successes <= n:
        raise InputError(f"expected 0 <= successes <= n = {n}, got {successes}")
    if not 0 < confidence < 1:
        raise InputError(f"expected a confidence in (0, 1), got {confidence}; 0.95 is usual")
    if population is not None and population < n:
        raise InputError(f"expected a population >= n = {n}, got {population}")


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the least number in [low, high] from which on `holds` is true, else `high`.

    `holds` must not become false again.
    """
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
