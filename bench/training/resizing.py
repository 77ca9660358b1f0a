"""Progressive resizing: early epochs see smaller images, which cost less.

M. Tan and Q. Le, "EfficientNetV2: Smaller Models and Faster Training", 2021 (arXiv 2104.00298).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

STEP = 4
"""Sides below the data set's are multiples of it, in pixels."""


def side_at(epoch: int, epochs: int, side: int, first_side: int | None, growth: float) -> int:
    """Return the side of the images in an epoch, in pixels.

    Args:
        epoch: From 0.
        epochs: Length of the training.
        side: The data set's.
        first_side: In the first epoch; None for the data set's.
        growth: Share of the epochs in which the side grows, linearly.
    """
    first = first_side or side
    grown = growth * epochs
    if epoch >= grown or first >= side:
        return side
    return min(side, round((first + (side - first) * epoch / grown) / STEP) * STEP)


def resized(images: Tensor, side: int) -> Tensor:
    """Return images (N, C, H, W) as (N, C, side, side), as they are if that is their size."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(
        images, (side, side), mode="bilinear", antialias=True, align_corners=False
    )
