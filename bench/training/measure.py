"""Quick accuracies for following a training. They are no evaluation: that is what runs are for."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from bench.decision import classes_of
from bench.training.perturbation import perturb
from bench.training.precision import logits
from bench.training.settings import Precision

BATCH_SIZE = 250


def clean_accuracy(
    network: nn.Module, images: Tensor, labels: Tensor, precision: Precision
) -> float:
    """Share of the images (N, C, H, W) that a network in eval mode classifies as labelled (N,)."""
    with torch.no_grad():
        right = [
            classes_of(logits(network, some, precision)) == theirs
            for some, theirs in zip(_batches(images), _batches(labels), strict=True)
        ]
    return torch.cat(right).double().mean().item()


def pgd_accuracy(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    precision: Precision,
    generator: torch.Generator,
    steps: int = 10,
) -> float:
    """Share of the images still classified as labelled after PGD in the Linf ball of radius eps.

    A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018.
    """
    forward = partial(logits, network, precision=precision)
    attacked = [
        perturb(
            forward,
            some,
            theirs,
            eps,
            steps,
            step_size=2.5 / steps,
            noise=1.0,
            projects=True,
            generator=generator,
        )
        for some, theirs in zip(_batches(images), _batches(labels), strict=True)
    ]
    return clean_accuracy(network, torch.cat(attacked), labels, precision)


def _batches(tensor: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tensor, BATCH_SIZE)
