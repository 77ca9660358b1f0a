"""Standard training: cross-entropy on augmented clean images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.training.loop import Trained, TrainingData, fit
from bench.training.measure import clean_accuracy
from bench.training.network import make_network
from bench.training.precision import logits
from bench.training.progress import Measurement, ProgressCallback, ignore
from bench.training.settings import Settings


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
    """Train a network for accuracy on clean images.

    Args:
        settings: See ``Settings``.
        data: Training images and labels.
        seed: Of the initial weights and of every draw.
        checkpoint: File written after every epoch; None for none.
        resume: Whether to go on from that file, if it exists.
        progress: Called every few steps and after every epoch.
        device: Where the training runs, as torch names it.

    Raises:
        InputError: If the settings do not fit the data or the checkpoint.
    """

    def batch_loss(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int
    ) -> Tensor:
        return functional.cross_entropy(
            logits(network, images, settings.precision),
            labels,
            label_smoothing=settings.label_smoothing,
        )

    def measure(epoch: int, network: nn.Module, images: Tensor, labels: Tensor) -> Measurement:
        return Measurement(epoch, clean_accuracy(network, images, labels, settings.precision))

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
