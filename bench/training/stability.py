"""Stability training: a noisy image should get the clean one's probabilities.

B. Li, C. Chen, W. Wang, L. Carin, "Certified Adversarial Robustness with Additive Noise", NeurIPS
2019 (arXiv 1809.03113), after S. Zheng et al., "Improving the Robustness of Deep Neural Networks
via Stability Training", CVPR 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.training.noise import draw_noise, noisy_logits
from bench.training.precision import logits
from bench.training.smoothing import SmoothingTraining
from bench.training.smoothing_settings import StabilitySettings


def loss(
    settings: StabilitySettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> Tensor:
    """CE(f(x), y) + lambda mean_j CE(f(x + d_j), softmax f(x)); see ``SmoothingLoss``.

    Clean and noisy images pass through the network apart, each normalised by their own batch.
    """
    noise = draw_noise(images, settings.sigma, settings.noise_draws, generator)
    clean = logits(network, images, settings.precision)
    scores = noisy_logits(network, images, noise, settings.precision)
    stability = -(clean.softmax(dim=1) * scores.log_softmax(dim=2)).sum(dim=2).mean()
    return functional.cross_entropy(clean, labels) + settings.stability_weight * stability


train = SmoothingTraining(StabilitySettings, loss)
