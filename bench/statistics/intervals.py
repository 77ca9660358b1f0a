"""Intervals of an accuracy from a number of samples that was fixed in advance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict
from scipy.stats import beta, hypergeom

from bench.errors import InputError


class Interval(BaseModel):
    """A 95% confidence interval of a fraction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    kind: Literal["binomial", "hypergeometric", "anytime"] = "binomial"
    """Of what: the population of images (binomial), or the finite test set of which the samples are
    a random part, of a size fixed in advance (hypergeometric) or found on the way (anytime)."""

    @property
    def width(self) -> float:
        """Its length, a fraction."""
        return self.high - self.low


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
    check_counts(successes, n, confidence)
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.isf(tail, successes + 1, n - successes)) if successes < n else 1.0
    return Interval(low=low, high=high)


def exact_hypergeometric_interval(
    successes: int, n: int, population: int, confidence: float = 0.95
) -> Interval:
    """The exact interval of a finite population's proportion, from a random part of it.

    Over random subsets of n the population's own proportion is covered with probability at least
    `confidence`; each side fails with at most half of the rest. It ends at the proportion itself
    when the whole population was seen.

    Source: the tests of the hypergeometric distribution inverted, as Clopper and Pearson do for the
    binomial; Wang, "Exact optimal confidence intervals for hypergeometric parameters", JASA 110
    (2015), calls it the standard interval.

    Args:
        successes: among those drawn, in [0, n].
        n: how many were drawn without replacement, in [1, population].
        population: how many there are.
        confidence: in (0, 1).

    Returns:
        the interval, as fractions in [0, 1].

    Raises:
        InputError: an argument out of its range.
    """
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
    """Make sure that counts and confidence can be.

    Raises:
        InputError: one of them is out of its range.
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
    """The least number in [low, high] for which `holds` is true, if it stays so; else `high`."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
