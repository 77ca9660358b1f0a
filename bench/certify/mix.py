"""Certificates of a mix whose robust base is a smoothed classifier.

The mix says log((1 - alpha) p_g + alpha p_h). Nothing is known of the accurate base's probabilities
p_g but that they are probabilities; the robust base's p_h cannot change fast, since they are
expectations under Gaussian noise. Where p_h leads by (1 - alpha) / alpha, no p_g can overrule it.

All functions take bounds that hold at the sample itself: `right` (N,), lower bounds of p_h of the
class that is to be certified, and `others` (N, M), upper bounds of p_h of every other class, or one
column that bounds them all (`bench.certify.bounds`). Radii are L2 distances in the [0, 1] pixel
scale, inside which the mix cannot leave the class; 0 where nothing is certified. They hold where
the bounds do.

Source: Bai, Anderson, Kim and Sojoudi, "Improving the Accuracy-Robustness Trade-Off of Classifiers
via Adaptive Smoothing", arXiv 2301.12554, which has the margin, the Lipschitz radius and
`paper_smoothing_radius`; `smoothed_lipschitz_constant` and `smoothing_radius` are tighter.
Runs certify mixes of one weight by `smoothing_radius`; the others are for whoever has bounds of a
mix's own, such as those of an input-dependent weight (`smallest_alpha`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from bench.errors import InputError
from bench.store.records import FloatArray

BISECTIONS = 60
"""Halvings in the search for a radius: far below the rounding of the probabilities."""


def smallest_alpha(scale: float, bias: float) -> float:
    """The infimum of alpha(x) = scale * sigmoid(gamma(x)) + bias over all gamma.

    An attack may push the mixing network anywhere, so that an input-dependent mix is certified by
    the smallest alpha of its range.

    Raises:
        InputError: the range leaves [0, 1].
    """
    low, high = sorted((bias, bias + scale))
    if not (low >= 0 and high <= 1):
        raise InputError(f"expected a range of alpha inside [0, 1], got [{low:g}, {high:g}]")
    return low


def keeps_margin(
    right: FloatArray, others: FloatArray, alpha: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    """Whether p_h leads by (1 - alpha) / alpha, so that the mix is decided whatever p_g is.

    If the bounds hold on a whole ball, the mix is certified on that ball.

    Args:
        alpha: one weight, or (N,), in [0, 1].

    Returns:
        (N,).

    Raises:
        InputError: an argument out of its range.
    """
    leading, following, weight = _check(right, others, alpha)
    return np.asarray(weight * (leading - following) >= 1 - weight, dtype=np.bool_)


def smoothed_lipschitz_constant(sigma: float) -> float:
    """How fast a probability under Gaussian noise can change, in L2: 1 / (sigma sqrt(2 pi)).

    A function with values in [0, 1] and its mirror 1 - f have the same slope, which halves the
    constant sqrt(2 / pi) / sigma for values in [-1, 1] that the paper uses.

    Raises:
        InputError: sigma is not above 0.
    """
    _check_sigma(sigma)
    return 1 / (sigma * math.sqrt(2 * math.pi))


def lipschitz_radius(
    right: FloatArray,
    others: FloatArray,
    alpha: npt.ArrayLike,
    right_constant: float,
    other_constants: npt.ArrayLike,
) -> FloatArray:
    """The radius within which Lipschitz-continuous probabilities keep the margin.

    Args:
        alpha: one weight, or (N,), in [0, 1].
        right_constant: Lipschitz constant of the right class's probability, > 0.
        other_constants: of the others', > 0: one number, or (M,).

    Returns:
        (N,) min over i of (alpha (p_y - p_i) + alpha - 1) / (alpha (L_y + L_i)), in the norm of the
        constants.

    Raises:
        InputError: an argument out of its range.
    """
    leading, _, weight = _check(right, others, alpha)
    constants = np.asarray(other_constants, dtype=np.float64)
    if not (right_constant > 0 and np.all(constants > 0)):
        raise InputError(
            f"expected Lipschitz constants > 0, got {right_constant:g} and {constants.tolist()}"
        )
    weight = np.broadcast_to(weight, leading.shape)[:, None]
    margin = weight * (leading[:, None] - others) + weight - 1
    # With alpha = 0 the margin is -1: no certificate, whatever it is divided by.
    slope = np.maximum(weight, np.finfo(np.float64).tiny) * (right_constant + constants)
    return np.asarray(np.maximum((margin / slope).min(axis=1), 0.0), dtype=np.float64)


def paper_smoothing_radius(
    right: FloatArray, others: FloatArray, alpha: npt.ArrayLike, sigma: float
) -> FloatArray:
    """The paper's radius for a robust base under Gaussian noise.

    Args:
        alpha: one weight, or (N,), in [0, 1].
        sigma: of the noise, > 0.

    Returns:
        (N,) sigma / 2 (Phi^-1(alpha p_y) - max_i Phi^-1(alpha p_i + 1 - alpha)).

    Raises:
        InputError: an argument out of its range.
    """
    leading, following, weight = _check(right, others, alpha)
    _check_sigma(sigma)
    high = np.minimum((1 - weight) + weight * following, 1.0)
    return _half_distance(ndtri(weight * leading), ndtri(high), sigma)


def smoothing_radius(
    right: FloatArray, others: FloatArray, alpha: npt.ArrayLike, sigma: float
) -> FloatArray:
    """The largest radius within which Gaussian smoothing provably keeps the margin.

    At distance r, p_y is at least Phi(Phi^-1(p_y) - r / sigma) and p_i at most
    Phi(Phi^-1(p_i) + r / sigma) (Salman et al. 2019, arXiv 1906.04584, for probabilities and
    votes alike); the radius is where the difference of the two falls to (1 - alpha) / alpha.
    It is never below `paper_smoothing_radius`, and exact for two classes with a linear boundary.

    Args:
        alpha: one weight, or (N,), in [0, 1].
        sigma: of the noise, > 0.

    Returns:
        (N,); with alpha = 1 the base's own sigma / 2 (Phi^-1(p_y) - max_i Phi^-1(p_i)).

    Raises:
        InputError: an argument out of its range.
    """
    leading, following, weight = _check(right, others, alpha)
    _check_sigma(sigma)
    a, b = ndtri(leading), ndtri(following)
    own = _half_distance(a, b, 1.0)
    weight = np.broadcast_to(weight, own.shape)
    margin = (1 - weight) / np.maximum(weight, np.finfo(np.float64).tiny)
    certified = leading - following >= margin
    bounded = np.minimum(margin, 1.0)
    # Each of the two probabilities alone bounds the radius; so the search starts from finite ends.
    with np.errstate(invalid="ignore"):
        high = np.minimum(own, np.minimum(a - ndtri(bounded), ndtri(1 - bounded) - b))
    searched = certified & np.isfinite(high) & (margin > 0)
    low = np.zeros_like(own)
    high = np.where(searched, np.maximum(high, 0.0), 0.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        kept = ndtr(a - middle) - ndtr(b + middle) >= margin
        low, high = np.where(kept, middle, low), np.where(kept, high, middle)
    # Without a search: alpha = 1, or probabilities 1 and 0, which no distance changes.
    return np.where(searched, low, np.where(certified, own, 0.0)) * sigma


def _half_distance(high: FloatArray, low: FloatArray, sigma: float) -> FloatArray:
    """sigma / 2 (high - low), 0 where it is negative or both are at the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nan_to_num(sigma / 2 * np.maximum(high - low, 0.0), posinf=np.inf))


def _check_sigma(sigma: float) -> None:
    if not (sigma > 0 and math.isfinite(sigma)):
        raise InputError(f"expected sigma > 0, got {sigma}")


def _check(
    right: FloatArray, others: FloatArray, alpha: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The right class's bounds, the largest of the others' and the weights."""
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
