"""Certification that stops drawing noise as soon as the question is settled.

The question is whether a sample is certified at radius r, that is, whether the class's probability
p is at least q = Phi(r / sigma). Consider a gambler who starts with capital 1 and bets on every
vote that p is larger than q. If it is not, the capital is a nonnegative supermartingale, and the
probability that it ever reaches 1 / a is at most a (Ville's inequality), however often one looks
and whenever one stops. So the answer is yes as soon as the capital reaches 1 / a. Drawing stops
when each radius that was asked for has an answer.

The capital is a mixture over alternatives: the likelihood ratio of p' against q, averaged over odds
that are e^d times those of q. It falls as q grows, so the largest q at which it reaches 1 / a is a
lower bound of p that holds at all times at once: a confidence sequence. scipy has no such bound.

The confidence sequence takes 70% of the failure probability (`SEQUENTIAL_SHARE`). The other 30% is
kept for a Clopper-Pearson bound at the last draw, so that a sample near the threshold, which needs
all draws, is certified nearly wherever the fixed procedure would certify it. By the union bound
both hold together with at least the probability that is asked for. Giving up early ("no") cannot
make a certificate wrong. It is done when, judging by the votes so far, the remaining draws will
hardly reach the last bound.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", arXiv
2010.09686; Voracek, "Treatment of statistical estimation problems in randomized smoothing for
adversarial robustness", NeurIPS 2024, arXiv 2406.17830.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, logsumexp, ndtr, ndtri

from bench.certification.procedure import Evidence
from bench.certification.smoothing import Smoothing, certified_radii
from bench.errors import InputError
from bench.statistics.clopper_pearson import clopper_pearson_lower
from bench.store.records import FloatArray, IntArray

FIRST_LOOK = 100
GROWTH = 1.02
"""Ratio of the numbers of draws at two consecutive looks, which limits the draws made in vain."""
SEQUENTIAL_SHARE = 0.7
"""Share of the failure probability for the confidence sequence; the last bound has the rest."""
REFUSAL_PROBABILITY = 0.01
"""A look gives up where the remaining draws reach the last bound with less probability."""
BISECTIONS = 50
QUESTIONS = (0.0, 0.25, 0.5, 0.75)
"""L2 radii of the papers' tables that are always asked for."""

_LOG_ODDS = np.exp(np.arange(math.log(0.02), math.log(10), math.log(1.5)))
"""The alternatives d, from 0.5% above a half to no failure at all; a finer grid would save at most
4% of the draws."""
_LOG_WEIGHTS = np.log(_LOG_ODDS**0.25 / (_LOG_ODDS**0.25).sum())
"""Large odds weigh somewhat more, since most certified samples have probabilities near 1."""


