"""Which wrong classes a targeted attack aims for, and in which order."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.attack import Model, finite, likeliest_wrong_classes
from bench.attacks.distances import Norm

RANKED_CLASSES = 9
"""Classes whose distance is worked out: those with the highest logits; as many as AutoAttack aims
for."""


def nearest_wrong_classes(
    model: Model, images: Tensor, labels: Tensor, norm: Norm, ranked: int = RANKED_CLASSES
) -> Tensor:
    """Return the wrong classes in the order of their boundary's distance, nearest first.

    To first order class k begins at the distance (z_y - z_k) / ||grad (z_k - z_y)||, in the dual
    norm: L1 for Linf, L2 for L2 (O. Melamed, G. Yehudai, A. Shamir, "MALT Powers Up Adversarial
    Attacks", arXiv 2407.02240, algorithm 1). It takes one forward pass and a backward pass for each
    of the likeliest classes that are ranked.

    Args:
        model: images -> logits, differentiable.
        images: (N, ...) clean images.
        labels: (N,) int64.
        norm: of the threat model.
        ranked: how many of the likeliest classes.

    Returns:
        (N, min(`ranked`, K - 1)) int64.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images)
    classes = likeliest_wrong_classes(logits, labels, ranked)
    right = logits.gather(1, labels.unsqueeze(1))
    distances = []
    for rank in range(classes.shape[1]):
        with torch.enable_grad():
            gap = (logits.gather(1, classes[:, rank : rank + 1]) - right).squeeze(1)
            (gradient,) = torch.autograd.grad(gap.sum(), images, retain_graph=True)
        slope = torch.linalg.vector_norm(finite(gradient).flatten(1), 1 if norm == "Linf" else 2, 1)
        distances.append(-gap.detach() / slope.clamp_min(torch.finfo(slope.dtype).tiny))
    order = torch.stack(distances, dim=1).argsort(dim=1, stable=True)
    return classes.gather(1, order)
