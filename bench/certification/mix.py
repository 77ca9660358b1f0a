"""Certificates of a mix whose robust base is a smoothed classifier that votes.

The mix's probabilities are (1 - alpha) p_g(x) + alpha p_h(x), p_g the accurate base's probabilities
and p_h the probabilities with which the robust base votes under noise. p_g may change arbitrarily
within any distance; p_h cannot change fast, since its values are expectations under Gaussian noise.
Where p_h leads by (1 - alpha) / alpha, no p_g can overrule it. One that is not finite can: the mix
then has no answer, and counts as wrong. That p_g is finite within the radius is assumed, and is
checked at adversarial images inside it (`bench.flags.certificates`).

Source: Bai, Anderson, Kim and Sojoudi, "Improving the Accuracy-Robustness Trade-Off of Classifiers
via Adaptive Smoothing", arXiv 2301.12554; the radius here is larger than the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from bench.certification.smoothing import Smoothing
from bench.errors import InputError
from bench.statistics.clopper_pearson import clopper_pearson_lower
from bench.store.records import FloatArray, IntArray

BISECTIONS = 60
"""Steps of the search for a radius: its error is far below the rounding of the probabilities."""


@dataclass(frozen=True)
class MixedVote:
    """Turns the votes of an image into the certificate of a mix with a fixed weight.

    Attributes:
        accurate: (N, K) p_g of the images, without noise; not finite where that base has no answer.
        alpha: the weight of the vote, in [0, 1].
        smoothing: the robust base's noise, and the number of draws.
    """

    accurate: FloatArray
    alpha: float
    smoothing: Smoothing

    def __call__(
        self, row: int, selection: IntArray, votes: IntArray, draws: int
    ) -> tuple[int, float] | None:
        """Return the class of an image and the L2 radius within which it cannot change.

        Over the draws, the probability that the mix has another class at the image, or anywhere
        within the radius, is at most `smoothing.failure_probability`.

        Args:
            row: the image's place in `accurate`.
            selection: (K,) votes of the draws that select the class.
            votes: (K,) votes of the draws that bound the probabilities.
            draws: the number of the latter draws, with those that voted for no class.

        Returns:
            None if the draws do not determine the class, or the accurate base has no answer. The
            radius is 0 where the class is certain at the image, but the vote alone does not decide.
        """
        p_g = self.accurate[row]
        if not np.isfinite(p_g).all():
            return None
        p_h = selection / max(selection.sum(), 1)
        selected = int(((1 - self.alpha) * p_g + self.alpha * p_h).argmax())
        bounds = vote_bounds(votes, selected, self.smoothing.failure_probability, draws)
        p_g_others, p_h_others = np.delete(p_g, selected), bounds.others
        if votes.sum() < draws:
            # No answer is one more outcome of the vote; the selected class leaves it the rest.
            p_g_others = np.append(p_g_others, 0.0)
            p_h_others = np.append(p_h_others, 1 - bounds.right)
        lead = (1 - self.alpha) * (p_g[selected] - p_g_others)
        lead += self.alpha * (bounds.right - p_h_others)
        if lead.min() <= 0:
            return None
        (radius,) = smoothing_radius(
            np.array([bounds.right]), p_h_others[None], self.alpha, self.smoothing.sigma
        )
        return selected, float(radius)


@dataclass(frozen=True)
class VoteBounds:
    """Bounds of a vote's class probabilities that hold together.

    Attributes:
        right: lower bound of the selected class's probability.
        others: (K - 1,) upper bounds of the other classes' probabilities.
    """

    right: float
    others: FloatArray


def vote_bounds(
    votes: IntArray, selected: int, failure_probability: float, draws: int
) -> VoteBounds:
    """Return bounds of a vote's probabilities, each class by its own Clopper-Pearson bound.

    Args:
        votes: (K,) votes of independent draws.
        selected: the class to certify, selected without these draws.
        failure_probability: the probability that any of the bounds fails, in (0, 1); by
            Bonferroni's inequality each of the K bounds has an equal share of it.
        draws: the number of draws, with those that voted for no class.

    Raises:
        InputError: an argument is out of its range.
    """
    if not 0 <= selected < len(votes):
        raise InputError(f"expected a class in [0, {len(votes)}), got {selected}")
    share = failure_probability / len(votes)
    right = float(clopper_pearson_lower(votes[selected], draws, share))
    # Votes for other classes and for none are votes against a class.
    highest = 1 - clopper_pearson_lower(draws - np.delete(votes, selected), draws, share)
    # The selected class leaves the others no more than the rest.
    return VoteBounds(right, np.minimum(highest, 1 - right))


def smoothing_radius(
    right: FloatArray, others: FloatArray, alpha: npt.ArrayLike, sigma: float
) -> FloatArray:
    """Return the largest radius within which Gaussian smoothing provably keeps the mix's class.

    At distance r, p_y is at least Phi(Phi^-1(p_y) - r / sigma) and p_i at most
    Phi(Phi^-1(p_i) + r / sigma) (Salman et al. 2019, arXiv 1906.04584, for probabilities and
    votes alike); the radius is where the difference of the two falls to (1 - alpha) / alpha.
    It is never below the paper's sigma / 2 (Phi^-1(alpha p_y) - max_i Phi^-1(alpha p_i + 1 -
    alpha)), and exact for two classes with a linear boundary.

    Args:
        right: (N,) lower bounds of p_h of the class that is certified, at the images.
        others: (N, M) upper bounds of p_h of the other classes; one column may bound them all.
        alpha: one weight, or (N,), in [0, 1].
        sigma: standard deviation of the noise, > 0.

    Returns:
        (N,) L2 distances in the [0, 1] pixel scale, 0 where nothing is certified; with alpha = 1
        the base's own sigma / 2 (Phi^-1(p_y) - max_i Phi^-1(p_i)).

    Raises:
        InputError: an argument is out of its range.
    """
    leading, following, weight = _check(right, others, alpha)
    if not (sigma > 0 and math.isfinite(sigma)):
        raise InputError(f"expected sigma > 0, got {sigma}")
    a, b = ndtri(leading), ndtri(following)
    own = _half_distance(a, b)
    weight = np.broadcast_to(weight, own.shape)
    margin = (1 - weight) / np.maximum(weight, np.finfo(np.float64).tiny)
    certified = leading - following >= margin
    bounded = np.minimum(margin, 1.0)
    # Each of the two probabilities alone bounds the radius, so the search starts from finite ends.
    with np.errstate(invalid="ignore"):
        high = np.minimum(own, np.minimum(a - ndtri(bounded), ndtri(1 - bounded) - b))
    searched = certified & np.isfinite(high) & (margin > 0)
    low = np.zeros_like(own)
    high = np.where(searched, np.maximum(high, 0.0), 0.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        kept = ndtr(a - middle) - ndtr(b + middle) >= margin
        low, high = np.where(kept, middle, low), np.where(kept, high, middle)
    # No search is needed for alpha = 1, nor for probabilities 1 and 0, which no distance changes.
    return np.where(searched, low, np.where(certified, own, 0.0)) * sigma


def _half_distance(high: FloatArray, low: FloatArray) -> FloatArray:
    """Return (high - low) / 2, 0 where it is negative or both are at the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nan_to_num(np.maximum(high - low, 0.0) / 2, posinf=np.inf))


def _check(
    right: FloatArray, others: FloatArray, alpha: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the right class's bounds, the largest of the others' and the weights."""
    leading = np.asarray(right, dtype=np.float64)
    following = np.asarray(others, dtype=np.float64)
    weight = np.asarray(alpha, dtype=np.float64)
    if leading.ndim != 1 or following.ndim != 2 or len(following) != len(leading):
        raise InputError(
            f"expected bounds of shapes (N,) and (N, M), got {leading.shape} and {following.shape}"
        )
    for name, values in (("right", leading), ("others", following), ("alpha", weight)):
        if not np.all((values >= 0) & (values <= 1)):
            raise InputError(f"expected {name} in [0, 1], got {values.min():g} to {values.max():g}")
    return leading, following.max(axis=1), weight
