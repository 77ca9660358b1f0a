"""Adversarial training: cross-entropy on images attacked in the Linf ball.

A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018. With the
one-step settings of P. de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step
Adversarial Training", 2022 (arXiv 2202.01181), it costs less than two standard trainings.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.training.initialization import generator_for
from bench.training.measure import clean_accuracy, pgd_accuracy
from bench.training.network import train_network
from bench.training.perturbation import perturb, under_attack
from bench.training.precision import logits
from bench.training.progress import Measurement
from bench.training.settings import AdversarialSettings, Settings
from bench.training.trained import Conditions, Trained, TrainingData


def train(
    settings: Settings,
    data: TrainingData,
    conditions: Conditions,
) -> Trained:
    """Train a network for accuracy on images attacked within the threat model.

    Args:
        settings: See ``AdversarialSettings``.
        data: Training images and labels.
        conditions: Seed, checkpoint and device.

    Raises:
        InputError: If the settings do not fit the data or the checkpoint.
        TypeError: If the settings are not ``AdversarialSettings``.
    """
    if not isinstance(settings, AdversarialSettings):
        raise TypeError(f"expected AdversarialSettings, got {type(settings).__name__}")

    def batch_loss(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int
    ) -> Tensor:
        with under_attack(network, training=settings.attack_mode == "train"):
            adversarial = perturb(
                partial(logits, network, precision=settings.precision),
                images,
                labels,
                settings.eps,
                settings.attack_steps,
                settings.attack_step_size,
                settings.attack_noise,
                settings.attack_projects,
                generator,
            )
        return functional.cross_entropy(
            logits(network, adversarial, settings.precision),
            labels,
            label_smoothing=settings.label_smoothing,
        )

    def measure(epoch: int, network: nn.Module, images: Tensor, labels: Tensor) -> Measurement:
        return Measurement(
            epoch,
            clean_accuracy(network, images, labels, settings.precision),
            pgd_accuracy(
                network,
                images,
                labels,
                settings.eps,
                settings.precision,
                generator_for(conditions.seed, 2),
            ),
        )

    return train_network(settings, data, batch_loss, measure, conditions)
