"""Attacking what a randomized model does on average.

A. Athalye et al., "Synthesizing Robust Adversarial Examples", 2018 (arXiv 1707.07397): the gradient
of the expectation over the model's randomness (EOT), here by the mean over several passes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.attacks.attack import Model

DRAWS = 20


def expectation(model: Model, draws: int = DRAWS) -> Model:
    """The logarithm of the mean of a model's probabilities over several passes.

    Args:
        model: images (N, C, H, W) to logits (N, K), different in each call.
        draws: how many passes.
    """

    def call(images: Tensor) -> Tensor:
        # Clones, since a candidate may change its input in place.
        answers = [torch.log_softmax(model(images.clone()).float(), dim=1) for _ in range(draws)]
        return torch.logsumexp(torch.stack(answers), dim=0) - math.log(draws)

    return call
