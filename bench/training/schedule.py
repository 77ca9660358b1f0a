"""The learning rate over a training."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]
"""From the step, 0, 1, ..., and the number of steps to a learning rate."""


def one_cycle(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Learning rate of one step: a straight line up from 0, then a straight line down to 0.

    L. N. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2018. It reaches neither 0 within the steps, so that each of them counts.

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
    """Learning rate of one step: half a cosine wave down to 0, times an exponential warm-up.

    The warm-up is 1 - exp(-(step + 1) / T), as of J. Ma and D. Yarats, "On the adequacy of untuned
    warmup for adaptive optimization", 2021, with T = warm_up * steps.

    Args:
        step: 0, ..., steps - 1.
        steps: Length of the training.
        peak: Of the cosine, where it begins.
        warm_up: Share of the steps, in [0, 1), after which the warm-up has reached 1 - 1/e.

    Raises:
        ValueError: If the step is not one of the training's.
    """
    _check(step, steps)
    warmth = -math.expm1(-(step + 1) / (warm_up * steps)) if warm_up else 1.0
    return peak * warmth * (1 + math.cos(math.pi * step / steps)) / 2


def divided(step: int, steps: int, epochs: int, start: float, every: int) -> float:
    """Learning rate of one step: ``start``, divided by 10 after every so many epochs.

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
