"""What recipes for smoothed classifiers share: settings, noisy copies, and the training.

A recipe is a loss on noisy copies. The network that is trained is the base; the submission is the
smoothed classifier around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.candidates.smoothed import Smoothed
from bench.training.data import TrainingData
from bench.training.draws import on_device
from bench.training.network import (
    NetworkSettings,
    Precision,
    clean_accuracy,
    logits,
    train_network,
)
from bench.training.optimization import Optimization, divided
from bench.training.recipe import Conditions, Measurement, Trained, register_recipe

BANK_DRAWS = 16
"""Draws of the smoothed classifier that is measured and submitted, as attacks see it."""
BANK_SEED = 0


class SmoothingSettings(NetworkSettings):
    """The settings that every recipe for smoothed classifiers needs, as in the papers.

    The learning rate starts at ``peak_learning_rate`` and is divided by 10 at regular intervals.
    The weights are the last ones, not averaged. Momentum is plain.
    """

    sigma: float = Field(gt=0, allow_inf_nan=False)
    """Standard deviation of the noise, in the [0, 1] pixel scale."""
    noise_draws: int = Field(default=1, ge=1)
    """m, noisy copies of each image. A step has batch_size images, hence m times as many copies."""
    decay_every: int = Field(default=50, ge=1)
    """Epochs from one division of the learning rate by 10 to the next."""
    epochs: int = Field(default=150, ge=1)
    batch_size: int = Field(default=256, ge=1)
    """Images in a step, each in noise_draws copies."""
    peak_learning_rate: float = Field(default=0.1, gt=0)
    """The learning rate of the first epochs."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """On all weights."""
    average_decay: float = Field(default=0.0, ge=0, lt=1)
    precision: Precision = "float32"


@dataclass(frozen=True)
class NoisyBatch:
    """N images with m noisy copies of each, and the base that is trained on them.

    Attributes:
        network: The base, in train mode.
        precision: The precision of a pass through it.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        noise: (m, N, C, H, W), Gaussian.
        generator: Source of further draws; on the CPU.
        epoch: The number of the epoch, from 0.
    """

    network: nn.Module
    precision: Precision
    images: Tensor
    labels: Tensor
    noise: Tensor
    generator: torch.Generator
    epoch: int

    def scores(self, images: Tensor) -> Tensor:
        """Return logits (m, N, K) of images (N, C, H, W) under the noise, in one pass."""
        copies = (images + self.noise).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return logits(self.network, copies, self.precision).view(*self.noise.shape[:2], -1)

    def ascent_direction(self, images: Tensor) -> Tensor:
        """Return the unit L2 direction (N, C, H, W) in which -log F of the label grows fastest.

        F is the mean softmax over the copies. This is the attack of H. Salman et al., "Provably
        Robust Deep Learning via Adversarially Trained Smoothed Classifiers", 2019 (arXiv
        1906.04584, equation 6): through the mean softmax, not through the mean of the losses. An
        image without a gradient gets a direction of zeros.
        """
        attacked = images.detach().requires_grad_()
        loss = -log_mean_softmax(self.scores(attacked)).gather(1, self.labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(loss, attacked)
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return cast(Tensor, gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny))


SettingsType = TypeVar("SettingsType", bound=SmoothingSettings)

SmoothingLoss = Callable[[SettingsType, NoisyBatch], Tensor]
"""From a recipe's settings and a batch to a scalar loss."""


def register_smoothing_recipe(
    name: str, summary: str, settings_type: type[SettingsType], loss: SmoothingLoss[SettingsType]
) -> None:
    """Register a recipe that trains a smoothed classifier on a loss; see ``register_recipe``."""
    register_recipe(name, summary, settings_type, partial(_train, loss))


