"""Test whether a finite population has at least so many ones, looking whenever one likes.

Units are drawn at random without replacement. If the population has at least K ones, the next draw
is a one with probability at least m = (K - ones so far) / (units left). A bettor who puts money on
"fewer" and multiplies the capital by 1 + stake (m - draw), stake >= 0, has a nonnegative
supermartingale: the capital ever reaches 1 / alpha with probability at most alpha (Ville 1939).
That holds for any stakes that are chosen before the draw, so that one may look after every draw
and stop when one likes.

Stakes decide the power only. Two things raise it here. What is known of every unit in advance, a
score, predicts draws that were not made yet; the bet is then on what the prediction leaves open,
draw - prediction + mean prediction of the units left, which has the same mean and less variance.
And the stake is the one that is best where the number of draws that can be paid is known, with some
larger and smaller ones beside it.

A draw may also be larger than the truth: an attack that fails counts a unit as a one although it is
none. The capital falls with every draw and with the ones so far, so larger draws only lower it.
For this to hold also where draws of one round depend on each other, stakes and predictions are
fixed for the whole round.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
86 (2024), for betting, also without replacement; Angelopoulos et al., "Prediction-powered
inference", Science 382 (2023), for means that are corrected by predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.errors import InputError

Numbers = npt.NDArray[np.float64]

USUAL_HORIZON = 400
"""Draws for which stakes are chosen where nobody says how many can be paid."""

FACTORS = np.array([0.3, 0.6, 1.0, 1.6, 3.0])
SHARES = np.array([0.1, 0.15, 0.45, 0.2, 0.1])
"""Stakes beside the best one, as multiples of it, and the shares of the capital that they get."""

LARGEST_STAKE = 0.9
"""A stake's largest share of the one at which one draw could take all."""

FIRST_SPREAD = 0.15
"""Variance of a draw around its prediction before anything is known, and its weight in draws."""
SPREAD_WEIGHT = 20.0

FIRST_SLOPE, SLOPE_WEIGHT = 2.0, 0.1
"""How the logarithm of the odds grows with the normal score of a unit's rank, before any draw."""


@dataclass(frozen=True)
class Round:
    """One round of draws.

    Attributes:
        units: (n,) int, which units of the population were drawn, in the order of the draw.
        ones: (n,) bool, what they were.
    """

    units: npt.NDArray[np.int64]
    ones: npt.NDArray[np.bool_]


def capital(
    claimed: int,
    population: int,
    rounds: Sequence[Round],
    scores: Numbers | None = None,
    horizon: int = USUAL_HORIZON,
    level: float = 0.05,
) -> Numbers:
    """Return the logarithm of the capital after each draw, for "at least `claimed` ones".

    The claim is refuted at `level` as soon as it is at least log(1 / level).

    Args:
        claimed: the number of ones in the population that is tested, >= 0.
        population: the number of units.
        rounds: the draws so far; no unit twice.
        scores: (population,), known before any draw; ones should have the higher scores. None:
            nothing is known.
        horizon: how many draws are expected to be made; it decides the power, not the validity.
        level: the false alarm for which stakes are chosen, in (0, 1).

    Returns:
        (number of draws,); infinite from where the draws leave no room for so many ones.

    Raises:
        InputError: an argument is out of its range, or a unit is drawn twice.
    """
    _check(claimed, population, rounds, scores, level)
    ranks = None if scores is None else _normal_ranks(scores)
    money = np.log(SHARES)
    left = np.ones(population, dtype=bool)
    seen_units: list[npt.NDArray[np.int64]] = []
    seen_ones: list[npt.NDArray[np.bool_]] = []
    ones = 0
    spread, weight = FIRST_SPREAD * SPREAD_WEIGHT, SPREAD_WEIGHT
    history = []
    for each in rounds:
        predicted = np.zeros(population)
        if ranks is not None:
            units = np.concatenate(seen_units) if seen_units else np.array([], dtype=np.int64)
            outcomes = np.concatenate(seen_ones) if seen_ones else np.array([], dtype=bool)
            predicted = _predictions(ranks, units, outcomes)
        n, size = len(each.units), int(left.sum())
        own = predicted[each.units]
        drawn = each.ones.astype(np.float64)
        # Before each draw: how many ones must still come, and the mean prediction of what is left.
        before = np.arange(n)
        least = (claimed - ones - (np.cumsum(drawn) - drawn)) / (size - before)
        mean = (predicted[left].sum() - (np.cumsum(own) - own)) / (size - before)
        stakes = _stakes(spread / weight, level, horizon, predicted[left], n, claimed - ones, size)
        gains = 1 + stakes[:, None] * (least - (drawn - own + mean))[None]
        gains = np.where(least > 0, gains, 0.0)  # the claim is borne out: the bet is lost
        with np.errstate(divide="ignore"):
            path = money[:, None] + np.log(np.maximum(gains, 0)).cumsum(axis=1)
        money = path[:, -1] if n else money
        is_impossible = claimed - ones - np.cumsum(drawn) > size - 1 - before
        history.append(np.where(is_impossible, np.inf, np.logaddexp.reduce(path, axis=0)))
        spread += float(((drawn - own - (drawn - own).mean()) ** 2).sum()) if n else 0.0
        weight += n
        ones += int(drawn.sum())
        left[each.units] = False
        seen_units.append(each.units)
        seen_ones.append(each.ones)
    return np.concatenate(history) if history else np.array([])


