"""Tiny bases for tests of mixes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.candidates.adaptive_mix import AdaptiveMix
from bench.candidates.architectures import digits_network
from bench.candidates.mixing_network import MixingNetwork


class Given(nn.Module):
    """Answers with given logits (N, K), plus nothing times the images; counts its passes."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return self.logits + 0 * images.flatten(1).sum(dim=1, keepdim=True)


def settled(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, with batch norms that have seen something."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return module.eval()


def adaptive_mix(seed: int = 0, **changes: object) -> AdaptiveMix:
    """An adaptive mix of two random digits networks; keywords change its arguments."""
    arguments = {
        "image_shape": (1, 8, 8),
        "accurate_layers": ("stages.0", "stages.1"),
        "robust_layers": ("stages.0", "stages.1"),
        "alpha_scale": 0.3,
        "alpha_bias": 0.6,
        "accurate_scale": 2.0,
        "planes": (12, 16),
    } | changes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        accurate = settled(digits_network(widths=(8, 16)))
        robust = settled(digits_network(widths=(4, 8)))
        mix = AdaptiveMix(accurate, robust, **arguments)  # type: ignore[arg-type]
        settled(mix.mixing_network.model)
        scatter(mix.mixing_network, mix, torch.rand(64, 1, 8, 8))
    mix.eval()
    return mix


def scatter(network: MixingNetwork, mix: AdaptiveMix, images: Tensor) -> None:
    """Give the last batch norm the statistics of images (N, C, H, W)."""
    network.train()
    network.bn.momentum = None
    with torch.no_grad():
        mix.answer(images)
    network.bn.momentum = 0.01
    settled(network.model)
