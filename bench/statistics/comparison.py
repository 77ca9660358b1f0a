"""Exact tests that compare two candidates, or a candidate with a published number."""

from __future__ import annotations

import functools

from bench.errors import InputError
from bench.statistics.intervals import check_counts

SIGNIFICANCE = 0.05


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Return the exact p-value that two candidates do equally well on the same samples.

    The test is paired and two-sided. Samples on which both are right or both are wrong carry no
    information; if the candidates are equally good, each of them wins half of the others.

    Source: McNemar, Psychometrika 12 (1947), in its exact (binomial) form.

    Args:
        only_first: the number of samples that only the first one gets right, >= 0.
        only_second: the number of samples that only the second one gets right, >= 0.

    Raises:
        InputError: a count is negative.
    """
    if min(only_first, only_second) < 0:
        raise InputError(f"expected counts >= 0, got {only_first} and {only_second}")
    from scipy.stats import binomtest  # slow to import

    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def claim_p_value(claimed: int, successes: int, n: int, population: int) -> float:
    """Return the exact p-value of a claim about a finite population, given a random part of it.

    It is twice the smaller tail of the hypergeometric distribution, at most 1. With n = population
    nothing is left to chance: it is 1 if the counts agree, else 0.

    Args:
        claimed: the published number of ones in the population, in [0, population].
        successes: the number of ones among those drawn, in [0, n].
        n: how many were drawn without replacement, in [1, population].
        population: the size of the population.

    Raises:
        InputError: an argument is out of its range.
    """
    from scipy.stats import hypergeom  # slow to import

    check_counts(successes, n, population=population)
    _check_claim(claimed, population)
    below = float(hypergeom.cdf(successes, population, claimed, n))
    above = float(hypergeom.sf(successes - 1, population, claimed, n))
    return min(1.0, 2 * min(below, above))


def power(claimed: int, true: int, n: int, population: int) -> float:
    """Return the probability that n samples show, at `SIGNIFICANCE`, that a claim is too high.

    Args:
        claimed: the published number of ones in the population.
        true: the true number of ones in the population, smaller than claimed.
        n: how many are drawn without replacement.
        population: the size of the population.
    """
    from scipy.stats import hypergeom

    critical = _critical(claimed, n, population)
    return float(hypergeom.cdf(critical, population, true, n))


@functools.cache
def required_sample_size(
    claimed: int, population: int, gap: float = 0.01, wanted: float = 0.9
) -> int:
    """Return the number of samples that shows a claim to be too high by `gap`, with a given power.

    The number is found by bisection. Since counts are whole, the power of an exact test rises and
    falls like a saw with n, and a somewhat smaller n may do as well.

    Args:
        claimed: the published number of ones in the population, in [0, population].
        population: the size of the population.
        gap: a fraction of the population, at most what is claimed.
        wanted: the power, in (0, 1).

    Raises:
        InputError: an argument is out of its range.
    """
    _check_claim(claimed, population)
    true = max(claimed - max(round(gap * population), 1), 0)
    if true == claimed:
        return population  # a claim of nothing cannot be too high

    low, high = 1, population
    while low < high:
        middle = (low + high) // 2
        if power(claimed, true, middle, population) >= wanted:
            high = middle
        else:
            low = middle + 1
    return low


def _critical(claimed: int, n: int, population: int) -> int:
    """Return the most successes among n that contradict the claim from below; -1 if none do."""
    from scipy.stats import hypergeom

    low, high = -1, n
    while low < high:
        middle = (low + high + 1) // 2
        if 2 * float(hypergeom.cdf(middle, population, claimed, n)) < SIGNIFICANCE:
            low = middle
        else:
            high = middle - 1
    return low


def _check_claim(claimed: int, population: int) -> None:
    if not 0 <= claimed <= population:
        raise InputError(f"expected a claim in [0, {population}], got {claimed}")
