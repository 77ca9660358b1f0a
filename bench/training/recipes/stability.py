"""Stability training: a noisy image should get the clean one's probabilities.

B. Li, C. Chen, W. Wang, L. Carin, "Certified Adversarial Robustness with Additive Noise", NeurIPS
2019 (arXiv 1809.03113), after S. Zheng et al., "Improving the Robustness of Deep Neural Networks
via Stability Training", CVPR 2016.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bench.training.network import logits
from bench.training.smoothing import (
    NoisyBatch,
    SmoothingSettings,
    register_smoothing_recipe,
)


class StabilitySettings(SmoothingSettings):
    """The settings of stability training."""

    stability_weight: float = Field(default=2.0, ge=0)
    """lambda, the weight of the cross-entropy from the clean to the noisy image's probabilities."""


def loss(settings: StabilitySettings, batch: NoisyBatch) -> Tensor:
    """Return CE(f(x), y) + lambda mean_j CE(f(x + d_j), softmax f(x)).

    Clean and noisy images pass through the network separately, each normalised by its own batch.
    """
    clean = logits(batch.network, batch.images, batch.precision)
    scores = batch.scores(batch.images)
    stability = -(clean.softmax(dim=1) * scores.log_softmax(dim=2)).sum(dim=2).mean()
    return functional.cross_entropy(clean, batch.labels) + settings.stability_weight * stability


register_smoothing_recipe(
    "stability", "clean images, and their answers for noisy ones", StabilitySettings, loss
)
