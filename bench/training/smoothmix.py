"""SmoothMix: noisy images mixed with over-confident adversarial ones, towards less confidence.

J. Jeong, S. Park, M. Kim, H.-C. Lee, D. Kim, J. Shin, "SmoothMix: Training Confidence-calibrated
Smoothed Classifiers for Certified Robustness", NeurIPS 2021 (arXiv 2111.09277), algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.decision import classes_of
from bench.training.noise import (
    ascent_direction,
    cross_entropy_of_copies,
    divergence,
    draw_noise,
    into_ball,
    log_mean_softmax,
    noisy_logits,
)
from bench.training.perturbation import under_attack
from bench.training.smoothing import SmoothingTraining, warm_up
from bench.training.smoothing_settings import SmoothMixSettings


def loss(
    settings: SmoothMixSettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> Tensor:
    """Cross-entropy of the noisy copies, and the mixed term; see ``SmoothingLoss``.

    The same noise is in the attack, in the cross-entropy and in the mixed term. The target's own
    gradient counts: the mixed term draws the probabilities at the clean end down as well.
    """
    noise = draw_noise(images, settings.sigma, settings.noise_draws, generator)
    weight = warm_up(epoch, settings.warm_up_epochs)
    start, end = path_ends(settings, network, images, labels, noise, weight)
    scores = noisy_logits(network, start, noise, settings.precision)
    shares = torch.rand(len(images), generator=generator).div_(2).to(images.device)
    mixed = torch.lerp(start, end, shares.view(-1, 1, 1, 1))
    mean = log_mean_softmax(scores).exp()
    targets = torch.lerp(mean, torch.full_like(mean, 1 / mean.shape[1]), shares[:, None])
    mixed_scores = noisy_logits(network, mixed, noise, settings.precision)
    is_right = classes_of(mean) == labels
    mixed_loss = (is_right * divergence(targets, mixed_scores)).mean()
    return cross_entropy_of_copies(scores, labels) + settings.mix_weight * weight * mixed_loss


def path_ends(
    settings: SmoothMixSettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    noise: Tensor,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """The two images (N, C, H, W) in [0, 1] between which is mixed, without a gradient.

    The far one comes of T steps up -log F, clamped to [0, 1] after each but kept in no ball: it
    may lie beyond the decision boundary, where a smoothed classifier is sure of something wrong.

    Args:
        noise: (m, N, C, H, W), the same for every step.
        weight: In (0, 1]; the factor on the radius of the one-step adversary's ball.
    """
    length = settings.attack_step_size * settings.sigma
    start = end = images
    with under_attack(network, training=False):
        for step in range(settings.attack_steps):
            direction = ascent_direction(network, end, labels, noise, settings.precision)
            end = (end + length * direction).clamp(0, 1)
            if step == 0 and settings.one_step_adversary:
                start = into_ball(end, images, weight * length)
    return start, end


train = SmoothingTraining(SmoothMixSettings, loss)