def _train(
    loss: SmoothingLoss[SettingsType],
    settings: SettingsType,
    data: TrainingData,
    conditions: Conditions,
) -> Trained:
    """Train a base on a loss under noise; return the smoothed classifier around it."""

    def batch_loss(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int
    ) -> Tensor:
        return loss(settings, noisy_batch(settings, network, images, labels, generator, epoch))

    def smoothed(network: nn.Module) -> Smoothed:
        return Smoothed(network, settings.sigma, BANK_DRAWS, BANK_SEED)

    def measure(epoch: int, network: nn.Module, images: Tensor, labels: Tensor) -> Measurement:
        accuracy = clean_accuracy(smoothed(network), images, labels, settings.precision)
        return Measurement(epoch, accuracy)

    trained = train_network(
        settings, data, conditions, partial(_plain_sgd, settings), batch_loss, measure
    )
    assert trained.network is not None
    return replace(
        trained,
        network=smoothed(trained.network),
        architecture="bench.candidates.smoothed:smoothed",
        architecture_args={
            "base_architecture": settings.architecture,
            "base_args": settings.architecture_args,
            "sigma": settings.sigma,
            "noise_samples": BANK_DRAWS,
            "seed": BANK_SEED,
        },
    )


def _plain_sgd(settings: SmoothingSettings, network: nn.Module) -> Optimization:
    """Return stochastic gradient descent as in the papers on smoothed classifiers.

    It has plain momentum, weight decay on every parameter, and a learning rate that is divided by
    10.
    """
    optimizer = torch.optim.SGD(
        network.parameters(), momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    schedule = partial(
        divided,
        epochs=settings.epochs,
        start=settings.peak_learning_rate,
        every=settings.decay_every,
    )
    return Optimization(optimizer, schedule)


def warm_up(epoch: int, epochs: int) -> float:
    """Return a factor that rises from 1 / epochs, in epoch 0, to 1."""
    return min(1.0, (epoch + 1) / epochs)


def noisy_batch(
    settings: SmoothingSettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> NoisyBatch:
    """Return a batch with freshly drawn noise; see ``BatchLoss`` for the arguments."""
    noise = draw_noise(images, settings.sigma, settings.noise_draws, generator)
    return NoisyBatch(network, settings.precision, images, labels, noise, generator, epoch)


def draw_noise(images: Tensor, sigma: float, draws: int, generator: torch.Generator) -> Tensor:
    """Return Gaussian noise (m, N, C, H, W) for images (N, C, H, W), on their device.

    Args:
        images: On any device.
        sigma: Standard deviation, in the [0, 1] pixel scale.
        draws: m.
        generator: Source of the draws; on the CPU.
    """
    source = on_device(generator, images.device)
    return torch.randn(draws, *images.shape, generator=source, device=images.device).mul_(sigma)


def log_mean_softmax(scores: Tensor) -> Tensor:
    """Return log F, F the mean softmax over the copies: (N, K) for logits (m, N, K).

    Logarithms are summed, so that the result stays finite where a probability underflows.
    """
    return scores.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(scores))


def cross_entropy_of_copies(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over images and copies of -log softmax of logits (m, N, K) at labels (N,)."""
    places = labels.expand(scores.shape[:2])
    return -scores.log_softmax(dim=2).gather(2, places[..., None]).mean()


def divergence(targets: Tensor, scores: Tensor) -> Tensor:
    """Return KL(target || softmax) for each copy and image, (m, N), with a gradient into both.

    Args:
        targets: Probabilities (N, K), the same for all copies.
        scores: Logits (m, N, K).
    """
    # A probability that underflows to 0 contributes nothing, rather than the NaN of its logarithm.
    ratio = targets.clamp_min(torch.finfo(targets.dtype).tiny).log() - scores.log_softmax(dim=2)
    return (targets * ratio).sum(dim=2)


def into_ball(moved: Tensor, centres: Tensor, radius: float) -> Tensor:
    """Return the nearest images (N, C, H, W) within L2 distance ``radius`` of their centres."""
    offset = moved - centres
    length = offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return centres + torch.mul(offset, radius).div(length.clamp_min(radius))
