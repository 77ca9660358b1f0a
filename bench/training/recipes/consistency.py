"""Consistency regularization: noisy copies of an image should get one answer.

J. Jeong, J. Shin, "Consistency Regularization for Certified Robustness of Smoothed Classifiers",
NeurIPS 2020 (arXiv 2006.04062), on top of Gaussian augmentation.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from bench.training.smoothing import (
    NoisyBatch,
    SmoothingSettings,
    cross_entropy_of_copies,
    divergence,
    log_mean_softmax,
    register_smoothing_recipe,
)


class ConsistencySettings(SmoothingSettings):
    """The settings of consistency regularization."""

    noise_draws: int = Field(default=2, ge=2)
    batch_size: int = Field(default=128, ge=1)
    consistency_weight: float = Field(default=10.0, ge=0)
    """lambda, the weight of the divergence between copies."""
    entropy_weight: float = Field(default=0.5, ge=0)
    """eta, the weight of the mean probabilities' entropy."""


def loss(settings: ConsistencySettings, batch: NoisyBatch) -> Tensor:
    """Return CE + lambda mean_j KL(F || f(x + d_j)) + eta H(F)."""
    scores = batch.scores(batch.images)
    log_mean = log_mean_softmax(scores)
    mean = log_mean.exp()
    entropy = -(mean * log_mean).sum(dim=1).mean()
    return (
        cross_entropy_of_copies(scores, batch.labels)
        + settings.consistency_weight * divergence(mean, scores).mean()
        + settings.entropy_weight * entropy
    )


register_smoothing_recipe(
    "consistency", "noisy images, and one answer for all copies of one", ConsistencySettings, loss
)
