"""A normalization that is missing is found by trying the usual ones; a right one is left alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.flags.normalization import missing_normalization


class Signs(nn.Module):
    """Expects pixels in [-1, 1]: class 1 where their mean is above 0."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


def test_the_missing_one_is_named_with_what_was_tried() -> None:
    module = Signs()
    images = torch.linspace(0.05, 0.95, 40).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    labels = (images[:, 0, 0, 0] > 0.5).long()
    flag = missing_normalization(module, images, labels, module(images))
    assert flag is not None
    assert flag.meaning.startswith("Do the inputs need normalization? Of 40 images 20 are right")
    assert "40 with pixels in [-1, 1]" in flag.meaning
    assert "pixels in [0, 255]: 20" in flag.meaning
    scaled = 2 * images - 1
    assert missing_normalization(module, scaled, labels, module(scaled)) is None
