"""SmoothAdv: cross-entropy on adversarial images of the smoothed classifier, under noise.

H. Salman, G. Yang, J. Li, P. Zhang, H. Zhang, I. Razenshteyn, S. Bubeck, "Provably Robust Deep
Learning via Adversarially Trained Smoothed Classifiers", NeurIPS 2019 (arXiv 1906.04584): the PGD
variant.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from bench.training.network import under_attack
from bench.training.smoothing import (
    NoisyBatch,
    SmoothingSettings,
    cross_entropy_of_copies,
    into_ball,
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
    """Epochs until the ball has its full radius."""


def loss(settings: SmoothAdvSettings, batch: NoisyBatch) -> Tensor:
    """Return the mean cross-entropy of the adversarial images' noisy copies.

    The adversarial images are found with the same noise.
    """
    eps = settings.eps * warm_up(batch.epoch, settings.warm_up_epochs)
    adversarial = attack(settings, batch, eps)
    return cross_entropy_of_copies(batch.scores(adversarial), batch.labels)


def attack(settings: SmoothAdvSettings, batch: NoisyBatch, eps: float) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] within L2 distance eps, from PGD on the mean softmax."""
    adversarial = batch.images
    with under_attack(batch.network, training=False):
        for _ in range(settings.attack_steps):
            step = 2 * eps / settings.attack_steps * batch.ascent_direction(adversarial)
            # Both ends lie in [0, 1], so everything between them does.
            adversarial = into_ball((adversarial + step).clamp(0, 1), batch.images, eps)
    return adversarial


register_smoothing_recipe(
    "smoothadv",
    "cross-entropy on images attacked in the L2 ball through the noise",
    SmoothAdvSettings,
    loss,
)
