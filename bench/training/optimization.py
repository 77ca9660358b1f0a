"""How a loss is minimised: the optimizer, its learning rate, and the average of the weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Schedule = Callable[[int, int], float]
"""From the step, 0, 1, ..., and the number of steps to a learning rate."""

RATE_FACTOR = "rate_factor"
"""Key of an optimizer's parameter group: what the schedule's learning rate is multiplied by."""


@dataclass(frozen=True)
class Optimization:
    """How a loss is minimised.

    Attributes:
        optimizer: Over the parameters of the network.
        schedule: The learning rate of each step.
        gradient_clip: The largest L2 norm of all gradients together; None for no limit.
    """

    optimizer: torch.optim.Optimizer
    schedule: Schedule
    gradient_clip: float | None = None


def one_cycle(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Return a learning rate that rises linearly from 0 to a peak, then falls linearly to 0.

    L. N. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2018. It is positive at every step, so that each of them counts.

    Args:
        step: 0, ..., steps - 1.
        steps: Length of the training.
        peak: The highest learning rate.
        warm_up: Share of the steps, in [0, 1), in which it rises.

    Raises:
        ValueError: If the step is not one of the training's.
    """
    _check(step, steps)
    summit = warm_up * steps
    position = step + 0.5
    if position < summit:
        return peak * position / summit
    return peak * (steps - position) / (steps - summit)


def cosine(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Return a learning rate that falls to 0 as half a cosine wave, after an exponential warm-up.

    The warm-up is the factor 1 - exp(-(step + 1) / T) of J. Ma and D. Yarats, "On the adequacy of
    untuned warmup for adaptive optimization", 2021, with T = warm_up * steps.

    Args:
        step: 0, ..., steps - 1.
        steps: Length of the training.
        peak: Where the cosine begins.
        warm_up: Share of the steps, in [0, 1), after which the warm-up has reached 1 - 1/e.

    Raises:
        ValueError: If the step is not one of the training's.
    """
    _check(step, steps)
    warmth = -math.expm1(-(step + 1) / (warm_up * steps)) if warm_up else 1.0
    return peak * warmth * (1 + math.cos(math.pi * step / steps)) / 2


def divided(step: int, steps: int, epochs: int, start: float, every: int) -> float:
    """Return a learning rate that is divided by 10 after every so many epochs.

    Args:
        step: 0, ..., steps - 1.
        steps: Length of the training.
        epochs: The same in epochs.
        start: The learning rate of the first step.
        every: Epochs from one division to the next.

    Raises:
        ValueError: If the step is not one of the training's.
    """
    _check(step, steps)
    return float(start * 0.1 ** (step * epochs // steps // every))


def _check(step: int, steps: int) -> None:
    if not 0 <= step < steps:
        raise ValueError(f"expected a step from 0 to {steps - 1}, got {step}")


def decay_at(step: int, decay: float) -> float:
    """Return the decay of the average after some steps, warmed up from 0 to ``decay``.

    Without the warm-up the average would carry the random initialisation for 1 / (1 - decay) steps.
    """
    return min(decay, step / (step + 10))


class Average(AveragedModel):
    """An exponential moving average of a network's weights; see `averaged_model`.

    PyTorch's own update hands its counter to the device for each kind of tensor, and a GPU makes
    the host wait for that. Here the counter stays on the CPU, and an update is a few calls.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights after one more step in."""
        steps = int(self.n_averaged)
        pairs = list(zip(_state(self.module), _state(model), strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point() and steps > 0]
        copied = [pair for pair in pairs if not (pair[0].is_floating_point() and steps > 0)]
        if moving:
            averages, values = (list(each) for each in zip(*moving, strict=True))
            torch._foreach_lerp_(averages, values, 1 - decay_at(steps, self.decay))
        if copied:
            averages, values = (list(each) for each in zip(*copied, strict=True))
            torch._foreach_copy_(averages, values)
        self.n_averaged += 1


def _state(network: nn.Module) -> list[Tensor]:
    tensors = itertools.chain(network.parameters(), network.buffers())
    return [tensor.detach() for tensor in tensors]


def averaged_model(network: nn.Module, decay: float) -> Average:
    """Return an exponential moving average of a network, in eval mode.

    Running statistics of batch normalisation are averaged too, so that the averaged network needs
    no pass over the data to recompute them. Counters are copied.
    """
    return Average(network, decay).eval().requires_grad_(False)
