"""Attacking what a randomized model does on average.

A. Athalye et al., "Synthesizing Robust Adversarial Examples", 2018 (arXiv 1707.07397): the gradient
of the expectation over the model's randomness (EOT), here by the mean over several passes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.attacks.attack import Model
from bench.decision import answered

DRAWS = 20


def expectation(model: Model, draws: int = DRAWS) -> Model:
    """Return a model that answers the logarithm of the mean of a model's probabilities over passes.

    A pass whose logits are not finite gives its share to no class. Where no class has a larger
    share than those passes together, the mean is no answer either: NaN for all classes.

    Args:
        model: images (N, C, H, W) to logits (N, K), different in each call.
        draws: how many passes.
    """

    def call(images: Tensor) -> Tensor:
        # Clones, since a candidate may change its input in place.
        answers = [_log_probabilities(model(images.clone())) for _ in range(draws)]
        mean = torch.logsumexp(torch.stack(answers), dim=0) - math.log(draws)
        without = torch.stack([torch.isneginf(each).all(dim=1) for each in answers])
        share = without.to(mean.dtype).mean(dim=0)
        undecided = (share > 0) & (mean.detach().amax(dim=1).exp() <= share)
        return torch.where(undecided.unsqueeze(1), math.nan, mean)

    return call


def _log_probabilities(logits: Tensor) -> Tensor:
    """(N, K) float32; minus infinity, without a gradient, where logits (N, K) are no answer."""
    finite = answered(logits).unsqueeze(1)
    known = torch.where(finite, logits.float(), 0.0)
    return torch.where(finite, torch.log_softmax(known, dim=1), -math.inf)
