"""A transfer attack that needs nothing but the candidate's answers.

A small network is trained to answer as the candidate does (N. Papernot et al., "Practical Black-Box
Attacks against Machine Learning", 2017, arXiv 1602.02697), attacked with its own gradients, and the
images are tried on the candidate. Its gradients cannot be masked, so that it should break nothing
that white-box attacks leave.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.attacks.distances import Norm, norms, per_image
from bench.attacks.losses import margin
from bench.attacks.projections import onto_ball_
from bench.decision import NO_CLASS

LONGEST_SIDE = 32
"""The substitute sees larger images pooled to about this size."""
TRAINING_STEPS = 200
TRAINING_BATCH = 64
LEARNING_RATE = 3e-3
ATTACK_STEPS = 20
SMALLEST_NORM = 1e-12


def train_substitute(
    answer: Callable[[Tensor], Tensor], images: Tensor, classes: int, reach: float, seed: int
) -> nn.Module:
    """Train a small convolutional network on a candidate's answers.

    Args:
        answer: images (n, C, H, W) -> the candidate's classes (n,); images without a class
            are left out.
        images: (N, C, H, W) in [0, 1], which are queried with noise on them.
        classes: K.
        reach: the noise is uniform in [-reach, reach].
        seed: of weights, batches and noise.

    Returns:
        images -> logits (n, K), on the device of `images`, in eval mode.
    """
    generator = torch.Generator().manual_seed(seed)
    network = _network(images.shape[1], max(images.shape[2:]), classes, generator).to(images.device)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(TRAINING_STEPS):
            rows = torch.randint(len(images), (TRAINING_BATCH,), generator=generator)
            noise = torch.rand(TRAINING_BATCH, *images.shape[1:], generator=generator)
            batch = images[rows.to(images.device)]
            batch = (batch + reach * (2 * noise - 1).to(images.device)).clamp(0, 1)
            answers = answer(batch)
            known = answers != NO_CLASS
            if not bool(known.any()):
                continue
            loss = nn.functional.cross_entropy(network(batch)[known], answers[known])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return network.eval().requires_grad_(requires_grad=False)


def transfer_images(
    network: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float
) -> Tensor:
    """Return images inside the ball that the substitute gets wrong by far.

    The attack is the iterated gradient method with momentum, made for transfer (Y. Dong et al.,
    "Boosting Adversarial Attacks with Momentum", 2018, arXiv 1710.06081), on the margin.

    Args:
        network: the substitute.
        images: (n, C, H, W) in [0, 1].
        labels: (n,).
        norm: of the ball, Linf or L2.
        eps: its radius.

    Returns:
        (n, C, H, W).
    """
    current, momentum = images.clone(), torch.zeros_like(images)
    step = 2.5 * eps / ATTACK_STEPS
    for _ in range(ATTACK_STEPS):
        inputs = current.detach().requires_grad_()
        with torch.enable_grad():
            value = margin(network(inputs), labels, labels).sum()
            (gradient,) = torch.autograd.grad(value, inputs)
        momentum += gradient / per_image(norms(gradient, "L1") + SMALLEST_NORM, gradient)
        if norm == "Linf":
            current = current + step * momentum.sign()
            current = current.clamp(images - eps, images + eps).clamp(0, 1)
        else:
            length = per_image(norms(momentum, "L2") + SMALLEST_NORM, momentum)
            current = onto_ball_(current + step * momentum / length, images, eps)
    return current


def _network(channels: int, side: int, classes: int, generator: torch.Generator) -> nn.Module:
    pooled = -(-side // LONGEST_SIDE)
    network = nn.Sequential(
        nn.AvgPool2d(pooled) if pooled > 1 else nn.Identity(),
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(32 * 16, classes),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, generator=generator)
            else:
                parameter.zero_()
    return network
