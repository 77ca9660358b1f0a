"""Gaussian augmentation: cross-entropy on noisy images.

J. Cohen, E. Rosenfeld, Z. Kolter, "Certified Adversarial Robustness via Randomized Smoothing",
ICML 2019 (arXiv 1902.02918).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.training.smoothing import (
    SmoothingSettings,
    cross_entropy_of_copies,
    draw_noise,
    noisy_logits,
    register_smoothing_recipe,
)


class GaussianSettings(SmoothingSettings):
    """The settings of Gaussian augmentation."""


def loss(
    settings: GaussianSettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> Tensor:
    """Return the mean cross-entropy of the noisy copies; see ``SmoothingLoss``."""
    noise = draw_noise(images, settings.sigma, settings.noise_draws, generator)
    scores = noisy_logits(network, images, noise, settings.precision)
    return cross_entropy_of_copies(scores, labels)


register_smoothing_recipe("gaussian", "cross-entropy on noisy images", GaussianSettings, loss)
