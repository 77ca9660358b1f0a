"""Adversarial training: cross-entropy on images attacked in the Linf ball.

A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018. With the
one-step settings of P. de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step
Adversarial Training", 2022 (arXiv 2202.01181), it costs less than two standard trainings.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.training.initialization import generator_for
from bench.training.loop import Trained, TrainingData, fit
from bench.training.measure import clean_accuracy, pgd_accuracy
from bench.training.network import make_network
from bench.training.perturbation import perturb, under_attack
from bench.training.precision import logits
from bench.training.progress import Measurement, ProgressCallback, ignore
from bench.training.settings import AdversarialSettings, Settings


def train(
    settings: Settings,
    data: TrainingData,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: ProgressCallback = ignore,
    device: str = "cpu",
) -> Trained:
    """Train a network for accuracy on images attacked within the threat model.

    Args:
        settings: See ``AdversarialSettings``.
        data: Training images and labels.
        seed: Of the initial weights and of every draw.
        checkpoint: File written after every epoch; None for none.
        resume: Whether to go on from that file, if it exists.
        progress: Called every few steps and after every epoch.
        device: Where the training runs, as torch names it.

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
                network, images, labels, settings.eps, settings.precision, generator_for(seed, 2)
            ),
        )

    return fit(
        make_network(settings, seed),
        data,
        settings,
        batch_loss,
        measure,
        seed=seed,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        device=torch.device(device),
    )
