"""Votes under noise that no certificate has seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.certification.contradiction import contradicts
from bench.certification.noise import Noise, Piece
from bench.decision import NO_CLASS, classes_of
from bench.store.records import IntArray

VOTES = 1000
VOTES_A_BATCH = 250
SEED_OFFSET = 0x5EED
"""Added to the run's seed: the draws of the certificate must not judge it."""


def contradicted(
    voter: nn.Module,
    sigma: float,
    alpha: float | None,
    images: Tensor,
    index: Tensor,
    classes: Tensor,
    seed: int,
) -> Tensor:
    """Return which certificates votes contradict, (n,) bool; see `contradicts`.

    Args:
        voter: what votes, on the device where it is to run.
        sigma: of the noise, in the [0, 1] pixel scale.
        alpha: weight of the votes in a mix; None: they alone decide.
        images: (n, C, H, W) inside certified radii, on that device.
        index: (n,) int64, places of the samples in the data set, which decide the draws.
        classes: (n,) int64, the certified ones.
        seed: of the certification; the draws here are others.
    """
    noise = Noise(seed + SEED_OFFSET, images.device)
    return torch.tensor(
        [
            contradicts(_votes(voter, image, place, sigma, noise), certified, alpha)
            for image, place, certified in zip(
                images, index.tolist(), classes.tolist(), strict=True
            )
        ],
        dtype=torch.bool,
    )


def _votes(voter: nn.Module, image: Tensor, index: int, sigma: float, noise: Noise) -> IntArray:
    """Return how many of `VOTES` draws vote for each class, and in the last place for none."""
    found = []
    for first in range(0, VOTES, VOTES_A_BATCH):
        draws = noise.normal([Piece(0, index, first, VOTES_A_BATCH)], image.shape)
        with torch.no_grad():
            logits = voter(image + sigma * draws)
        classes, none = classes_of(logits), logits.shape[1]
        found.append(torch.where(classes == NO_CLASS, none, classes).cpu())
    return np.bincount(torch.cat(found).numpy(), minlength=none + 1)
