"""SmoothAdv: cross-entropy on adversarial images of the smoothed classifier, under noise.

H. Salman, G. Yang, J. Li, P. Zhang, H. Zhang, I. Razenshteyn, S. Bubeck, "Provably Robust Deep
Learning via Adversarially Trained Smoothed Classifiers", NeurIPS 2019 (arXiv 1906.04584): the PGD
variant.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.training.noise import (
    ascent_direction,
    cross_entropy_of_copies,
    draw_noise,
    into_ball,
    noisy_logits,
)
from bench.training.perturbation import under_attack
from bench.training.smoothing import SmoothingTraining, warm_up
from bench.training.smoothing_settings import SmoothAdvSettings


def loss(
    settings: SmoothAdvSettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> Tensor:
    """Mean cross-entropy of the adversarial images' noisy copies; see ``SmoothingLoss``.

    The noise is the one that the adversarial images were found with.
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
    """PGD on the mean softmax: images (N, C, H, W) in [0, 1] within L2 distance eps.

    Args:
        noise: (m, N, C, H, W), the same for every step.
    """
    adversarial = images
    with under_attack(network, training=False):
        for _ in range(settings.attack_steps):
            direction = ascent_direction(network, adversarial, labels, noise, settings.precision)
            moved = adversarial + 2 * eps / settings.attack_steps * direction
            # Both ends lie in [0, 1], hence what is between them does.
            adversarial = into_ball(moved.clamp(0, 1), images, eps)
    return adversarial


train = SmoothingTraining(SmoothAdvSettings, loss)
