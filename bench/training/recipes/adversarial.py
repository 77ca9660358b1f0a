"""Adversarial training: cross-entropy on images attacked in the Linf ball.

A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018. With the
one-step settings of P. de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step
Adversarial Training", 2022 (arXiv 2202.01181), it costs less than two standard trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bench.attacks.attack import finite
from bench.training.data import TrainingData
from bench.training.draws import MEASUREMENTS, generator_for, on_device
from bench.training.network import (
    MEASURED_AT_ONCE,
    OneCycleSettings,
    Precision,
    clean_accuracy,
    logits,
    sgd_in_one_cycle,
    train_network,
    under_attack,
)
from bench.training.recipe import (
    Conditions,
    Measurement,
    Trained,
    readable_radius,
    register_recipe,
)
from bench.validation import Number


class AdversarialSettings(OneCycleSettings):
    """The settings of adversarial training in the Linf ball."""

    eps: Annotated[Number, Field(gt=0, le=1)]
    """Radius of the threat model."""
    attack_steps: int = Field(default=1, ge=1)
    """Gradient steps of the attack on each batch."""
    attack_step_size: float = Field(default=1.0, gt=0)
    """In units of eps."""
    attack_noise: float = Field(default=1.0, ge=0)
    """Half-width of the uniform noise that the attack starts from, in units of eps."""
    attack_projects: bool = True
    """Whether the adversarial image is projected onto the eps-ball; N-FGSM does not do it."""
    attack_mode: Literal["train", "eval"] = "train"
    """Mode of the network under attack: batch-normalised by the batch, or by running statistics.

    In neither do the attack's images enter the running statistics."""

    def threat_models(self) -> list[dict[str, Any]]:
        """Return the Linf ball of the training."""
        return [{"norm": "Linf", "eps": readable_radius(self.eps)}]


def train(settings: AdversarialSettings, data: TrainingData, conditions: Conditions) -> Trained:
    """Train a network for accuracy on images attacked in the ball; see ``Recipe.train``."""

    def batch_loss(
        network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int
    ) -> Tensor:
        with under_attack(network, training=settings.attack_mode == "train"):
            adversarial = perturb(
                partial(logits, network, precision=settings.precision),
                images,
                labels,
                settings.eps,
                settings.attack_steps,
                settings.attack_step_size,
                settings.attack_noise,
                settings.attack_projects,
                generator,
            )
        return functional.cross_entropy(
            logits(network, adversarial, settings.precision),
            labels,
            label_smoothing=settings.label_smoothing,
        )

    def measure(epoch: int, network: nn.Module, images: Tensor, labels: Tensor) -> Measurement:
        generator = generator_for(conditions.seed, MEASUREMENTS)
        return Measurement(
            epoch,
            clean_accuracy(network, images, labels, settings.precision),
            pgd_accuracy(network, images, labels, settings.eps, settings.precision, generator),
        )

    return train_network(
        settings,
        data,
        conditions,
        lambda network: sgd_in_one_cycle(network, settings),
        batch_loss,
        measure,
    )


def perturb(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    eps: float,
    steps: int,
    step_size: float,
    noise: float,
    projects: bool,
    generator: torch.Generator,
) -> Tensor:
    """Ascend the cross-entropy along the gradient's sign, from uniform noise.

    With several steps and projection, this is the PGD of Madry et al. With one step of size 1 from
    noise 2 and no projection, it is the N-FGSM of de Jorge et al.

    Args:
        forward: From images to logits (N, K).
        images: (N, C, H, W), in [0, 1].
        labels: (N,), the classes to lead away from.
        eps: Radius of the Linf ball.
        steps: Number of gradient steps.
        step_size: Length of a step, in units of eps.
        noise: Half-width of the uniform noise at the start, in units of eps.
        projects: Whether the result is projected onto the ball.
        generator: Source of the noise; on the CPU or on the images' device.

    Returns:
        Adversarial images, in [0, 1], without a gradient.
    """
    source = on_device(generator, images.device)
    # Drawn in the images' memory order, so that adding the two needs no copy.
    draws = torch.empty_like(images).uniform_(-noise, noise, generator=source)
    adversarial = (images + eps * draws).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = functional.cross_entropy(forward(adversarial), labels, reduction="sum")
        # With respect to the images alone: the gradients of the weights, which are not needed here,
        # are the greater part of a backward pass.
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = adversarial.detach() + step_size * eps * finite(gradient).sign()
        if projects:
            adversarial = adversarial.clamp(images - eps, images + eps)
        adversarial = adversarial.clamp(0, 1)
    return adversarial


def pgd_accuracy(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    precision: Precision,
    generator: torch.Generator,
    steps: int = 10,
) -> float:
    """Return the share of images still classified correctly after PGD in the Linf ball.

    It follows a training; it is no evaluation: that is what runs are for.
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
        for some, theirs in zip(
            torch.split(images, MEASURED_AT_ONCE),
            torch.split(labels, MEASURED_AT_ONCE),
            strict=True,
        )
    ]
    return clean_accuracy(network, torch.cat(attacked), labels, precision)


register_recipe(
    "adversarial", "cross-entropy on images attacked in the Linf ball", AdversarialSettings, train
)
