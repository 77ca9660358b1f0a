"""MACER: the certified radius of the soft smoothed classifier is maximised, without attacks.

R. Zhai, C. Dan, D. He, H. Zhang, B. Gong, P. Ravikumar, C.-J. Hsieh, L. Wang, "MACER: Attack-free
and Scalable Robust Training via Maximizing Certified Radius", ICLR 2020 (arXiv 2001.02378).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bench.training.noise import draw_noise, log_mean_softmax, noisy_logits
from bench.training.smoothing import SmoothingTraining
from bench.training.smoothing_settings import MacerSettings


def loss(
    settings: MacerSettings,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> Tensor:
    """-log F of the label, and the hinged radius of what is right; see ``SmoothingLoss``."""
    noise = draw_noise(images, settings.sigma, settings.noise_draws, generator)
    scores = noisy_logits(network, images, noise, settings.precision)
    classification = -log_mean_softmax(scores).gather(1, labels[:, None]).mean()
    if epoch < settings.deferred_epochs:
        return classification
    return classification + settings.radius_weight * radius_loss(settings, scores, labels)


def radius_loss(settings: MacerSettings, scores: Tensor, labels: Tensor) -> Tensor:
    """sigma / 2 times the mean over images of max(gamma - xi, 0), 0 where the image is wrong.

    xi = Phi^-1(p_1) - Phi^-1(p_2), of the two largest mean probabilities of the logits (m, N, K)
    times beta. Images of which a probability has rounded to 0 or 1 have no finite quantile, and
    drop out as those beyond the hinge do.
    """
    probabilities = log_mean_softmax(settings.inverse_temperature * scores).exp()
    (first, second), (guess, _) = (each.unbind(dim=1) for each in probabilities.topk(2))
    with torch.no_grad():
        gap = torch.special.ndtri(first) - torch.special.ndtri(second)
        counts = (guess == labels) & gap.isfinite() & (gap <= settings.hinge)
    # Chosen before the quantiles are taken: an infinite one would bring a NaN into the gradient.
    difference = torch.special.ndtri(first[counts]) - torch.special.ndtri(second[counts])
    hinged = cast(Tensor, settings.hinge - difference)
    return hinged.sum() * settings.sigma / 2 / len(labels)


train = SmoothingTraining(MacerSettings, loss)
