"""Attacking what a randomized model does on average.

A. Athalye et al., "Synthesizing Robust Adversarial Examples", 2018 (arXiv 1707.07397): the gradient
of the expectation over the model's randomness (EOT), here by the mean over several passes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.attack import Model
from bench.decision import mean_answer

DRAWS = 20


def expectation(model: Model, draws: int = DRAWS) -> Model:
    """Return the logarithm of the mean of a model's probabilities over several passes.

    See `mean_answer` for passes whose logits are not finite.

    Args:
        model: images (N, C, H, W) to logits (N, K), different in each call.
        draws: how many passes.
    """

    def call(images: Tensor) -> Tensor:
        # Clones, since a candidate may change its input in place.
        answers = [model(images.clone()).float() for _ in range(draws)]
        return mean_answer(torch.stack(answers), dim=0)

    return call
