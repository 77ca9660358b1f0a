"""What certificates say of a whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.certify.votes import ABSTAINED
from bench.store.records import Certificates

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25)
"""Where the papers print certified accuracy."""


def average_certified_radius(certificates: Certificates) -> float:
    """ACR: mean over all samples of the radius where the prediction is right, else of 0.

    Source: Zhai et al., "MACER: Attack-free and Scalable Robust Training via Maximizing Certified
    Radius", ICLR 2020, arXiv 2001.02378.
    """
    right = certificates.prediction == certificates.label
    return float(np.mean(certificates.radius * right))


def certified_counts(certificates: Certificates, radii: Sequence[float]) -> list[int]:
    """How many samples are right with a certified radius of at least each of `radii`."""
    right = certificates.prediction == certificates.label
    return [int(np.sum(right & (certificates.radius >= radius))) for radius in radii]


def certified_numbers(certificates: Certificates) -> dict[str, Any]:
    """Return what a summary keeps of certificates: fields of `CertifiedSummary`."""
    n = len(certificates.index)
    known = bool((certificates.noise_samples >= 0).all())
    counts = certified_counts(certificates, RADII)
    return {
        "average_certified_radius": average_certified_radius(certificates),
        "accuracy_at_radius": {
            f"{radius:.2f}": count / n for radius, count in zip(RADII, counts, strict=True)
        },
        "abstained": float(np.mean(certificates.prediction == ABSTAINED)),
        "mean_noise_samples": float(certificates.noise_samples.mean()) if known else None,
    }
