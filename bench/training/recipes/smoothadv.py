"""SmoothAdv: cross-entropy on adversarial images of the smoothed classifier, under noise.

H. Salman, G. Yang, J. Li, P. Zhang, H. Zhang, I. Razenshteyn, S. Bubeck, "Provably Robust Deep
Learning via Adversarially Trained Smoothed Classifiers", NeurIPS 2019 (arXiv 1906.04584): the PGD
variant.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.training.network import under_attack
from bench.training.smoothing import (
    SmoothingSettings,
    ascent_direction,
    cross_entropy_of_copies,
    draw_noise,
    into_ball,
    noisy_logits,
    register_smoothing_recipe,
    warm_up,
)


class SmoothAdvSettings(SmoothingSettings):
    """The settings of adversarial training of smoothed classifiers."""

    noise_draws: int = Field(default=2, ge=1)
    batch_size: int = Field(default=128, ge=1)
    eps: float = Field(default=1.0, gt=0)
    """Radius of the L2 ball, reached after the warm-up."""
    attack_steps: int = Field(default=10, ge=1)
    """T, steps of length 2 eps / T."""
    warm_up_epochs: int = Field(default=10, ge=1)


def loss(
    settings: SmoothAdvSettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> Tensor:
    """Return the mean cross-entropy of the adversarial images' noisy copies; see ``SmoothingLoss``.

    The adversarial images are found with the same noise.
    """
    noise = draw_noise(images, settings.sigma, settings.noise_draws, generator)
    eps = settings.eps * warm_up(epoch, settings.warm_up_epochs)
    adversarial = attack(settings, network, images, labels, noise, eps)
    scores = noisy_logits(network, adversarial, noise, settings.precision)
    return cross_entropy_of_copies(scores, labels)


def attack(
    settings: SmoothAdvSettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    noise: Tensor,
    eps: float,
) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] within L2 distance eps, from PGD on the mean softmax.

    Args:
        settings: The recipe's settings.
        network: The base.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        noise: (m, N, C, H, W), the same for every step.
        eps: Radius of the ball.
    """
    adversarial = images
    with under_attack(network, training=False):
        for _ in range(settings.attack_steps):
            direction = ascent_direction(network, adversarial, labels, noise, settings.precision)
            moved = adversarial + 2 * eps / settings.attack_steps * direction
            # Both ends lie in [0, 1], so everything between them does.
            adversarial = into_ball(moved.clamp(0, 1), images, eps)
    return adversarial


register_smoothing_recipe(
    "smoothadv",
    "cross-entropy on images attacked in the L2 ball through the noise",
    SmoothAdvSettings,
    loss,
)
