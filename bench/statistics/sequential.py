"""Inference about a finite population that holds whenever the sampling stops.

scipy has no such intervals.

Samples are drawn without replacement from a population of N zeros and ones of which K are ones. For
a prior pi over K, the ratio M_t(K) = pi(K) / pi_t(K) of prior and posterior after t draws is, at
the true K, a nonnegative supermartingale that starts at 1, whatever K is. By Ville's inequality it
ever reaches 1/alpha with probability at most alpha: the set of all K with M_t(K) < 1/alpha covers
the truth at all times at once with probability 1 - alpha, so that one may look after every draw and
stop when one likes. The prior is beta-binomial; it decides how narrow the sets are, not whether
they cover.

Source: Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement", NeurIPS
2020 (arXiv 2006.04347), section 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, gammaln

from bench.errors import InputError
from bench.statistics.intervals import Interval, check_counts, exact_binomial_interval

PRIOR_ONES, PRIOR_ZEROS = 1.0, 1.0
"""The beta-binomial prior's parameters: uniform over 0 ... N."""

Numbers = npt.NDArray[np.float64]


def anytime_interval(successes: int, n: int, population: int, confidence: float = 0.95) -> Interval:
    """Return an interval of a population's proportion that holds at whatever n sampling stopped.

    Args:
        successes: the number of ones among those drawn so far, in [0, n].
        n: how many were drawn without replacement, in [1, population].
        population: the size of the population.
        confidence: in (0, 1).

    Returns:
        the interval, as fractions in [0, 1].

    Raises:
        InputError: an argument is out of its range.
    """
    check_counts(successes, n, confidence, population)
    possible = np.arange(successes, population - (n - successes) + 1)
    ratio = log_martingale(possible, successes, n, population)
    # The ratio is one over the likelihood of the counts, which is unimodal: no gaps.
    kept = possible[ratio < -np.log(1 - confidence)]
    return Interval(low=int(kept[0]) / population, high=int(kept[-1]) / population, kind="anytime")


def interval_at_look(successes: int, n: int, look: int, confidence: float = 0.95) -> Interval:
    """Return a proportion's interval such that those of all looks hold at once.

    At look t = 1, 2, ... another proportion may be looked at, on the same or on other draws. The
    exact binomial interval at look t may fail with probability (1 - confidence) / (t (t + 1)).
    These sum to 1 - confidence, so that with probability `confidence` none ever fails, however
    many there are: one may stop at any look, and pick any of them, for what was seen.

    Args:
        successes: the number of draws that succeeded, in [0, n].
        n: the number of independent draws, at least 1.
        look: t, at least 1.
        confidence: in (0, 1).

    Returns:
        the interval, as fractions in [0, 1].

    Raises:
        InputError: an argument is out of its range.
    """
    if look < 1:
        raise InputError(f"expected a look of at least 1, got {look}")
    return exact_binomial_interval(successes, n, 1 - (1 - confidence) / (look * (look + 1)))


def anytime_p_value(claimed: int, successes: int, n: int, population: int) -> float:
    """Return a p-value of `claimed` ones that holds at whatever n sampling stopped.

    It is one over the martingale; the other arguments are those of `anytime_interval`.

    Raises:
        InputError: an argument is out of its range.
    """
    check_counts(successes, n, population=population)
    if not successes <= claimed <= population - (n - successes):
        return 0.0
    value = log_martingale(np.array([claimed]), successes, n, population)
    return float(np.exp(-max(value[0], 0.0)))


def log_martingale(
    ones: npt.ArrayLike, successes: npt.ArrayLike, n: npt.ArrayLike, population: int
) -> Numbers:
    """Return log M_t(K), by how much the draws have made K ones less likely.

    Arguments broadcast against each other.

    Args:
        ones: K, possible after the draws: in [successes, population - (n - successes)].
        successes: the number of ones among the n drawn.
        n: t, in [0, population].
        population: N.
    """
    k, s, t = (np.asarray(value, dtype=np.float64) for value in (ones, successes, n))
    prior = _log_beta_binomial(k, float(population), PRIOR_ONES, PRIOR_ZEROS)
    posterior = _log_beta_binomial(k - s, population - t, PRIOR_ONES + s, PRIOR_ZEROS + t - s)
    return prior - posterior


def _log_beta_binomial(
    ones: Numbers, n: Numbers | float, a: Numbers | float, b: Numbers | float
) -> Numbers:
    """Return the logarithm of the beta-binomial probability of `ones` among n."""
    choose = gammaln(np.asarray(n) + 1) - gammaln(ones + 1) - gammaln(n - ones + 1)
    result: Numbers = choose + betaln(ones + a, n - ones + b) - betaln(a, b)
    return result
