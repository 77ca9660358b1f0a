"""Exact tests: two candidates on the same samples, and a sample against a published number."""

from __future__ import annotations

import functools

from scipy.stats import binomtest, hypergeom

from bench.errors import InputError
from bench.statistics.intervals import check_counts

SIGNIFICANCE = 0.05


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """The exact paired test of whether two candidates do equally well on the same samples.

    Samples on which both are right or both are wrong say nothing; of the others each candidate wins
    half, if they are equally good. Two-sided.

    Source: McNemar, Psychometrika 12 (1947), in its exact (binomial) form.

    Args:
        only_first: samples that only the first one gets right, >= 0.
        only_second: samples that only the second one gets right, >= 0.

    Raises:
        InputError: a negative count.
    """
    if min(only_first, only_second) < 0:
        raise InputError(f"expected counts >= 0, got {only_first} and {only_second}")
    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def claim_p_value(claimed: int, successes: int, n: int, population: int) -> float:
    """The exact test of a claim about a finite population, given a random part of it.

    Twice the smaller tail of the hypergeometric distribution, at most 1. With n = population there
    is no chance left: 1 if the counts agree, else 0.

    Args:
        claimed: ones in the population, as published, in [0, population].
        successes: among those drawn, in [0, n].
        n: how many were drawn without replacement, in [1, population].
        population: how many there are.

    Raises:
        InputError: an argument out of its range.
    """
    check_counts(successes, n, population=population)
    _check_claim(claimed, population)
    below = float(hypergeom.cdf(successes, population, claimed, n))
    above = float(hypergeom.sf(successes - 1, population, claimed, n))
    return min(1.0, 2 * min(below, above))


def power(claimed: int, true: int, n: int, population: int) -> float:
    """How likely a random part of n shows that a claim is too high, at `SIGNIFICANCE`.

    Args:
        claimed: ones in the population, as published.
        true: ones in the population in truth, fewer than claimed.
        n: how many are drawn without replacement.
        population: how many there are.
    """
    critical = _critical(claimed, n, population)
    return float(hypergeom.cdf(critical, population, true, n))


@functools.cache
def required_sample_size(
    claimed: int, population: int, gap: float = 0.01, wanted: float = 0.9
) -> int:
    """Samples that tell a claim from a truth that is lower by `gap` with power `wanted`.

    Found by bisection. The power of an exact test is a saw in n, since counts are whole: a somewhat
    smaller n may do as well.

    Args:
        claimed: ones in the population, as published, in [0, population].
        population: how many there are.
        gap: a fraction of the population; at most what is claimed.
        wanted: in (0, 1).

    Raises:
        InputError: an argument out of its range.
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
    """The most successes among n that still contradict the claim from below; -1 if none do."""
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
