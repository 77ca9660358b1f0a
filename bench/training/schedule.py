"""The learning rate over a training."""

from __future__ import annotations


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
    if not 0 <= step < steps:
        raise ValueError(f"expected a step from 0 to {steps - 1}, got {step}")
    summit = warm_up * steps
    position = step + 0.5
    if position < summit:
        return peak * position / summit
    return peak * (steps - position) / (steps - summit)


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
    if not 0 <= step < steps:
        raise ValueError(f"expected a step from 0 to {steps - 1}, got {step}")
    return float(start * 0.1 ** (step * epochs // steps // every))