def anytime_bounds(
    population: int,
    rounds: Sequence[Round],
    scores: Numbers | None = None,
    horizon: int = USUAL_HORIZON,
    level: float = 0.05,
) -> tuple[int, int]:
    """Return bounds of the number of ones, each of which ever fails with probability `level`.

    Arguments and errors are those of `capital`. The upper bound is the largest number that no
    round's capital refutes; the lower one is found alike, by bets on more ones.
    """
    limit = math.log(1 / level)
    flipped = [Round(each.units, ~each.ones) for each in rounds]
    opposite = None if scores is None else -scores

    def stands(claimed: int) -> bool:
        return bool((capital(claimed, population, rounds, scores, horizon, level) < limit).all())

    def stands_below(zeros: int) -> bool:
        return bool((capital(zeros, population, flipped, opposite, horizon, level) < limit).all())

    seen = sum(len(each.units) for each in rounds)
    ones = sum(int(each.ones.sum()) for each in rounds)
    high = _last(ones, population - (seen - ones), stands)
    low = population - _last(seen - ones, population - ones, stands_below)
    return min(low, high), high


def _last(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the largest number in [low, high] for which `holds`, if it holds for all below."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _stakes(
    spread: float, level: float, horizon: int, predicted: Numbers, n: int, missing: int, size: int
) -> Numbers:
    """Return the stakes of a round, so that no draw takes more than all.

    The best stake for `horizon` draws of that variance is sqrt(2 log(1 / level) / (horizon
    variance)): it reaches 1 / level there at the smallest difference.
    """
    best = math.sqrt(2 * math.log(1 / level) / (max(horizon, 1) * max(spread, 0.01)))
    least = max((missing - n) / max(size, 1), 0.0)
    lowest = float(predicted.min()) if size else 0.0
    # Before the last draw n - 1 units are gone; the mean is largest if they are the lowest ones.
    mean = (float(predicted.sum()) - (n - 1) * lowest) / max(size - n + 1, 1)
    loss = 1 - lowest + min(mean, 1.0) - least  # the most that a stake of 1 can lose in a draw
    result: Numbers = np.minimum(FACTORS * best, LARGEST_STAKE / max(loss, 0.05))
    return result


def _normal_ranks(scores: Numbers) -> Numbers:
    """Return scores (N,) as normal quantiles of their ranks: their order is all that counts."""
    from scipy.special import ndtri

    order = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
    result: Numbers = ndtri((order + 0.5) / len(scores))
    return result


def _predictions(
    ranks: Numbers, units: npt.NDArray[np.int64], ones: npt.NDArray[np.bool_]
) -> Numbers:
    """Return the probability (N,) that each unit is a one, by logistic regression on its rank.

    The regression is drawn to `FIRST_SLOPE`, as if some draws had said so.
    """
    x, y = ranks[units], ones.astype(np.float64)
    design = np.stack([np.ones_like(x), x])
    prior, precision = np.array([0.0, FIRST_SLOPE]), np.diag([0.05, 1.0 / SLOPE_WEIGHT])
    beta = prior.copy()
    for _ in range(12):  # Newton's steps; the prior keeps them finite
        p = 1 / (1 + np.exp(-np.clip(beta @ design, -30, 30)))
        gradient = design @ (y - p) - precision @ (beta - prior)
        hessian = (design * (p * (1 - p))) @ design.T + precision
        step = np.linalg.solve(hessian, gradient)
        beta = beta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    result: Numbers = 1 / (1 + np.exp(-np.clip(beta[0] + beta[1] * ranks, -30, 30)))
    return result


def _check(
    claimed: int,
    population: int,
    rounds: Sequence[Round],
    scores: Numbers | None,
    level: float,
) -> None:
    if claimed < 0 or population < 1:
        raise InputError(
            f"expected claimed >= 0 and a population >= 1, got {claimed} and {population}"
        )
    if not 0 < level < 1:
        raise InputError(f"expected a level in (0, 1), got {level}; 0.05 is usual")
    if scores is not None and (scores.shape != (population,) or not np.isfinite(scores).all()):
        raise InputError(
            f"expected {population} finite scores, got {scores.shape}: one for each unit"
        )
    units = np.concatenate([each.units for each in rounds]) if rounds else np.array([], dtype=int)
    if len(units) and (units.min() < 0 or units.max() >= population):
        raise InputError(f"expected units in [0, {population - 1}], got others")
    if len(np.unique(units)) != len(units):
        raise InputError("expected each unit once, got one that is drawn twice")


def unexplained(population: int, rounds: Sequence[Round], scores: Numbers | None = None) -> float:
    """Return the variance of the draws around what the scores predict of them, in [0, 1].

    Arguments are those of `capital`; without draws it is that of a fair coin.
    """
    drawn = [each for each in rounds if len(each.units)]
    if not drawn:
        return 0.25
    units = np.concatenate([each.units for each in drawn])
    ones = np.concatenate([each.ones for each in drawn])
    if scores is None:
        return float(ones.var())
    predicted = _predictions(_normal_ranks(scores), units, ones)[units]
    return float((ones - predicted).var())
