"""What fresh votes at an image inside a certified radius say of the certificate.

Within the radius the certified class keeps half of a smoothed classifier's votes (Cohen et al.
2019, arXiv 1902.02918); in a mix that gives them the weight alpha, it leads each other class by
(1 - alpha) / alpha of them. Votes that have less contradict the certificate.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn

from bench.certification.noise import Noise, Piece
from bench.decision import NO_CLASS, classes_of
from bench.statistics.clopper_pearson import clopper_pearson_lower, clopper_pearson_upper
from bench.store.records import IntArray

VOTES = 1000
VOTES_A_BATCH = 250
FAILURE_PROBABILITY = 0.001
"""The probability of an error in one certificate, as in the suites, and in the votes against it."""
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
    """Return which certificates votes contradict, (n,) bool.

    Each test is exact: it contradicts a sound certificate with a probability of at most
    `FAILURE_PROBABILITY`.

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


def contradicts(votes: IntArray, certified: int, alpha: float | None) -> bool:
    """Return whether votes at an image contradict that a class is certified there.

    Args:
        votes: (K + 1,) how many draws vote for each class, and in the last place for none: no
            answer counts as one more class, as it does in the certificate.
        certified: the class.
        alpha: weight of the votes in a mix; None: they alone decide.
    """
    mine, draws = votes[certified], votes.sum()
    if alpha is None:
        return bool(binom.cdf(mine, draws, 0.5) < FAILURE_PROBABILITY)
    # The largest rival is found in these votes, so that each might have been it: Bonferroni.
    share = FAILURE_PROBABILITY / len(votes)
    rival = np.delete(votes, certified).max()
    most = clopper_pearson_upper(mine, draws, share) - clopper_pearson_lower(rival, draws, share)
    return bool(most < (1 - alpha) / alpha)


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
