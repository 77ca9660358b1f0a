"""Passes through a network in the precision that the settings ask for."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bench.training.settings import Precision


def logits(network: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Float32 logits (N, K) of images (N, C, H, W) in [0, 1]."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return cast(Tensor, network(images)).float()
