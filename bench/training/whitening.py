"""Filters that whiten patches of images: outputs of variance 1 that do not correlate.

A. Coates, A. Ng, H. Lee, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning",
AISTATS 2011; as a frozen first layer in K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single
GPU", 2024, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def whitening_filters(images: Tensor, side: int, epsilon: float = 0.0) -> Tensor:
    """Return filters whose outputs on the images' patches have the identity as their covariance.

    They are the eigenvectors of the patches' covariance, each divided by the square root of its
    eigenvalue: the largest comes first.

    Args:
        images: (N, C, H, W), normalised as the filters will see them.
        side: Height and width of a patch, in pixels.
        epsilon: Added to each eigenvalue. The smallest directions, which are mostly noise, then
            stay smaller than variance 1.

    Returns:
        (C * side**2, C, side, side).

    Raises:
        ValueError: If an eigenvalue plus epsilon is not positive: then nothing can whiten.
    """
    channels = images.shape[1]
    patches = images.unfold(2, side, 1).unfold(3, side, 1)
    rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * side**2).double()
    covariance = torch.cov(rows.T, correction=0).reshape(rows.shape[1], rows.shape[1])
    values, vectors = torch.linalg.eigh(covariance)
    values = values + epsilon
    if values[0] <= values[-1] * 1e-12:
        raise ValueError(
            f"expected patches that vary in all of their {len(values)} directions, got a smallest "
            f"variance of {values[0]:.2g}; raise epsilon"
        )
    filters: Tensor = (vectors / values.sqrt()).flip(1).T
    return filters.reshape(-1, channels, side, side).to(images.dtype)
