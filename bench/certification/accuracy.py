"""Numbers that sum up the certificates of a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.store.records import ABSTAINED, Certificates
from bench.store.summary import Certified

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25)
"""L2 radii at which the papers print certified accuracy."""


def average_certified_radius(certificates: Certificates) -> float:
    """Return the ACR: the mean over all samples of the radius, 0 where the prediction is wrong.

    Source: Zhai et al., "MACER: Attack-free and Scalable Robust Training via Maximizing Certified
    Radius", ICLR 2020, arXiv 2001.02378.
    """
    right = certificates.prediction == certificates.label
    return float(np.mean(certificates.radius * right))


def certified_counts(certificates: Certificates, radii: Sequence[float]) -> list[int]:
    """Return, for each of `radii`, the number of samples that are certified and right at it."""
    right = certificates.prediction == certificates.label
    return [int(np.sum(right & (certificates.radius >= radius))) for radius in radii]


def summarise(
    certificates: Certificates, sigma: float, settled: Sequence[float] = RADII
) -> Certified:
    """Return what a run's summary keeps of certificates.

    Args:
        sigma: of the noise.
        settled: the radii that the draws settled; at others more draws might certify more.
    """
    n = len(certificates.index)
    known = bool((certificates.noise_samples >= 0).all())
    radii = [radius for radius in RADII if radius in settled]
    counts = certified_counts(certificates, radii)
    return Certified(
        sigma=sigma,
        average_certified_radius=average_certified_radius(certificates),
        accuracy_at_radius={
            f"{radius:.2f}": count / n for radius, count in zip(radii, counts, strict=True)
        },
        abstained=float(np.mean(certificates.prediction == ABSTAINED)),
        mean_noise_samples=float(certificates.noise_samples.mean()) if known else None,
    )


def linf_radius(l2_radius: float, shape: Sequence[int]) -> float:
    """Return the radius of the largest Linf ball inside an L2 ball: r / sqrt(d).

    A change of at most e in each of d values has an L2 length of at most e sqrt(d), and of exactly
    that where all change by e.

    Args:
        l2_radius: r, at least 0, in the [0, 1] pixel scale.
        shape: (C, H, W) of the images; d is its product.
    """
    return l2_radius / math.sqrt(math.prod(shape))
