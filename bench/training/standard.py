"""Standard training: cross-entropy on augmented clean images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.training.measure import clean_accuracy
from bench.training.network import train_network
from bench.training.precision import logits
from bench.training.progress import Measurement
from bench.training.settings import OneCycleSettings, Settings
from bench.training.trained import Conditions, Trained, TrainingData


def train(
    settings: Settings,
    data: TrainingData,
    conditions: Conditions,
) -> Trained:
    """Train a network for accuracy on clean images.

    Args:
        settings: See ``OneCycleSettings``.
        data: Training images and labels.
        conditions: Seed, checkpoint and device.

    Raises:
        InputError: If the settings do not fit the data or the checkpoint.
        TypeError: If the settings are not ``OneCycleSettings``.
    """
    if not isinstance(settings, OneCycleSettings):
        raise TypeError(f"expected OneCycleSettings, got {type(settings).__name__}")

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

    return train_network(settings, data, batch_loss, measure, conditions)
