"""MACER: the certified radius of the soft smoothed classifier is maximised, without attacks.

R. Zhai, C. Dan, D. He, H. Zhang, B. Gong, P. Ravikumar, C.-J. Hsieh, L. Wang, "MACER: Attack-free
and Scalable Robust Training via Maximizing Certified Radius", ICLR 2020 (arXiv 2001.02378).
"""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor

from bench.training.smoothing import (
    NoisyBatch,
    SmoothingSettings,
    log_mean_softmax,
    register_smoothing_recipe,
)


class MacerSettings(SmoothingSettings):
    """The settings of MACER."""

    noise_draws: int = Field(default=16, ge=2)
    batch_size: int = Field(default=64, ge=1)
    epochs: int = Field(default=440, ge=1)
    decay_every: int = Field(default=200, ge=1)
    peak_learning_rate: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    radius_weight: float = Field(default=4.0, ge=0)
    """lambda, the weight of the radius term."""
    inverse_temperature: float = Field(default=16.0, gt=0)
    """beta, a factor on the logits in the radius term."""
    hinge: float = Field(default=8.0, gt=0)
    """gamma: a difference of quantiles beyond it is not increased further."""
    deferred_epochs: int = Field(default=0, ge=0)
    """Epochs without the radius term; the paper has 200 at sigma = 1."""


def loss(settings: MacerSettings, batch: NoisyBatch) -> Tensor:
    """Return -log F of the label plus the hinged radius if correct."""
    scores = batch.scores(batch.images)
    classification = -log_mean_softmax(scores).gather(1, batch.labels[:, None]).mean()
    if batch.epoch < settings.deferred_epochs:
        return classification
    return classification + settings.radius_weight * radius_loss(settings, scores, batch.labels)


def radius_loss(settings: MacerSettings, scores: Tensor, labels: Tensor) -> Tensor:
    """Return sigma / 2 times the mean over images of max(gamma - xi, 0), 0 for wrong images.

    xi = Phi^-1(p_1) - Phi^-1(p_2), where p_1 and p_2 are the two largest mean probabilities of the
    logits (m, N, K) times beta. An image with a probability that has rounded to 0 or 1 has no
    finite quantile, and contributes nothing, like those beyond the hinge.
    """
    probabilities = log_mean_softmax(settings.inverse_temperature * scores).exp()
    (first, second), (guess, _) = (each.unbind(dim=1) for each in probabilities.topk(2))
    with torch.no_grad():
        gap = torch.special.ndtri(first) - torch.special.ndtri(second)
        counts = (guess == labels) & gap.isfinite() & (gap <= settings.hinge)
    # Select before the quantiles are taken: an infinite one would put a NaN into the gradient.
    difference = torch.special.ndtri(first[counts]) - torch.special.ndtri(second[counts])
    hinged = cast(Tensor, settings.hinge - difference)
    return hinged.sum() * settings.sigma / 2 / len(labels)


register_smoothing_recipe(
    "macer", "noisy images, and a large certified radius", MacerSettings, loss
)
