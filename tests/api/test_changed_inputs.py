"""A candidate that changes its input in place is given copies, and has the numbers of any other."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

import bench
from bench import data


class InPlace(nn.Module):
    """Normalizes the images that it is given, in place."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            return self.inner((images - 0.5) / 0.25)
        return self.inner(images.sub_(0.5).div_(0.25))


class Normalized(nn.Module):
    """The same without changing its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        return self.inner((images - 0.5) / 0.25)


def test_neither_images_in_hand_nor_an_eps_curve_change(
    linear_digits: nn.Module, results: Path
) -> None:
    digits = data.load("digits").first(8)
    found = []
    for module in (Normalized(linear_digits), InPlace(linear_digits)):
        images = digits.images.clone()
        run = bench.evaluate(
            module,
            images=images,
            labels=digits.labels,
            threat_model=bench.Linf(0.05),
            results_dir=results / type(module).__name__,
            eps_curve=True,
            progress=False,
        )
        assert torch.equal(images, digits.images)
        found.append(run)
    plain, in_place = found
    assert in_place.robust_accuracy == plain.robust_accuracy
    pd.testing.assert_frame_equal(in_place.eps_curve, plain.eps_curve)
