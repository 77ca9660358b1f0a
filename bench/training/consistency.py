"""Consistency regularization: noisy copies of an image should get one answer.

J. Jeong, J. Shin, "Consistency Regularization for Certified Robustness of Smoothed Classifiers",
NeurIPS 2020 (arXiv 2006.04062), on top of Gaussian augmentation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.training.noise import (
    cross_entropy_of_copies,
    divergence,
    draw_noise,
    log_mean_softmax,
    noisy_logits,
)
from bench.training.smoothing import SmoothingTraining
from bench.training.smoothing_settings import ConsistencySettings


def loss(
    settings: ConsistencySettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> Tensor:
    """Cross-entropy + lambda mean_j KL(F || f(x + d_j)) + eta H(F); see ``SmoothingLoss``."""
    noise = draw_noise(images, settings.sigma, settings.noise_draws, generator)
    scores = noisy_logits(network, images, noise, settings.precision)
    log_mean = log_mean_softmax(scores)
    mean = log_mean.exp()
    entropy = -(mean * log_mean).sum(dim=1).mean()
    return (
        cross_entropy_of_copies(scores, labels)
        + settings.consistency_weight * divergence(mean, scores).mean()
        + settings.entropy_weight * entropy
    )


train = SmoothingTraining(ConsistencySettings, loss)
