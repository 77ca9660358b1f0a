"""Gaussian augmentation: cross-entropy on noisy images.

J. Cohen, E. Rosenfeld, Z. Kolter, "Certified Adversarial Robustness via Randomized Smoothing",
ICML 2019 (arXiv 1902.02918).
"""

from __future__ import annotations

from torch import Tensor

from bench.training.smoothing import (
    NoisyBatch,
    SmoothingSettings,
    cross_entropy_of_copies,
    register_smoothing_recipe,
)


class GaussianSettings(SmoothingSettings):
    """The settings of Gaussian augmentation."""


def loss(settings: GaussianSettings, batch: NoisyBatch) -> Tensor:
    """Return the mean cross-entropy of the noisy copies."""
    return cross_entropy_of_copies(batch.scores(batch.images), batch.labels)


register_smoothing_recipe("gaussian", "cross-entropy on noisy images", GaussianSettings, loss)
