"""Any registered attack as one plain function, for people and for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.attack import Model, attack_samples
from bench.attacks.distances import Norm
from bench.attacks.registry import plan_attack
from bench.errors import InputError


def attack_images(
    name: str,
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    eps: float,
    seed: int = 0,
    indices: Tensor | None = None,
    **parameters: int | float,
) -> Tensor:
    """Attack images.

    For example, with 20 steps:

        attack_images("apgd-t", model, images, labels, norm="Linf", eps=8 / 255, steps=20)

    Args:
        name: of a registered attack, such as "apgd-ce", "apgd-t", "fab-t" or "square".
        model: to fool.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        norm: of the ball, Linf or L2.
        eps: its radius, in the [0, 1] pixel scale.
        seed: of the random streams.
        indices: (N,) places in the data set, part of the streams' key; 0, 1, ... by default.
        parameters: what differs from the attack's defaults, such as steps, targets, restarts or
            queries.

    Returns:
        (N, C, H, W): adversarial images where the attack succeeded, else the clean ones.

    Raises:
        InputError: the attack is unknown, needs more of a candidate than its logits, or a parameter
            or an input is out of its range.
    """
    if not len(images):
        return images.clone()
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    plan = plan_attack(name, parameters, norm=norm, eps=eps, classes=classes)
    if plan.view not in ("logits", "uncompiled"):
        raise InputError(
            f"attack {name}: expected an attack on logits alone, got one that is shown a "
            f"candidate's {plan.view}; run it with the fast engine"
        )
    return attack_samples(
        plan.attack,
        model,
        images,
        labels,
        name=plan.name,
        targets=plan.targets,
        restarts=plan.restarts,
        seed=seed,
        indices=indices,
    ).images
