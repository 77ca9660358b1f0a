"""Noisy copies of images, and what a network says of them."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from bench.training.precision import logits
from bench.training.settings import Precision


def draw_noise(images: Tensor, sigma: float, draws: int, generator: torch.Generator) -> Tensor:
    """Gaussian noise (m, N, C, H, W) for images (N, C, H, W), each image and draw for itself.

    Args:
        images: on any device; the draws are made on the CPU, the same for each.
        sigma: Standard deviation, in the [0, 1] pixel scale.
        draws: m.
        generator: Source of the draws; on the CPU.
    """
    noise = torch.randn(draws, *images.shape, generator=generator).mul_(sigma)
    return noise.to(images.device)


def noisy_logits(network: nn.Module, images: Tensor, noise: Tensor, precision: Precision) -> Tensor:
    """Logits (m, N, K) of images (N, C, H, W) under noise (m, N, C, H, W), in one pass."""
    copies = (images + noise).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return logits(network, copies, precision).view(*noise.shape[:2], -1)


def log_mean_softmax(scores: Tensor) -> Tensor:
    """log F, F the mean softmax over the copies: (N, K) of logits (m, N, K).

    The sum is taken of logarithms, so that it stays finite where a probability underflows.
    """
    return scores.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(scores))


def cross_entropy_of_copies(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over images and copies of -log softmax at the label, logits (m, N, K), labels (N,)."""
    places = labels.expand(scores.shape[:2])
    return -scores.log_softmax(dim=2).gather(2, places[..., None]).mean()


def divergence(targets: Tensor, scores: Tensor) -> Tensor:
    """KL(target || softmax) for each copy and image, (m, N), with a gradient into both.

    Args:
        targets: Probabilities (N, K), the same for all copies.
        scores: Logits (m, N, K).
    """
    # Where a probability underflows to 0 it contributes nothing, and its logarithm no NaN.
    ratio = targets.clamp_min(torch.finfo(targets.dtype).tiny).log() - scores.log_softmax(dim=2)
    return (targets * ratio).sum(dim=2)


def ascent_direction(
    network: nn.Module, images: Tensor, labels: Tensor, noise: Tensor, precision: Precision
) -> Tensor:
    """The unit L2 direction in which -log F of the label grows fastest, (N, C, H, W).

    This is the attack of H. Salman et al., "Provably Robust Deep Learning via Adversarially Trained
    Smoothed Classifiers", 2019 (arXiv 1906.04584, equation 6): through the mean softmax, not
    through the mean of the losses. An image without a gradient gets a direction of zeros.
    """
    attacked = images.detach().requires_grad_()
    scores = noisy_logits(network, attacked, noise, precision)
    loss = -log_mean_softmax(scores).gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(loss, attacked)
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return cast(Tensor, gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny))


def into_ball(moved: Tensor, centres: Tensor, radius: float) -> Tensor:
    """The nearest images (N, C, H, W) within L2 distance ``radius`` of their centres."""
    offset = moved - centres
    length = offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return centres + torch.mul(offset, radius).div(length.clamp_min(radius))
