"""Confidence bounds of probabilities that are estimated from draws, many samples at once.

Every bound here is one-sided and fails with at most the probability that it is given: `lower`
bounds lie above the truth, `upper` bounds below it, no oftener than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from bench.errors import InputError
from bench.store.records import FloatArray, IntArray

BISECTIONS = 40
"""Halvings of [0, 1] in the search for a betting bound: an error below 1e-12."""
LARGEST_BET = 0.5
"""Of the bet that would ruin: Waudby-Smith and Ramdas' constant c."""


@dataclass(frozen=True)
class ProbabilityBounds:
    """Simultaneous bounds of a classifier's class probabilities at N samples.

    Attributes:
        right: (N,) lower bounds of the probability of the class that is to be certified.
        others: (N, M) upper bounds of the other classes'; one column bounds each of them.
    """

    right: FloatArray
    others: FloatArray


def check_failure_probability(value: float) -> None:
    """Refuse what is no probability of failure.

    Raises:
        InputError: it is not in (0, 1).
    """
    if not 0 < value < 1:
        raise InputError(f"expected a failure probability in (0, 1), got {value}; 0.001 is usual")


def clopper_pearson_lower(
    successes: npt.ArrayLike, draws: npt.ArrayLike, failure_probability: float
) -> FloatArray:
    """Exact lower bound of a proportion.

    Source: Clopper and Pearson, Biometrika 26 (1934).

    Args:
        successes: (...) integers in [0, draws].
        draws: (...) integers >= 1.
        failure_probability: of the one side, in (0, 1).

    Returns:
        (...) in [0, 1).

    Raises:
        InputError: an argument out of its range.
    """
    check_failure_probability(failure_probability)
    count, total = _check_counts(successes, draws)
    some = np.maximum(count, 1)
    bound = betaincinv(some, total - some + 1, failure_probability)
    return np.asarray(np.where(count > 0, bound, 0.0), dtype=np.float64)


def clopper_pearson_upper(
    successes: npt.ArrayLike, draws: npt.ArrayLike, failure_probability: float
) -> FloatArray:
    """Exact upper bound of a proportion; otherwise as `clopper_pearson_lower`."""
    count, total = _check_counts(successes, draws)
    return 1 - clopper_pearson_lower(total - count, total, failure_probability)


