"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


def decay_at(step: int, decay: float) -> float:
    """Decay of the average after the given number of steps, warmed up from 0 to ``decay``.

    Without the warm-up the average would carry the random initialisation for 1 / (1 - decay) steps.
    """
    return min(decay, step / (step + 10))


class AveragedWeights:
    """Averages every floating-point entry of a network's state dict.

    Running statistics of batch normalisation are averaged too: the averaged network then needs no
    pass over the data to recompute them.

    Attributes:
        network: A copy of the network, with the averaged weights; always in eval mode.
        steps: Number of updates so far.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's present weights."""
        weight = 1 - decay_at(self.steps, self.decay)
        self.steps += 1
        present = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(present[name], weight)
            else:
                average.copy_(present[name])
