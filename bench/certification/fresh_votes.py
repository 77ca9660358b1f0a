"""Votes under noise that no certificate has seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.certification.contradiction import contradicts
from bench.certification.noise import Noise, Piece
from bench.decision import NO_CLASS, classes_of
from bench.memory.out_of_memory import ImagesAtOnce
from bench.precision import tensor_cores
from bench.store.records import IntArray

VOTES = 1000
FIRST_DRAW = 1 << 40
"""Number of the first of them: no certificate has drawn so often from the same seed."""


def contradicted(
    voter: nn.Module,
    sigma: float,
    alpha: float | None,
    images: Tensor,
    index: Tensor,
    classes: Tensor,
    seed: int,
    device: torch.device,
    at_once: int,
) -> Tensor:
    """Return which certificates votes contradict, (n,) bool; see `contradicts`.

    The votes are taken in full float32, also on a GPU.

    Args:
        voter: what votes.
        sigma: of the noise, in the [0, 1] pixel scale.
        alpha: weight of the votes in a mix; None: they alone decide.
        images: (n, C, H, W) inside certified radii.
        index: (n,) int64, places of the samples in the data set, which decide the draws.
        classes: (n,) int64, the certified ones.
        seed: of the noise.
        device: where the votes are taken.
        at_once: noisy images in one pass; fewer where memory runs out.
    """
    found = []
    if len(index):
        voter, noise, size = voter.to(device), Noise(seed, device), ImagesAtOnce(at_once)
        with tensor_cores(False), torch.no_grad():
            for image, place, certified in zip(
                images, index.tolist(), classes.tolist(), strict=True
            ):
                votes = _votes(voter, image.to(device), place, sigma, noise, size)
                found.append(contradicts(votes, certified, alpha))
    return torch.tensor(found, dtype=torch.bool)


def _votes(
    voter: nn.Module, image: Tensor, index: int, sigma: float, noise: Noise, size: ImagesAtOnce
) -> IntArray:
    """Return how many of `VOTES` draws vote for each class, and in the last place for none."""

    def counted(numbers: Tensor) -> Tensor:
        piece = Piece(0, index, int(numbers[0]), len(numbers))
        logits = voter(image + sigma * noise.normal([piece], image.shape))
        classes, none = classes_of(logits), logits.shape[1]
        places = torch.where(classes == NO_CLASS, none, classes).cpu()
        return torch.bincount(places, minlength=none + 1)

    numbers = torch.arange(FIRST_DRAW, FIRST_DRAW + VOTES)
    return np.asarray(torch.stack(size.in_parts(numbers, counted)).sum(dim=0).numpy())
