"""The attack inside adversarial training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.attacks.attack import finite


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
    """Signed-gradient ascent on the cross-entropy, from uniform noise.

    With several steps and projection, the PGD of A. Madry et al., "Towards Deep Learning Models
    Resistant to Adversarial Attacks", 2018. With one step of size 1 from noise 2 and no projection,
    the N-FGSM of P. de Jorge et al., "Make Some Noise", 2022 (arXiv 2202.01181).

    Args:
        forward: Logits (N, K) of images.
        images: (N, C, H, W), in [0, 1].
        labels: (N,), the classes to lead away from.
        eps: Radius of the Linf ball.
        steps: Number of gradient steps.
        step_size: Length of a step, in units of eps.
        noise: Half-width of the uniform noise at the start, in units of eps.
        projects: Whether the result is kept within eps of the image.
        generator: Source of the noise; on the CPU.

    Returns:
        Adversarial images, in [0, 1], without a gradient.
    """
    # Drawn in the images' memory order, so that no copy is needed to bring the two together.
    draws = torch.empty_like(images, device="cpu").uniform_(-noise, noise, generator=generator)
    adversarial = (images + eps * draws.to(images.device)).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = functional.cross_entropy(forward(adversarial), labels, reduction="sum")
        # With respect to the images only: the weights' gradients, not needed here, are the
        # greater part of a backward pass.
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = adversarial.detach() + step_size * eps * finite(gradient).sign()
        if projects:
            adversarial = adversarial.clamp(images - eps, images + eps)
        adversarial = adversarial.clamp(0, 1)
    return adversarial


@contextmanager
def under_attack(network: nn.Module, training: bool) -> Iterator[None]:
    """The network in the mode in which it is attacked, with its running statistics held still."""
    before = network.training
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    normalizations = [module for module in network.modules() if isinstance(module, kinds)]
    momenta = [module.momentum for module in normalizations]
    network.train(training)
    for module in normalizations:
        module.momentum = 0.0
    try:
        yield
    finally:
        network.train(before)
        for module, momentum in zip(normalizations, momenta, strict=True):
            module.momentum = momentum
