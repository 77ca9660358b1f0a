"""Losses on a mix's answer with all its parts, for attacks that know the defence.

Each loss maps (answer, labels, targets, weights) to one value a sample, which an attack ascends.
The weights (N,) are numbers that the attack chose for each work item; each loss documents how it
uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from bench.attacks.losses import Loss


class Answer(Protocol):
    """A mix's answer to N images, from one pass through each base.

    Attributes:
        log_probabilities: (N, K) of the mix.
        accurate: (N, K) of the accurate base alone.
        robust: (N, K) of the robust base alone.
        gamma: (N,) the mixing network's output before the sigmoid; None for a fixed weight.
    """

    @property
    def log_probabilities(self) -> Tensor: ...

    @property
    def accurate(self) -> Tensor: ...

    @property
    def robust(self) -> Tensor: ...

    @property
    def gamma(self) -> Tensor | None: ...


MixLoss = Callable[[Answer, Tensor, Tensor, Tensor], Tensor]
"""From an answer, labels (N,), targets (N,) and weights (N,) to losses (N,)."""


def on_mix(loss: Loss) -> MixLoss:
    """Return a loss on the mix's log-probabilities."""
    return lambda answer, labels, targets, _: loss(answer.log_probabilities, labels, targets)


def on_accurate_base(loss: Loss) -> MixLoss:
    """Return a loss on the accurate base alone."""
    return lambda answer, labels, targets, _: loss(answer.accurate, labels, targets)


def on_robust_base(loss: Loss) -> MixLoss:
    """Return a loss on the robust base alone."""
    return lambda answer, labels, targets, _: loss(answer.robust, labels, targets)


def on_other_weight(loss: Loss) -> MixLoss:
    """Return a loss on the same bases mixed at another weight: each item's own."""

    def on_reweighted(answer: Answer, labels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        alpha = weights.to(answer.robust.dtype).clamp(1e-6, 1 - 1e-6).unsqueeze(1)
        mixed = torch.logaddexp(
            answer.accurate + torch.log1p(-alpha), answer.robust + torch.log(alpha)
        )
        return loss(mixed, labels, targets)

    return on_reweighted


def towards_accurate_base(loss: Loss) -> MixLoss:
    """Return (1 - w) loss + w BCE(gamma, 1), w an item's weight (arXiv 2301.12554, section 5).

    Ascending the second term lowers gamma, and with it the weight of the robust base.
    """

    def pushed(answer: Answer, labels: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        assert answer.gamma is not None
        base = loss(answer.log_probabilities, labels, targets)
        return (1 - weights) * base + weights * functional.softplus(-answer.gamma)

    return pushed


def probability_margin(answer: Answer, labels: Tensor, targets: Tensor, _: Tensor) -> Tensor:
    """Return the highest other probability of the mix minus the label's.

    Unlike a margin of logarithms, it weighs each base's probabilities as the mix does.
    """
    probabilities = answer.log_probabilities.exp()
    column = labels.unsqueeze(1)
    others = probabilities.scatter(1, column, float("-inf")).max(dim=1).values
    return others - probabilities.gather(1, column).squeeze(1)
