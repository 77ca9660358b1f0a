"""Optimizers, with the schedule of their learning rate and the bound of their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bench.training.mix_settings import MixingNetworkSettings
from bench.training.schedule import Schedule, cosine, divided, one_cycle
from bench.training.settings import OneCycleSettings
from bench.training.smoothing_settings import SmoothingSettings


@dataclass(frozen=True)
class Optimization:
    """How a loss is minimised.

    Attributes:
        optimizer: Over the parameters of the network that is trained.
        schedule: Of its learning rate.
        gradient_clip: Largest L2 norm of all gradients together; None for no bound.
    """

    optimizer: torch.optim.Optimizer
    schedule: Schedule
    gradient_clip: float | None = None


def sgd(network: nn.Module, settings: OneCycleSettings) -> Optimization:
    """Stochastic gradient descent with Nesterov momentum, in one cycle.

    Weight decay is on the weights of convolutions and linear layers only: on biases and on batch
    normalisation it regularises nothing and costs accuracy.
    """
    groups: list[dict[str, Any]] = [
        {"params": [each for each in network.parameters() if each.ndim > 1]},
        {"params": [each for each in network.parameters() if each.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )
    schedule = partial(one_cycle, peak=settings.peak_learning_rate, warm_up=settings.warm_up)
    return Optimization(optimizer, schedule)


def plain_sgd(network: nn.Module, settings: SmoothingSettings) -> Optimization:
    """Stochastic gradient descent as the papers on smoothed classifiers have it.

    Plain momentum, weight decay on every parameter, and a learning rate that is divided by 10.
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


def adamw(network: nn.Module, settings: MixingNetworkSettings) -> Optimization:
    """AdamW, in a cosine with an exponential warm-up; weight decay is on every parameter."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay)
    schedule = partial(cosine, peak=settings.peak_learning_rate, warm_up=settings.warm_up)
    return Optimization(optimizer, schedule, settings.gradient_clip)
