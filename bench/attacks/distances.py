"""Norms of perturbations, and the shapes that go with them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bench.errors import InputError

Norm = Literal["Linf", "L2", "L1"]


def linf_or_l2(norm: Norm, attack: str) -> Literal["Linf", "L2"]:
    """Return the norm of a ball in which an attack searches.

    Args:
        norm: the threat model's; attacks of users' own may know all of them.
        attack: its name, for the message.

    Raises:
        InputError: another norm.
    """
    if norm == "Linf" or norm == "L2":
        return norm
    raise InputError(
        f"expected norm Linf or L2 for {attack}, got {norm}; AutoAttack's attacks in L1 are not "
        "implemented"
    )


def norms(perturbations: Tensor, norm: Norm) -> Tensor:
    """Return the norm of each perturbation.

    Args:
        perturbations: (N, ...).
        norm: which one.

    Returns:
        (N,), in the dtype of the perturbations.
    """
    flat = perturbations.flatten(1)
    if norm == "Linf":
        return flat.abs().amax(dim=1)
    if norm == "L2":
        length: Tensor = torch.linalg.vector_norm(flat, dim=1)
        return length
    return flat.abs().sum(dim=1)


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Return values (N,) in the shape (N, 1, 1, ...), to broadcast over images (N, ...)."""
    return values.view(-1, *[1] * (images.dim() - 1))
