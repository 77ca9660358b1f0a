"""Fast training: a small network, accurate after few epochs on a CPU.

The tricks of K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (arXiv 2404.00498):
a whitening first layer, label smoothing, alternating flips, shifts with a reflected border, biases
of batch normalisation that learn fast, a learning rate that falls to zero, averaged weights. And
smaller images in early epochs, as any recipe may have them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bench.candidates.whitened import PATCH, WhitenedNetwork
from bench.errors import InputError
from bench.training.data import FolderImages, TrainingData, split
from bench.training.network import (
    OneCycleSettings,
    check_output,
    clean_accuracy,
    fit_network,
    logits,
    make_network,
)
from bench.training.optimization import RATE_FACTOR, Optimization, one_cycle
from bench.training.recipe import Conditions, Measurement, Trained, register_recipe
from bench.training.whitening import whitening_filters


class FastSettings(OneCycleSettings):
    """The settings of a fast training. The architecture is a whitened network."""

    architecture: str = "bench.candidates.whitened:whitened_network"
    whitening_images: int = Field(default=5000, ge=1)
    """How many training images the whitening filters are computed from."""
    whitening_epsilon: float = Field(default=5e-4, ge=0)
    """Added to the variances of patches of normalised pixels."""
    bias_rate: float = Field(default=64.0, gt=0)
    """Factor on the learning rate of the biases of batch normalisation."""


def train(settings: FastSettings, data: TrainingData, conditions: Conditions) -> Trained:
    """Train a whitened network for accuracy on clean images; see ``Recipe.train``."""
    network = make_network(settings, conditions.seed)
    _whiten(network, data, settings, conditions.seed)
    network.to(conditions.device)
    check_output(network, data, settings, conditions.device)

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

    optimization = _optimization(network, settings)
    return fit_network(network, settings, data, conditions, optimization, batch_loss, measure)


def _whiten(network: nn.Module, data: TrainingData, settings: FastSettings, seed: int) -> None:
    """Set a network's whitening filters, from images that are trained on.

    Raises:
        InputError: If the network has none, the images are files, or their patches do not vary.
    """
    if not isinstance(network, WhitenedNetwork):
        raise InputError(
            f"expected an architecture with a whitening layer, such as "
            f"bench.candidates.whitened:whitened_network, got {settings.architecture}"
        )
    if isinstance(data.images, FolderImages):
        raise InputError(f"expected images in memory, got the files of {data.name}")
    training, _ = split(len(data.labels), settings.held_out, seed)
    images = data.images[training[: settings.whitening_images]]
    try:
        filters = whitening_filters(
            network.normalization(images), PATCH, settings.whitening_epsilon
        )
        network.whitening.copy_(filters)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{data.name}: {error}") from error


def _optimization(network: nn.Module, settings: FastSettings) -> Optimization:
    """Return Nesterov's gradient descent in one cycle; only weights of layers decay."""
    normalizations = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    fast = [each.bias for each in normalizations]
    other = [each for each in network.parameters() if each.requires_grad]
    other = [each for each in other if all(each is not bias for bias in fast)]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in other if each.ndim > 1]},
        {"params": [each for each in other if each.ndim <= 1], "weight_decay": 0.0},
        {"params": fast, "weight_decay": 0.0, RATE_FACTOR: settings.bias_rate},
    ]
    optimizer = torch.optim.SGD(
        groups,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )
    schedule = partial(one_cycle, peak=settings.peak_learning_rate, warm_up=settings.warm_up)
    return Optimization(optimizer, schedule)


register_recipe("fast", "a small network that is accurate after few epochs", FastSettings, train)
