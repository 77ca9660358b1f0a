"""A classifier that nothing fools, but that has no answer where one pixel is too bright."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.data import Dataset

CLASSES = 10
EPS = 0.02
CORNER = 0.5
LIMIT = 0.51
"""Up to this brightness of the corner there is an answer; a ball of `EPS` reaches beyond it."""


class Unanswering(nn.Module):
    """Tells the class from the mean of all pixels but the corner, by a margin beyond `EPS`.

    Args:
        nothing: what stands among the logits where the corner is brighter than `LIMIT`.
        column: in which class.
        scale: factor on the logits.
    """

    def __init__(self, nothing: float, column: int | None = None, scale: float = 100.0) -> None:
        super().__init__()
        self.nothing = nothing
        self.columns = slice(None) if column is None else [column]
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 1, H, W)."""
        mean = images.flatten(1)[:, 1:].mean(dim=1, keepdim=True)
        places = (torch.arange(CLASSES, device=images.device) + 0.5) / CLASSES
        logits = -self.scale * (mean - places).square()
        unanswered = torch.zeros_like(logits, dtype=torch.bool)
        unanswered[:, self.columns] = images[:, 0, 0, :1] > LIMIT
        return logits.masked_fill(unanswered, self.nothing)


def dataset(copies: int = 2, unanswered: int = 0) -> Dataset:
    """As many images of each class; the first `unanswered` of each class have no answer."""
    labels = torch.arange(CLASSES).repeat_interleave(copies)
    images = ((labels + 0.5) / CLASSES).view(-1, 1, 1, 1).repeat(1, 1, 4, 4)
    images[:, 0, 0, 0] = CORNER
    images[torch.arange(len(labels)) % copies < unanswered, 0, 0, 0] = 1.0
    names = tuple(str(label) for label in range(CLASSES))
    return Dataset("digits", images, labels, torch.arange(len(labels)), names, len(labels))
