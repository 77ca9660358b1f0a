"""The gradient of a loss with respect to the image, of any candidate, even one that has none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.attacks.losses import Loss, cross_entropy
from bench.out_of_memory import is_out_of_memory


def image_gradient(
    model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> Tensor | None:
    """Gradient (n, C, H, W) of a loss, or None where there is none to be had.

    Args:
        model: images to logits (n, K).
        images: (n, C, H, W).
        labels: (n,).
        loss: a value a sample.
    """
    inputs = images.clone().requires_grad_()
    with torch.enable_grad():
        value = loss(model(inputs.clone()).float(), labels, labels).sum()
        if not value.requires_grad:
            return None
        try:
            (gradient,) = torch.autograd.grad(value, inputs, allow_unused=True)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            return None  # e.g. what the backward pass needs was overwritten in place
    return gradient
