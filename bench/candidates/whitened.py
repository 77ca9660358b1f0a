"""A small convolutional network whose first layer whitens patches of the images.

After K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (arXiv 2404.00498).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from bench.candidates.architectures import Normalization
from bench.data import named_dataset

_CIFAR100 = named_dataset("cifar100")

PATCH = 2
"""Side of the patches that are whitened, in pixels."""
LOGIT_SCALE = 1 / 9


class WhitenedNetwork(nn.Module):
    """Normalisation, whitened patches, stages of two convolutions, global maxima, a linear layer.

    The whitening filters are constants, not parameters: whoever trains the network sets them from
    the training images, by ``whitening_filters``.

    Args:
        normalization: Of the images' channels.
        widths: Output channels of each stage.
        num_classes: K, the number of logits.
    """

    whitening: Tensor

    def __init__(
        self, normalization: Normalization, widths: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        in_channels = normalization.mean.shape[1]
        components = in_channels * PATCH**2
        self.normalization = normalization
        self.register_buffer("whitening", torch.zeros(components, in_channels, PATCH, PATCH))
        self.bias = nn.Parameter(torch.zeros(2 * components))
        channels = [2 * components, *widths]
        self.stages = nn.Sequential(
            *(_stage(before, after) for before, after in zip(channels, widths, strict=False))
        )
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1]."""
        # The activation keeps only one side of a filter's output; the opposite filter keeps the
        # other.
        filters = torch.cat([self.whitening, -self.whitening])
        maps = nn.functional.conv2d(self.normalization(images), filters, self.bias)
        maps = self.stages(nn.functional.gelu(maps))
        return cast(Tensor, self.classifier(self.pool(maps).flatten(1))) * LOGIT_SCALE


class MirroringNetwork(WhitenedNetwork):
    """The same, and in eval mode the mean of the logits over an image and its mirror image.

    More accurate, for twice the cost of a pass; as in the paper.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1]."""
        if self.training:
            return super().forward(images)
        return (super().forward(images) + super().forward(images.flip(3))) / 2


def _stage(in_channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(in_channels, width),
        nn.MaxPool2d(2),
        _normalization(width),
        nn.GELU(),
        _convolution(width, width),
        _normalization(width),
        nn.GELU(),
    )


def _convolution(in_channels: int, width: int) -> nn.Conv2d:
    """Return a 3x3 convolution whose first outputs are its inputs at first."""
    convolution = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:in_channels])
    return convolution


def _normalization(width: int) -> nn.BatchNorm2d:
    """Return a batch normalisation with biases only: the next layer can do the scaling."""
    normalization = nn.BatchNorm2d(width)
    normalization.weight.requires_grad_(False)
    return normalization


def whitened_network(
    num_classes: int,
    widths: Sequence[int] = (64, 256, 256),
    mean: Sequence[float] = _CIFAR100.mean,
    standard_deviation: Sequence[float] = _CIFAR100.standard_deviation,
    average_mirrored: bool = False,
) -> WhitenedNetwork:
    """Return a network with a whitening first layer, whose filters are still zero.

    Args:
        num_classes: K, the number of logits.
        widths: Output channels of each stage; every stage halves the resolution.
        mean: Per-channel mean that is subtracted from the images.
        standard_deviation: Per-channel standard deviation that they are divided by.
        average_mirrored: Whether a `MirroringNetwork` is returned.
    """
    kind = MirroringNetwork if average_mirrored else WhitenedNetwork
    return kind(Normalization(mean, standard_deviation), widths, num_classes)
