"""Randomized smoothing, and CERTIFY of Cohen et al.

The smoothed classifier's class at an image x is the class that the base classifier predicts most
often for x + d, d ~ N(0, sigma^2 I). If that class has probability at least p >= 1/2, the smoothed
classifier has the same class at every image closer to x than sigma Phi^-1(p) in L2.

`certify` is the paper's algorithm for one image. Runs certify many images at once
(`bench.certification.batched`), with the same draws and therefore the same certificates.

Source: Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing",
ICML 2019, arXiv 1902.02918.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_ndtr, ndtri
from torch import Tensor

from bench.certification.noise import Noise, Piece
from bench.decision import NO_CLASS, classes_of
from bench.errors import InputError
from bench.statistics.clopper_pearson import check_failure_probability, clopper_pearson_lower
from bench.store.records import ABSTAINED, FloatArray, IntArray


@dataclass(frozen=True)
class Smoothing:
    """The noise of a smoothed classifier, and the number of draws for a certificate.

    Attributes:
        sigma: standard deviation of the noise, in the [0, 1] pixel scale.
        selection_samples: draws that select the class (n0 in the paper).
        noise_samples: the most draws that bound its probability (n in the paper).
        failure_probability: the largest probability, over the draws, that a certificate is wrong
            (alpha in the paper).

    Raises:
        InputError: sigma is not above 0, a number of draws is below 1, or the failure probability
            is not in (0, 1).
    """

    sigma: float
    selection_samples: int = 100
    noise_samples: int = 100_000
    failure_probability: float = 0.001

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise InputError(f"expected sigma > 0, got {self.sigma}; 0.25, 0.5 and 1 are usual")
        for name in ("selection_samples", "noise_samples"):
            if getattr(self, name) < 1:
                raise InputError(f"expected {name} >= 1, got {getattr(self, name)}")
        check_failure_probability(self.failure_probability)

    @property
    def largest_radius(self) -> float:
        """The L2 radius that is certified if all draws agree: sigma Phi^-1(alpha^(1/n))."""
        return self.sigma * float(ndtri(self.failure_probability ** (1 / self.noise_samples)))

    def draws_for(self, radius: float) -> int:
        """Return how many draws certify an L2 radius at least, if all of them agree."""
        return math.ceil(math.log(self.failure_probability) / float(log_ndtr(radius / self.sigma)))


def certify(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    sigma: float,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    *,
    noise: Noise,
    index: int = 0,
    batch_size: int = 1_000,
) -> tuple[int, float]:
    """Return the smoothed classifier's class at an image, and an L2 radius that is certified.

    Guarantee: with probability at least 1 - alpha over the noise, either the result is `ABSTAINED`
    or the smoothed classifier predicts the returned class at every image within the radius
    (Cohen et al. 2019, proposition 2).

    Args:
        model: the base classifier, from images (m, C, H, W) to logits (m, K).
        image: (C, H, W) float32 in [0, 1], on the noise's device.
        sigma: standard deviation of the noise, > 0.
        n0: draws that select the class, >= 1.
        n: draws that bound its probability, >= 1.
        alpha: failure probability, in (0, 1).
        noise: where the draws come from.
        index: the image's place in the data set, which decides its draws.
        batch_size: noisy images in one pass; it does not change the result.

    Returns:
        The class and the radius; `ABSTAINED` and 0 if the class's probability may be below 1/2.

    Raises:
        InputError: sigma, n0, n or alpha is out of its range.
    """
    Smoothing(sigma, n0, n, alpha)

    def sample_under_noise(first: int, count: int) -> IntArray:
        classes = []
        for start in range(first, first + count, batch_size):
            piece = Piece(0, index, start, min(batch_size, first + count - start))
            with torch.no_grad():
                logits = model(image + sigma * noise.normal([piece], image.shape))
            classes.append(classes_of(logits).cpu())
        return count_votes(torch.cat(classes).numpy(), logits.shape[1])

    counts0 = sample_under_noise(0, n0)
    top_class = int(counts0.argmax())
    counts = sample_under_noise(n0, n)
    p_lower = clopper_pearson_lower(counts[top_class], n, alpha)
    if p_lower < 0.5:
        return ABSTAINED, 0.0
    return top_class, float(certified_radii(p_lower, sigma))


def count_votes(classes: IntArray, number_of_classes: int) -> IntArray:
    """Return the votes (K,) of each class among `classes` (n,); `NO_CLASS` counts for none."""
    return np.bincount(classes[classes != NO_CLASS], minlength=number_of_classes)


def certified_radii(lower_bounds: FloatArray, sigma: float) -> FloatArray:
    """Return sigma Phi^-1(p) for lower bounds p of the class's probability; NaN below 1/2."""
    radii = sigma * ndtri(np.maximum(lower_bounds, 0.5))
    return np.asarray(np.where(lower_bounds >= 0.5, radii, np.nan), dtype=np.float64)