def hoeffding_lower(
    means: npt.ArrayLike, draws: npt.ArrayLike, failure_probability: float
) -> FloatArray:
    """Lower bound of the expectation of independent draws in [0, 1], from their mean.

    Source: Hoeffding, Journal of the American Statistical Association 58 (1963), theorem 1.

    Args:
        means: (...) in [0, 1].
        draws: (...) integers >= 1, how many draws each mean is of.
        failure_probability: in (0, 1).

    Returns:
        (...) in [0, 1].

    Raises:
        InputError: an argument out of its range.
    """
    check_failure_probability(failure_probability)
    mean, total = np.asarray(means, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    _check_unit("means", mean)
    if np.any(total < 1):
        raise InputError(f"expected at least 1 draw, got {total.min():g}")
    width = np.sqrt(-np.log(failure_probability) / (2 * total))
    return np.asarray(np.maximum(mean - width, 0.0), dtype=np.float64)


def betting_lower(values: FloatArray, failure_probability: float) -> FloatArray:
    """Lower bound of the expectation of independent draws in [0, 1], by betting against it.

    Whoever bets that the expectation is above m multiplies the capital by 1 + b_t (X_t - m), b_t
    chosen before X_t is seen. If the expectation is at most m, the capital ever reaches 1 /
    failure_probability with at most that probability (Ville), so that each m where it did is
    refuted. Much tighter than Hoeffding's bound where the draws vary little.

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
    arXiv 2010.09686: one side of the hedged capital process, with plug-in bets.

    Args:
        values: (..., n) draws in [0, 1], n >= 1, in the order in which they came.
        failure_probability: in (0, 1).

    Returns:
        (...) in [0, 1].

    Raises:
        InputError: an argument out of its range.
    """
    check_failure_probability(failure_probability)
    _check_unit("values", values)
    n = values.shape[-1]
    if n < 1:
        raise InputError("expected at least 1 draw, got 0")
    bets = _plug_in_bets(values, failure_probability)
    threshold = -np.log(failure_probability)
    low, high = np.zeros(values.shape[:-1]), np.ones(values.shape[:-1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        expectation = middle[..., None]
        capped = np.minimum(bets, LARGEST_BET / expectation)
        capital = np.cumsum(np.log1p(capped * (values - expectation)), axis=-1)
        refuted = capital.max(axis=-1) >= threshold
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low


def vote_bounds(
    counts: IntArray, classes: IntArray, failure_probability: float, draws: int | None = None
) -> ProbabilityBounds:
    """Bounds of the vote's probabilities, each class by its own Clopper-Pearson bound.

    Args:
        counts: (N, K) votes of independent draws.
        classes: (N,) the classes to certify, chosen without these draws.
        failure_probability: that any bound of a sample fails, in (0, 1); Bonferroni's inequality
            gives each of the K bounds an equal part.
        draws: of each sample, where some voted for no class; None: all voted.

    Raises:
        InputError: an argument out of its range.
    """
    total = counts.sum(axis=1, keepdims=True) if draws is None else draws
    return _class_bounds(
        classes,
        counts.shape,
        failure_probability,
        lambda each: clopper_pearson_lower(counts, total, each),
        lambda each: clopper_pearson_upper(counts, total, each),
    )


def mean_softmax_bounds(
    means: FloatArray, draws: int, classes: IntArray, failure_probability: float
) -> ProbabilityBounds:
    """Bounds of the mean softmax, each class by Hoeffding's inequality.

    Args:
        means: (N, K) mean softmax over independent draws.
        draws: how many.
        classes, failure_probability: as in `vote_bounds`.

    Raises:
        InputError: an argument out of its range.
    """
    return _class_bounds(
        classes,
        means.shape,
        failure_probability,
        lambda each: hoeffding_lower(means, draws, each),
        lambda each: 1 - hoeffding_lower(1 - means, draws, each),
    )


def softmax_bounds(
    values: FloatArray, classes: IntArray, failure_probability: float
) -> ProbabilityBounds:
    """Bounds of the mean softmax, each class by betting.

    Args:
        values: (N, n, K) softmax of each of n independent draws, in their order.
        classes, failure_probability: as in `vote_bounds`.

    Raises:
        InputError: an argument out of its range.
    """
    by_class = np.moveaxis(values, 1, 2)
    return _class_bounds(
        classes,
        by_class.shape[:2],
        failure_probability,
        lambda each: betting_lower(by_class, each),
        lambda each: 1 - betting_lower(1 - by_class, each),
    )


def _class_bounds(
    classes: IntArray,
    shape: tuple[int, ...],
    failure_probability: float,
    lower: Callable[[float], FloatArray],
    upper: Callable[[float], FloatArray],
) -> ProbabilityBounds:
    """Bonferroni over K classes; the others are also at most what the right one leaves."""
    n, classes_count = shape
    check_failure_probability(failure_probability)
    if np.any((classes < 0) | (classes >= classes_count)):
        raise InputError(f"expected classes in [0, {classes_count}), got {classes.tolist()}")
    each = failure_probability / classes_count
    right = lower(each)[np.arange(n), classes]
    mask = np.arange(classes_count) != classes[:, None]
    others = upper(each)[mask].reshape(n, classes_count - 1)
    return ProbabilityBounds(right, np.minimum(others, 1 - right[:, None]))


def _plug_in_bets(values: FloatArray, failure_probability: float) -> FloatArray:
    """Bets (..., n): each from the variance of the draws before it alone."""
    n = values.shape[-1]
    steps = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(values, axis=-1)) / (steps + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2, axis=-1)) / (steps + 1)
    before = np.concatenate([np.full((*values.shape[:-1], 1), 0.25), variances[..., :-1]], axis=-1)
    return np.asarray(np.sqrt(-2 * np.log(failure_probability) / (n * before)), dtype=np.float64)


def _check_counts(
    successes: npt.ArrayLike, draws: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    count, total = np.broadcast_arrays(np.asarray(successes), np.asarray(draws))
    if np.any(total < 1):
        raise InputError(f"expected at least 1 draw, got {total.min()}")
    if np.any((count < 0) | (count > total)):
        raise InputError(f"expected successes in [0, draws], got {count} of {total}")
    return count.astype(np.int64), total.astype(np.int64)


def _check_unit(name: str, values: FloatArray) -> None:
    if not np.all((values >= 0) & (values <= 1)):
        raise InputError(f"expected {name} in [0, 1], got {values.min():g} to {values.max():g}")
