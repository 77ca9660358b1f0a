"""BiT's residual networks, the accurate bases of the published mixes.

A. Kolesnikov et al., "Big Transfer (BiT): General Visual Representation Learning", 2020: bottleneck
blocks with pre-activation, group norm, and convolutions with standardised weights. Parameters are
named as in the checkpoints of the published mixes, so that these load as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.candidates.architectures import Normalization

GROUPS = 32
WEIGHT_VARIANCE_FLOOR = 1e-10


class StandardizedConvolution(nn.Conv2d):
    """A convolution whose weights get mean 0 and variance 1, filter by filter, at every call.

    S. Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight
    Standardization", 2019.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / torch.sqrt(variance + WEIGHT_VARIANCE_FLOOR)
        return functional.conv2d(maps, weight, self.bias, self.stride, self.padding)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, each behind group norm and ReLU, around a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.gn1 = nn.GroupNorm(GROUPS, in_channels)
        self.conv1 = StandardizedConvolution(in_channels, inner, 1, bias=False)
        self.gn2 = nn.GroupNorm(GROUPS, inner)
        self.conv2 = StandardizedConvolution(inner, inner, 3, stride, padding=1, bias=False)
        self.gn3 = nn.GroupNorm(GROUPS, inner)
        self.conv3 = StandardizedConvolution(inner, channels, 1, bias=False)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = StandardizedConvolution(in_channels, channels, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H/stride, W/stride)."""
        active = functional.relu(self.gn1(maps))
        shortcut = maps if self.downsample is None else self.downsample(active)
        residual = functional.relu(self.gn2(self.conv1(active)))
        residual = functional.relu(self.gn3(self.conv2(residual)))
        return cast(Tensor, self.conv3(residual) + shortcut)


class BitResNet(nn.Module):
    """Resizing, normalisation to [-1, 1], a 7x7 stem, four stages, group norm and a linear head."""

    def __init__(
        self, num_classes: int, blocks: Sequence[int], width: int, image_size: int | None
    ) -> None:
        """Build the module, with torch's own initialisation.

        Args:
            num_classes: K.
            blocks: in each of the stages.
            width: factor on the channels.
            image_size: height and width that images are resized to, bilinearly; None: as they are.
        """
        super().__init__()
        self.image_size = image_size
        # The published code adds 1e-8 to the deviation, which float32 does not show.
        self.normalization = Normalization((0.5,) * 3, (0.5,) * 3)
        channels = 64 * width
        self.root = nn.Sequential(
            OrderedDict(
                conv=StandardizedConvolution(3, channels, 7, stride=2, padding=3, bias=False),
                pad=nn.ConstantPad2d(1, 0.0),
                pool=nn.MaxPool2d(3, stride=2),
            )
        )
        self.body = nn.Sequential()
        for number, count in enumerate(blocks):
            out_channels = 256 * width * 2**number
            stage = nn.Sequential()
            for unit in range(count):
                stride = 2 if number > 0 and unit == 0 else 1
                stage.add_module(
                    f"unit{unit + 1:02d}",
                    Bottleneck(channels if unit == 0 else out_channels, out_channels, stride),
                )
            self.body.add_module(f"block{number + 1}", stage)
            channels = out_channels
        self.head = nn.Sequential(
            OrderedDict(
                gn=nn.GroupNorm(GROUPS, channels),
                relu=nn.ReLU(),
                avg=nn.AdaptiveAvgPool2d(1),
                conv=nn.Conv2d(channels, num_classes, 1),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, 3, H, W) in [0, 1]."""
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            images = functional.interpolate(images, size=size, mode="bilinear")
        return cast(Tensor, self.head(self.body(self.root(self.normalization(images)))).flatten(1))


def bit_resnet(
    num_classes: int,
    blocks: Sequence[int] = (3, 8, 36, 3),
    width: int = 2,
    image_size: int | None = 128,
) -> BitResNet:
    """Return BiT ResNet-152x2 at 128x128 by default: the published mixes' accurate base."""
    return BitResNet(num_classes, blocks, width, image_size)
