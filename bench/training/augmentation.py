"""Random crops, mirror images and cut-outs, for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment(
    images: Tensor, crop_padding: int, flip: bool, cutout: int, generator: torch.Generator
) -> Tensor:
    """Crop, mirror and cut out at random, each image for itself.

    The cut-out is that of T. DeVries and G. W. Taylor, "Improved Regularization of Convolutional
    Neural Networks with Cutout", 2017: its centre lies anywhere, so it may stick out of the image.

    Args:
        images: (N, C, H, W), in [0, 1].
        crop_padding: Pixels of black border out of which the crop is taken.
        flip: Whether an image is mirrored left to right with probability 1/2.
        cutout: Side of the square that is blacked out, in pixels; 0 for none.
        generator: Source of every draw; on the CPU.

    Returns:
        Images of the same shape, in the channels-last memory format.
    """
    count, _, height, width = images.shape
    rows = torch.arange(height).expand(count, height)
    columns = torch.arange(width).expand(count, width)
    if crop_padding:
        images = functional.pad(images, (crop_padding,) * 4)
        corners = torch.randint(0, 2 * crop_padding + 1, (2, count, 1), generator=generator)
        rows, columns = rows + corners[0], columns + corners[1]
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    samples = torch.arange(count)[:, None, None]
    # The advanced indices, being separated by the channel axis, come first: (N, H, W, C), which
    # seen as (N, C, H, W) is the channels-last format.
    pixels = images[samples, :, rows[:, :, None], columns[:, None, :]]
    if cutout:
        centres = torch.rand(2, count, 1, generator=generator)
        inside_rows = (torch.arange(height) - (centres[0] * height - 0.5)).abs() < cutout / 2
        inside_columns = (torch.arange(width) - (centres[1] * width - 0.5)).abs() < cutout / 2
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        pixels = pixels.masked_fill(inside[..., None].to(pixels.device), 0.0)
    return pixels.permute(0, 3, 1, 2)
