"""Optimizers, with the schedule of their learning rate and the bound of their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.training.schedule import Schedule, cosine, one_cycle


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


def sgd(network: nn.Module, momentum: float, weight_decay: float) -> Optimization:
    """Stochastic gradient descent with Nesterov momentum, in one cycle.

    Args:
        network: What is trained.
        momentum: In [0, 1).
        weight_decay: On the weights of convolutions and linear layers only: on biases and on batch
            normalisation it regularises nothing and costs accuracy.
    """
    groups: list[dict[str, Any]] = [
        {"params": [each for each in network.parameters() if each.ndim > 1]},
        {"params": [each for each in network.parameters() if each.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay
    )
    return Optimization(optimizer, one_cycle)


def adamw(network: nn.Module, weight_decay: float, gradient_clip: float) -> Optimization:
    """AdamW, in a cosine with an exponential warm-up.

    Args:
        network: What is trained.
        weight_decay: On every parameter.
        gradient_clip: Largest L2 norm of all gradients together.
    """
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=weight_decay)
    return Optimization(optimizer, cosine, gradient_clip)
