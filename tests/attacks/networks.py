"""Small networks with fixed weights, and images that they classify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Answer:
    """As of `bench.attacks.mix_losses.Answer`."""

    log_probabilities: Tensor
    accurate: Tensor
    robust: Tensor
    gamma: Tensor


class WithParts:
    """Lets a network answer like a mix of itself with itself, for attacks that ask for a mix."""

    def answer(self: Any, images: Tensor) -> Answer:
        """Log-probabilities three times, and the image's mean for gamma."""
        logs = self(images).log_softmax(dim=1)
        return Answer(logs, logs, logs, images.flatten(1).mean(dim=1))


class Network(WithParts, nn.Sequential):
    """Layers one after the other."""


def small_network(
    classes: int = 10, channels: int = 3, side: int = 8, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Two convolutions and a linear layer, weights from a fixed generator."""
    generator = torch.Generator().manual_seed(classes + 100 * channels)
    network = Network(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * ((side + 1) // 2) ** 2, classes),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 50
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * (1.5 / fan_in) ** 0.5)
    return network.eval().to(dtype).requires_grad_(False)


def linear_network(classes: int = 10, channels: int = 3, side: int = 8) -> nn.Module:
    """One linear layer on the means of the image's quarters, which every attack must fool."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(channels * side * side, classes)
    quarters = torch.randn(classes, channels, 2, 2, generator=generator)
    with torch.no_grad():
        pixels = quarters.repeat_interleave(side // 2, 2).repeat_interleave(side // 2, 3)
        layer.weight.copy_(pixels.flatten(1))
        layer.bias.copy_(-layer.weight.sum(dim=1) / 2)  # so that grey is on every boundary
    return Network(nn.Flatten(), layer).eval().requires_grad_(False)


def some_images(
    count: int, channels: int = 3, side: int = 8, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(count, channels, side, side) in [0, 1], with many pixels at 0 and at 1."""
    generator = torch.Generator().manual_seed(count)
    noise = torch.rand(count, channels, side, side, generator=generator, dtype=torch.float64)
    return (1.4 * noise - 0.2).clamp(0, 1).to(dtype)


def predictions(network: nn.Module, images: Tensor) -> Tensor:
    """(N,) int64."""
    with torch.no_grad():
        classes: Tensor = network(images).argmax(dim=1)
    return classes