@dataclass(frozen=True)
class SequentialProcedure:
    """Draws until it is settled at which of some radii a sample is certified.

    Attributes:
        smoothing: the noise, and the most draws.
        questions: the radii that are asked for, L2 in the [0, 1] pixel scale, ascending.

    Raises:
        InputError: there is no radius, or a negative one.
    """

    smoothing: Smoothing
    questions: tuple[float, ...] = QUESTIONS
    name: str = field(default="sequential", init=False)

    def __post_init__(self) -> None:
        if not self.questions or min(self.questions) < 0:
            raise InputError(f"expected radii >= 0, at least one; got {list(self.questions)}")

    @property
    def settings(self) -> dict[str, Any]:
        """See `Procedure`: the radii, and how the failure probability is split."""
        return {"radii": list(self.questions), "sequential_share": SEQUENTIAL_SHARE}

    def start(self, samples: int) -> Evidence:
        """See `Procedure`."""
        return Evidence.none(samples, len(self.questions))

    def next_look(self, drawn: int) -> int:
        """See `Procedure`; the distance between looks grows with the number of draws."""
        step = max(FIRST_LOOK, FIRST_LOOK * round(drawn * (GROWTH - 1) / FIRST_LOOK))
        return min(drawn + step, self.smoothing.noise_samples)

    def judge(self, evidence: Evidence) -> npt.NDArray[np.bool_]:
        """See `Procedure`."""
        successes, drawn = evidence.successes[:, None], evidence.drawn[:, None]
        left = self.smoothing.noise_samples - drawn
        needed = self._last_counts
        capital = log_capital(successes, drawn, self._thresholds)
        evidence.certified |= capital >= -math.log(self._sequential_failure)
        evidence.certified |= (left == 0) & (successes >= needed)
        most = successes + most_successes(successes, drawn, left, REFUSAL_PROBABILITY)
        evidence.refuted |= ~evidence.certified & ((most < needed) | (left == 0))
        settled = (evidence.certified | evidence.refuted).all(axis=1)
        return np.asarray(settled, dtype=np.bool_)

    def radii(self, evidence: Evidence) -> FloatArray:
        """See `Procedure`: at least the largest radius that was asked for and certified."""
        bounds = lower_bounds(evidence.successes, evidence.drawn, self._sequential_failure)
        last = clopper_pearson_lower(
            evidence.successes, np.maximum(evidence.drawn, 1), self._last_failure
        )
        exhausted = evidence.drawn >= self.smoothing.noise_samples
        bounds = np.where(exhausted, np.maximum(bounds, last), bounds)
        found = certified_radii(bounds, self.smoothing.sigma)
        settled = np.where(evidence.certified, np.array(self.questions), np.nan)
        return np.fmax(found, np.fmax.reduce(settled, axis=1))

    @property
    def _sequential_failure(self) -> float:
        return SEQUENTIAL_SHARE * self.smoothing.failure_probability

    @property
    def _last_failure(self) -> float:
        return (1 - SEQUENTIAL_SHARE) * self.smoothing.failure_probability

    @cached_property
    def _thresholds(self) -> FloatArray:
        """The probabilities (R,) that the radii need."""
        return np.asarray(ndtr(np.array(self.questions) / self.smoothing.sigma))

    @cached_property
    def _last_counts(self) -> IntArray:
        """The successes (R,) among all draws that the last bound needs; n + 1: out of reach.

        The Clopper-Pearson bound grows with the count, so bisection finds the smallest count.
        """
        n = self.smoothing.noise_samples
        low = np.zeros(len(self.questions), dtype=np.int64)
        high = np.full(len(self.questions), n + 1, dtype=np.int64)
        while np.any(high - low > 1):
            middle = (low + high) // 2
            reached = betaincinv(middle, n - middle + 1, self._last_failure) >= self._thresholds
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        return high


def log_capital(successes: npt.ArrayLike, drawn: npt.ArrayLike, rate: npt.ArrayLike) -> FloatArray:
    """Return the log capital of a gambler who bets that the rate of success is above `rate`.

    Args:
        successes: (...) votes for the class so far.
        drawn: (...) draws so far.
        rate: (...) in (0, 1); the three broadcast.

    Returns:
        (...).
    """
    wins = np.asarray(successes, dtype=np.float64)[..., None]
    total = np.asarray(drawn, dtype=np.float64)[..., None]
    share = np.asarray(rate, dtype=np.float64)[..., None]
    ratios = wins * _LOG_ODDS - total * np.log1p(share * np.expm1(_LOG_ODDS))
    return np.asarray(logsumexp(ratios + _LOG_WEIGHTS, axis=-1), dtype=np.float64)


def most_successes(
    successes: IntArray, drawn: IntArray, left: IntArray, failure_probability: float
) -> FloatArray:
    """Return an approximate upper bound of the successes among the remaining draws.

    The rate's upper bound is exact (Clopper and Pearson). Its distance to the estimate and the
    spread of the draws to come, at that bound, are independent errors, so their squares are added
    (Zou and Donner, Statistics in Medicine 27, 2008).

    Args:
        successes: (...) votes for the class so far.
        drawn: (...) draws so far, at least 1.
        left: (...) draws to come.
        failure_probability: the probability that more will succeed, in (0, 1/2).

    Returns:
        (...) at most `left`.
    """
    rate = successes / drawn
    highest = 1 - clopper_pearson_lower(drawn - successes, drawn, failure_probability)
    rate_error = left * (highest - rate)
    spread = ndtri(1 - failure_probability) * np.sqrt(left * highest * (1 - highest))
    return np.asarray(np.minimum(left * rate + np.hypot(rate_error, spread), left))


def lower_bounds(successes: IntArray, drawn: IntArray, failure_probability: float) -> FloatArray:
    """Return the confidence sequence: lower bounds that hold at all numbers of draws at once.

    Args:
        successes: (N,) votes for the class so far.
        drawn: (N,) draws so far.
        failure_probability: the probability that any of a sample's bounds, at any time, is above
            the truth.

    Returns:
        (N,) in [0, 1).
    """
    low, high = np.zeros(len(successes)), np.ones(len(successes))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        refuted = log_capital(successes, drawn, middle) >= -math.log(failure_probability)
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low
