"""Adversarial images as an image file would hold them: on the grid of 8 bits a channel.

Rounding to the grid may carry an image out of its ball, or back over the decision boundary. Each
image is therefore tried twice: on the nearest grid points, and on those beside them that are
farther from the clean image, both drawn back into the ball where they left it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.attacks import inside, tolerance
from bench.attacks.distances import Norm
from bench.decision import NO_CLASS

LEVELS = 255


def eight_bit_successes(
    images: Tensor,
    clean: Tensor,
    labels: Tensor,
    predict: Callable[[Tensor], Tensor],
    norm: Norm,
    eps: float,
) -> Tensor:
    """Return which adversarial images still break their samples on the 8-bit grid.

    Args:
        images: (n, C, H, W) in [0, 1], inside their balls.
        clean: (n, C, H, W), the centres.
        labels: (n,).
        predict: from images (m, C, H, W) to classes (m,); it is asked at most 2 n times.
        norm: of the ball.
        eps: its radius.

    Returns:
        (n,) bool.
    """
    return eight_bit_images(images, clean, labels, predict, norm, eps)[1]


def eight_bit_images(
    images: Tensor,
    clean: Tensor,
    labels: Tensor,
    predict: Callable[[Tensor], Tensor],
    norm: Norm,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return adversarial images on the 8-bit grid, those that break their samples where there are.

    Arguments as in `eight_bit_successes`.

    Returns:
        the images (n, C, H, W), whether each breaks its sample from inside its ball (n,), and the
        class that each gets (n,) int64.
    """
    broken = torch.zeros(len(images), dtype=torch.bool)
    grid = project_to_grid(images, clean, norm, eps)
    classes = torch.full((len(images),), NO_CLASS)
    for outward in (False, True):
        left = (~broken).nonzero().flatten()
        tried = project_to_grid(images[left], clean[left], norm, eps, outward)
        good = inside(tried, clean[left], norm, eps)
        left, tried = left[good], tried[good]
        if len(left):
            found = predict(tried)
            wrong = found != labels[left]
            broken[left] = wrong
            kept = wrong if outward else torch.ones_like(wrong)
            grid[left[kept]], classes[left[kept]] = tried[kept], found[kept]
    return grid, broken, classes


def project_to_grid(
    images: Tensor, clean: Tensor, norm: Norm, eps: float, outward: bool = False
) -> Tensor:
    """Return grid points at the images, drawn back to the clean images until inside the ball.

    Args:
        images: (n, C, H, W) in [0, 1], inside their balls.
        clean: (n, C, H, W), the centres.
        norm: of the ball.
        eps: its radius.
        outward: start from the grid points that are farther from the clean image instead of from
            the nearest ones.

    Returns:
        (n, C, H, W) float32, multiples of 1/255. Where `clean` itself is off the grid the ball may
        hold no grid point; such images stay outside.
    """
    centre = clean.double().flatten(1) * LEVELS
    place = images.double().flatten(1) * LEVELS
    slack = tolerance(norm, eps, place.shape[1]) * LEVELS
    if outward:
        away = torch.where(place > centre, (place - slack).ceil(), (place + slack).floor())
        levels = torch.where(place == centre, place.round(), away)
    else:
        levels = place.round()
    levels = levels.clamp(0, LEVELS)
    radius = eps * LEVELS
    if norm == "Linf":
        low, high = (centre - radius - slack).ceil(), (centre + radius + slack).floor()
        levels = torch.minimum(torch.maximum(levels, low), high).clamp(0, LEVELS)
    else:
        levels = _draw_back(levels, centre, 2 if norm == "L2" else 1, radius)
    return (levels / LEVELS).float().reshape(images.shape)


def _draw_back(levels: Tensor, centre: Tensor, power: int, radius: float) -> Tensor:
    """Move coordinates one level towards the centre, first those that reduce the distance most.

    Args:
        levels: (n, D) whole numbers.
        centre: (n, D).
        power: of the norm, 1 or 2.
        radius: in levels.
    """
    closer = levels - (levels - centre).sign()
    before = (levels - centre).abs() ** power
    saving = (before - (closer - centre).abs() ** power).clamp_min(0)
    excess = before.sum(dim=1, keepdim=True) - radius**power
    ordered, order = saving.sort(dim=1, descending=True)
    saved_before = ordered.cumsum(dim=1) - ordered
    moved = torch.zeros_like(saving, dtype=torch.bool)
    moved.scatter_(1, order, (saved_before < excess) & (ordered > 0))
    return torch.where(moved, closer, levels)
