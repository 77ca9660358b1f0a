"""SmoothMix: noisy images mixed with over-confident adversarial ones, towards less confidence.

J. Jeong, S. Park, M. Kim, H.-C. Lee, D. Kim, J. Shin, "SmoothMix: Training Confidence-calibrated
Smoothed Classifiers for Certified Robustness", NeurIPS 2021 (arXiv 2111.09277), algorithm 1.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.decision import classes_of
from bench.training.draws import on_device
from bench.training.network import under_attack
from bench.training.smoothing import (
    NoisyBatch,
    SmoothingSettings,
    cross_entropy_of_copies,
    divergence,
    into_ball,
    log_mean_softmax,
    register_smoothing_recipe,
    warm_up,
)


class SmoothMixSettings(SmoothingSettings):
    """The settings of SmoothMix."""

    noise_draws: int = Field(default=2, ge=1)
    batch_size: int = Field(default=128, ge=1)
    attack_steps: int = Field(default=4, ge=1)
    """T, gradient steps to the image that is mixed in."""
    attack_step_size: float = Field(default=2.0, gt=0)
    """alpha, the L2 length of such a step, in units of sigma."""
    mix_weight: float = Field(default=5.0, ge=0)
    """eta, the weight of the mixed term."""
    warm_up_epochs: int = Field(default=10, ge=1)
    """Epochs until the mixed term, and the ball of the one-step adversary, have their full size."""
    noise_epochs: int = Field(default=0, ge=0)
    """Epochs on one noisy copy of each image, without the attack, before SmoothMix begins: they
    teach the classes at a fraction of the cost. The paper has none."""
    one_step_adversary: bool = False
    """Whether the adversary after one step takes the place of the clean image."""

    @model_validator(mode="after")
    def _leaves_epochs(self) -> SmoothMixSettings:
        if self.noise_epochs >= self.epochs:
            raise ValueError(
                f"expected noise_epochs below the {self.epochs} epochs, got {self.noise_epochs}"
            )
        return self


def loss(settings: SmoothMixSettings, batch: NoisyBatch) -> Tensor:
    """Return cross-entropy of the noisy copies plus the mixed term.

    The attack, the cross-entropy and the mixed term use the same noise. The target is not detached,
    so that the mixed term lowers the confidence at the clean end as well.
    """
    if batch.epoch < settings.noise_epochs:
        return noise_only(batch)
    weight = warm_up(batch.epoch - settings.noise_epochs, settings.warm_up_epochs)
    start, end = path_ends(settings, batch, weight)
    scores = batch.scores(start)
    source = on_device(batch.generator, start.device)
    shares = torch.rand(len(start), generator=source, device=start.device).div_(2)
    mixed = torch.lerp(start, end, shares.view(-1, 1, 1, 1))
    mean = log_mean_softmax(scores).exp()
    targets = torch.lerp(mean, torch.full_like(mean, 1 / mean.shape[1]), shares[:, None])
    is_right = classes_of(mean) == batch.labels
    mixed_loss = (is_right * divergence(targets, batch.scores(mixed))).mean()
    return cross_entropy_of_copies(scores, batch.labels) + settings.mix_weight * weight * mixed_loss


def noise_only(batch: NoisyBatch) -> Tensor:
    """Return the loss of Gaussian augmentation, on the first noisy copy of each image."""
    single = replace(batch, noise=batch.noise[:1])
    return cross_entropy_of_copies(single.scores(batch.images), batch.labels)


def path_ends(
    settings: SmoothMixSettings, batch: NoisyBatch, weight: float
) -> tuple[Tensor, Tensor]:
    """Return the two images (N, C, H, W) in [0, 1] that are mixed, without a gradient.

    The second one results from T steps that increase -log F. It is clamped to [0, 1] after each,
    but not projected onto a ball: it may lie beyond the decision boundary, where a smoothed
    classifier is confident of a wrong class.

    Args:
        settings: The recipe's settings.
        batch: The images to start from.
        weight: In (0, 1], a factor on the radius of the one-step adversary's ball.
    """
    length = settings.attack_step_size * settings.sigma
    start = end = batch.images
    with under_attack(batch.network, training=False):
        for step in range(settings.attack_steps):
            end = (end + length * batch.ascent_direction(end)).clamp(0, 1)
            if step == 0 and settings.one_step_adversary:
                start = into_ball(end, batch.images, weight * length)
    return start, end


register_smoothing_recipe(
    "smoothmix",
    "noisy images, mixed with adversarial ones of less certain labels",
    SmoothMixSettings,
    loss,
)
