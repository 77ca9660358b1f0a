"""Standard training: cross-entropy on augmented clean images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.training.data import TrainingData
from bench.training.network import (
    OneCycleSettings,
    clean_accuracy,
    logits,
    sgd_in_one_cycle,
    train_network,
)
from bench.training.recipe import Conditions, Measurement, Trained, register_recipe


def train(settings: OneCycleSettings, data: TrainingData, conditions: Conditions) -> Trained:
    """Train a network for accuracy on clean images; see ``Recipe.train``."""

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

    return train_network(
        settings,
        data,
        conditions,
        lambda network: sgd_in_one_cycle(network, settings),
        batch_loss,
        measure,
    )


register_recipe("standard", "cross-entropy on augmented clean images", OneCycleSettings, train)
