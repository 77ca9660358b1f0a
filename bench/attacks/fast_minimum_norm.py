"""Fast minimum-norm attack (Pintor et al. 2021, "Fast Minimum-norm Adversarial Attacks through
Adaptive Norm Constraints", arXiv 2102.12827, algorithm 1), in Linf and L2.

Each step follows the gradient of the margin inside a ball around the clean image, and the ball's
radius follows the boundary: it shrinks below the smallest perturbation that is known to be
adversarial, and grows where the point is not. As long as none is known, it grows at least to the
boundary's distance as estimated to first order. Step sizes and the changes of the radius fall by a
cosine.

An item is broken as soon as an adversarial point lies within eps; it is finished then, or searches
for ever smaller perturbations to the end of its budget (`minimal`).

In L2 the step goes along the gradient, as published. In Linf it goes along the gradient's sign,
with a size in proportion to the ball: a step of a given L2 length would change most pixels by next
to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from bench.attacks.attack import (
    Attack,
    LossSlope,
    Model,
    Passes,
    check_items,
    loss_and_gradient,
    misclassified,
)
from bench.attacks.distances import Norm, linf_or_l2, norms, per_image
from bench.attacks.draws import Draws
from bench.attacks.losses import margin, margin_targeted
from bench.attacks.projections import SMALLEST_NORM
from bench.attacks.replay import Replayed
from bench.attacks.rowwise import RowFunction, copy_rows, resting
from bench.attacks.state import State
from bench.errors import InputError


@dataclass(frozen=True)
class FMNState(State):
    """See `State`; `best` is the closest adversarial image, the clean one if there is none.

    Attributes:
        clean: (N, ...) the centres.
        point: (N, ...) where the next step begins.
        radius: (N,) of the ball that the search keeps to; infinite before the first step.
        best_distance: (N,) of `best` if it is adversarial, else infinite.
    """

    clean: Tensor
    point: Tensor
    radius: Tensor
    best_distance: Tensor


class FMN(Attack[FMNState]):
    """FMN. It draws nothing, so that restarts are all alike.

    Attributes:
        targeted: whether an item follows the lead of one class; any wrong class counts.
    """

    norm: Literal["Linf", "L2"]

    def __init__(
        self,
        norm: Norm,
        eps: float,
        *,
        targeted: bool = False,
        steps: int = 100,
        minimal: bool = False,
        step_size: float = 1.0,
        radius_change: float = 0.05,
        last_radius_change: float = 0.001,
    ) -> None:
        """Make an attack.

        Args:
            norm: of the ball, Linf or L2.
            eps: its radius, in the [0, 1] pixel scale; positive.
            targeted: whether an item follows the lead of one class.
            steps: iterations, at least 1.
            minimal: whether an item that broke goes on to the end of its budget.
            step_size: of the first step: its length in L2, a share of the radius in Linf. It falls
                to a hundredth.
            radius_change: by which share the radius first grows or shrinks, in (0, 1).
            last_radius_change: by which at the end.

        Raises:
            InputError: a parameter is out of its range.
        """
        norm = linf_or_l2(norm, "FMN")
        if not eps > 0 or steps < 1:
            raise InputError(f"expected eps > 0 and steps >= 1, got {eps} and {steps}")
        self.norm = norm
        self.eps = eps
        self.targeted = targeted
        self.steps = steps
        self.stops_at_break = not minimal
        self.passes = Passes(forward=0, forward_backward=1)
        sizes = (step_size, radius_change, last_radius_change)
        self._move = RowFunction(partial(_move, norm, steps, *sizes))
        self.arithmetic = (self._move,)
        self._slope = LossSlope(margin_targeted if targeted else margin)
        self._after_pass = Replayed(self._go_on)
        self.replayed = (self._slope.replayed, self._after_pass)

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> FMNState:
        """Start from the clean image; see `Attack.start`."""
        return self.start_at(images, images, labels, targets)

    def start_at(
        self, points: Tensor, images: Tensor, labels: Tensor, targets: Tensor | None = None
    ) -> FMNState:
        """Start from points (N, ...) in [0, 1]; further arguments as for `Attack.start`."""
        check_items(images, labels, targets, targeted=self.targeted)
        return FMNState(
            labels=labels.clone(),
            targets=torch.zeros_like(labels) if targets is None else targets.clone(),
            best=images.clone(memory_format=torch.contiguous_format),
            broken=torch.zeros_like(labels, dtype=torch.bool),
            iteration=torch.zeros_like(labels),
            clean=images.clone(memory_format=torch.contiguous_format),
            point=points.clone(memory_format=torch.contiguous_format),
            radius=torch.full_like(labels, math.inf, dtype=images.dtype),
            best_distance=torch.full_like(labels, math.inf, dtype=images.dtype),
        )

    def step(self, model: Model, state: FMNState) -> FMNState:
        """Make one forward-backward pass at the point, and move; see `Attack.step`."""
        logits, leads, gradient = loss_and_gradient(
            model, state.point, state.labels, state.targets, self._slope
        )
        self._after_pass(state, logits, leads, gradient)
        return state

    def _go_on(self, state: FMNState, logits: Tensor, leads: Tensor, gradient: Tensor) -> None:
        """Do all of a step that follows its pass, in place.

        Args:
            state: N items.
            logits: (N, K) at the points.
            leads: (N,) the target's logit, or the highest other one, minus the label's.
            gradient: (N, ...) of `leads`; its memory is used up.
        """
        searching = ~self.finished(state)
        distance = norms(state.point - state.clean, self.norm)
        # The clean image itself is right, whatever a lower precision says.
        wrong = misclassified(logits, state.labels) & searching & (distance > 0)
        # One inside the ball is kept even if a closer one was, and was not confirmed.
        closer = (distance < state.best_distance) | (distance <= self.eps)
        copy_rows(state.best, wrong & closer, state.point)
        reached = distance.masked_fill(~wrong, math.inf)
        torch.fmin(state.best_distance, reached, out=state.best_distance)
        with resting(~searching, state.point, state.radius):
            self._move(
                state.point,
                state.clean,
                gradient,
                leads,
                wrong,
                distance,
                state.radius,
                state.best_distance,
                state.iteration,
            )
        state.broken.logical_or_(reached <= self.eps)
        state.iteration.add_(searching)

    def images(self, state: FMNState) -> Tensor:
        """See `Attack.images`: where no item broke, the closest adversarial image, shrunk.

        Where there is none, the point where the search is, shrunk.
        """
        is_found = state.best_distance < math.inf
        nearest = torch.where(per_image(is_found, state.best), state.best, state.point)
        distance = norms(nearest - state.clean, self.norm).clamp_min(SMALLEST_NORM)
        scale = (self.eps / distance).clamp_(max=1)
        shrunk = state.clean + (nearest - state.clean) * per_image(scale, nearest)
        return torch.where(per_image(state.broken, state.best), state.best, shrunk.clamp_(0, 1))


def _move(
    norm: Literal["Linf", "L2"],
    steps: int,
    step_size: float,
    radius_change: float,
    last_radius_change: float,
    point: Tensor,
    clean: Tensor,
    gradient: Tensor,
    lead: Tensor,
    wrong: Tensor,
    distance: Tensor,
    radius: Tensor,
    best_distance: Tensor,
    iteration: Tensor,
) -> None:
    """Change the radius, then go along the gradient and back into the ball, in place.

    Args:
        norm: of the ball.
        steps: of the whole search.
        step_size, radius_change, last_radius_change: see `FMN`.
        point: (N, ...), moved.
        clean: (N, ...).
        gradient: (N, ...) of `lead`; used up.
        lead: (N,) the target's logit, or the highest other one, minus the label's, at `point`.
        wrong: (N,) bool, whether `point` is adversarial.
        distance: (N,) of `point` to `clean`.
        radius: (N,), changed.
        best_distance: (N,) of the closest adversarial point, infinite if none is known.
        iteration: (N,) int64, steps done.
    """
    cosine = (1 + torch.cos(iteration.to(lead.dtype) * (math.pi / steps))) / 2
    change = last_radius_change + (radius_change - last_radius_change) * cosine
    size = step_size * (0.01 + 0.99 * cosine)
    slope = norms(gradient, "L1" if norm == "Linf" else "L2")
    unknown = distance + lead.abs() / slope.clamp_min(SMALLEST_NORM)
    # Beyond the estimate and ever farther: at its end a linear model is not fooled, and the box may
    # cut the way to it short.
    before = torch.where(radius < math.inf, radius, 0.0)
    estimate = unknown.masked_fill(best_distance < math.inf, 0.0)
    grown = torch.fmax(before, estimate) * (1 + change)
    shrunk = torch.minimum(radius * (1 - change), best_distance)
    torch.where(wrong, shrunk, grown, out=radius)
    if norm == "Linf":
        # No step is longer than the ball is wide.
        ahead = gradient.sign_().mul_(per_image(size * radius.clamp(max=1), gradient))
        bound = per_image(radius, point)
        point.add_(ahead).sub_(clean)
        point.copy_(torch.minimum(torch.maximum(point, -bound), bound)).add_(clean)
    else:
        length = norms(gradient, "L2").clamp_min(SMALLEST_NORM)
        point.add_(gradient.mul_(per_image(size / length, gradient))).sub_(clean)
        scale = (radius / norms(point, "L2").clamp_min(SMALLEST_NORM)).clamp(max=1)
        point.mul_(per_image(scale, point)).add_(clean)
    point.clamp_(0, 1)
