"""Projected gradient descent whose step size falls along a cosine, on the margin between classes.

Auto-PGD halves its steps when the loss stops rising, which takes a hundred steps to pay. Where few
steps must do, a schedule that is known in advance does better: large steps first, small ones at the
end (Y. Liu et al., "Practical evaluation of adversarial robustness via adaptive auto attack", CVPR
2022, arXiv 2203.05154, section 4.1). The margin is the loss that says by how much an image
survives, so that a search also tells how near it came.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.attacks.auto_pgd import APGD, APGDState
from bench.attacks.distances import Norm
from bench.attacks.losses import margin, margin_targeted

LARGEST_STEP = 2.0
SMALLEST_STEP = 0.02
"""The first and the last step size, in radii of the ball."""


class CosinePGD(APGD):
    """Projected gradient descent with momentum and a cosine schedule, on the margin of logits."""

    def __init__(
        self,
        norm: Norm,
        eps: float,
        *,
        targeted: bool = False,
        steps: int = 10,
        stops_at_break: bool = True,
    ) -> None:
        """Make an attack.

        Args:
            norm: of the ball, Linf or L2.
            eps: its radius, in the [0, 1] pixel scale; positive.
            targeted: whether to raise the target's logit above the label's, or any other's.
            steps: gradient steps after the start, at least 1.
            stops_at_break: see `Attack`.

        Raises:
            InputError: a parameter is out of its range.
        """
        super().__init__(
            norm,
            eps,
            margin_targeted if targeted else margin,
            targeted=targeted,
            steps=steps,
            stops_at_break=stops_at_break,
        )
        self._sizes = [eps * size for size in cosine_schedule(steps)]
        self._sizes_on: dict[torch.device, Tensor] = {}

    def adapt_step_size(
        self, state: APGDState, losses: Tensor, first: Tensor, searching: Tensor
    ) -> Tensor:
        """Set each item's step size to its place in the schedule; no item goes back.

        `checkpoint_loss` keeps the margin at the start.
        """
        if losses.device not in self._sizes_on:
            self._sizes_on[losses.device] = torch.tensor(self._sizes).to(losses)
        state.step_size.copy_(
            self._sizes_on[losses.device][state.iteration.clamp(max=self.steps - 1)]
        )
        noted = state.checkpoint_loss
        torch.where(first & searching, losses, noted, out=noted)
        return torch.zeros_like(searching)

    def margins(self, state: APGDState) -> tuple[Tensor, Tensor]:
        """Return the margins (N,) at the start and at the best point; see `Attack.margins`."""
        return state.checkpoint_loss, state.best_loss


def cosine_schedule(steps: int) -> list[float]:
    """Return the size of each step, in radii, from `LARGEST_STEP` down to `SMALLEST_STEP`.

    One more is returned than there are steps, for the pass that only looks where the last step led.

    Args:
        steps: at least 1.
    """
    span = LARGEST_STEP - SMALLEST_STEP
    return [
        SMALLEST_STEP + span * (1 + math.cos(math.pi * step / steps)) / 2
        for step in range(steps + 1)
    ]
