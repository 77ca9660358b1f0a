"""Fast adaptive boundary attack (Croce and Hein 2020, "Minimally distorted adversarial examples
with a fast adaptive boundary attack", arXiv 1907.02044, algorithm 1).

Each step linearises the boundary between label and target at the current point, and goes a little
beyond it along the shortest way inside [0, 1], biased towards the clean image. Where the new point
is adversarial, the attack steps back towards the clean image. It looks for the smallest
perturbation; an item is broken, and finished, as soon as one is inside the ball. The targeted form
aims for one class throughout; the untargeted form, as published, for the class whose linearised
boundary is nearest to the current point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    comparable,
    entering,
    finite,
    loss_and_gradient,
    misclassified,
)
from bench.attacks.distances import Norm, linf_or_l2, norms, per_image
from bench.attacks.draws import Draws
from bench.attacks.losses import margin_targeted
from bench.attacks.projections import onto_hyperplane
from bench.attacks.replay import Replayed
from bench.attacks.rowwise import RowFunction, copies_to_restore, copy_rows, restore
from bench.attacks.state import State
from bench.errors import InputError

_SMALLEST_STEP = 1e-8
_SMALLEST_GRADIENT = 1e-12
_LARGEST_NORMAL = 1e12
"""Coordinates of a gradient beyond it are scaled down."""


@dataclass(frozen=True)
class FABState(State):
    """See `State`; `best` is the closest adversarial image, the clean one if there is none.

    Attributes:
        clean: (N, ...) x_orig.
        point: (N, ...) x^(i).
        best_distance: (N,) of `best` if it is adversarial, else infinite.
    """

    clean: Tensor
    point: Tensor
    best_distance: Tensor


class FAB(Attack[FABState]):
    """FAB. The first restart begins at the clean image, further ones at random points.

    Attributes:
        targeted: whether an item aims for one class.
    """

    norm: Literal["Linf", "L2"]

    def __init__(
        self,
        norm: Norm,
        eps: float,
        *,
        steps: int = 100,
        classes: int | None = None,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
    ) -> None:
        """Make an attack.

        Args:
            norm: of the ball, Linf or L2.
            eps: its radius, in the [0, 1] pixel scale; positive.
            steps: iterations, at least 1.
            classes: for the untargeted form, how many there are: a step takes a gradient for each
                wrong one. None: the targeted form.
            alpha_max: largest weight of the way from the clean image, in [0, 1].
            eta: how far to overshoot the linearised boundary, at least 1.
            beta: share of the perturbation that is kept when stepping back, in (0, 1).

        Raises:
            InputError: a parameter is out of its range.
        """
        norm = linf_or_l2(norm, "FAB")
        if not eps > 0 or steps < 1:
            raise InputError(f"expected eps > 0 and steps >= 1, got {eps} and {steps}")
        self.norm = norm
        self.eps = eps
        self.steps = steps
        self.targeted = classes is None
        self.passes = Passes(forward=1, forward_backward=1 if classes is None else classes - 1)
        self._move = RowFunction(partial(_move, norm, alpha_max, eta))
        self._step_back = RowFunction(partial(_step_back, norm, eps, beta))
        self.arithmetic = (self._move, self._step_back)
        self._slope = LossSlope(margin_targeted)
        self._before_pass = Replayed(self._go_over_boundary)
        self._after_pass = Replayed(self._keep_and_step_back)
        self.replayed = (self._slope.replayed, self._before_pass, self._after_pass)

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> FABState:
        """Start from the clean image, later restarts from half the ball; see `Attack.start`."""
        check_items(images, labels, targets, targeted=self.targeted)
        if targets is None:
            targets = torch.zeros_like(labels)
        images = images.contiguous()
        points = images.clone()
        if restarts is not None and bool(restarts.any()):
            draw = draws.uniform if self.norm == "Linf" else draws.normal
            events = torch.zeros_like(labels)
            noise = draw(events, math.prod(images.shape[1:]), images.dtype).view_as(images)
            if self.norm == "Linf":
                noise = 2 * noise - 1
            radius = 0.5 * self.eps * (restarts > 0) / norms(noise, self.norm)
            points.add_(noise * per_image(radius, noise)).clamp_(0, 1)
        return FABState(
            labels=labels.clone(),
            targets=targets.clone(),
            best=images.clone(),
            broken=torch.zeros_like(labels, dtype=torch.bool),
            iteration=torch.zeros_like(labels),
            clean=images.clone(),
            point=points,
            best_distance=torch.full_like(labels, float("inf"), dtype=images.dtype),
        )

    def step(self, model: Model, state: FABState) -> FABState:
        """Make one forward-backward pass at x^(i), one forward at x^(i+1); see `Attack.step`.

        The untargeted form goes back to x^(i) once for each wrong class.
        """
        if self.targeted:
            _, lead, gradient = loss_and_gradient(
                model, state.point, state.labels, state.targets, self._slope
            )
        else:
            lead, gradient = nearest_boundary(model, state.point, state.labels, self.norm)
        resting = self._before_pass(state, gradient, lead)
        with torch.no_grad():
            logits = model(state.point)
        self._after_pass((state, resting), logits)
        return state

    def _go_over_boundary(
        self, state: FABState, gradient: Tensor, lead: Tensor
    ) -> tuple[Tensor, ...]:
        """Go to x^(i+1), in place; return copies of the points, for items that rest."""
        copies = copies_to_restore(self.finished(state), state.point)
        self._move(state.point, state.clean, gradient, lead)
        return copies

    def _keep_and_step_back(
        self, kept: tuple[FABState, tuple[Tensor, ...]], logits: Tensor
    ) -> None:
        """Do all of a step that follows the pass at x^(i+1), in place.

        Args:
            kept: N items, and copies of the points of those that rest.
            logits: (N, K).
        """
        state, resting = kept
        searching = ~self.finished(state)
        wrong = misclassified(logits, state.labels)
        distance = torch.empty_like(state.best_distance)
        self._step_back(
            state.point,
            state.clean,
            state.best,
            distance,
            wrong,
            searching,
            state.best_distance,
        )
        restore(~searching, (state.point,), resting)
        reached = distance.masked_fill(~(wrong & searching), math.inf)
        torch.fmin(state.best_distance, reached, out=state.best_distance)
        state.broken.logical_or_(reached <= self.eps)
        state.iteration.add_(searching)

    def reference_passes(self, standing: Sequence[int], targeted: bool, queries: int) -> Passes:
        """See `Attack.reference_passes`: broken samples are carried on to the end.

        The clean and the returned images are predicted for each round, by the targeted form twice.
        The untargeted form takes a gradient for the label too; each counts as a pass.
        """
        attacked = sum(standing)
        predictions = 3 if self.targeted else 2
        forward = 2 * entering(standing) + attacked * (self.steps + predictions)
        gradients = 1 if self.targeted else self.passes.forward_backward + 1
        return Passes(forward, attacked * self.steps * gradients)

    def images(self, state: FABState) -> Tensor:
        """See `Attack.images`: where no item broke, the closest adversarial image, shrunk."""
        scale = (self.eps / state.best_distance).clamp_(max=1)
        shrunk = state.clean + (state.best - state.clean) * per_image(scale, state.best)
        return torch.where(per_image(state.broken, state.best), state.best, shrunk.clamp_(0, 1))


def nearest_boundary(
    model: Model, images: Tensor, labels: Tensor, norm: Literal["Linf", "L2"]
) -> tuple[Tensor, Tensor]:
    """Find the class whose linearised boundary with the label is nearest to each image.

    Args:
        model: to differentiate.
        images: (N, ...).
        labels: (N,) int64.
        norm: of the distance, |z_j - z_y| divided by the dual norm of its gradient.

    Returns:
        That class's logit minus the label's (N,), `comparable`, and its gradient (N, ...),
        `finite`; in the dtype of the images.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images).to(images.dtype)
    others = logits.shape[1] - 1
    lead = torch.zeros_like(labels, dtype=images.dtype)
    nearest = torch.full_like(lead, float("inf"))
    gradient = torch.zeros_like(images)
    for rank in range(others):
        target = rank + (labels <= rank).long()  # the classes in their order, without the label
        with torch.enable_grad():
            leads = margin_targeted(logits, labels, target)
        is_last = rank == others - 1
        (gradients,) = torch.autograd.grad(leads.sum(), images, retain_graph=not is_last)
        gradients = finite(gradients)
        lengths = norms(gradients.flatten(1), "L1" if norm == "Linf" else "L2")
        distances = comparable(leads).abs() / lengths.clamp_min(_SMALLEST_GRADIENT)
        closer = distances < nearest
        if rank == 0:  # where no distance is a number, some class has to be aimed for
            closer = torch.ones_like(closer)
        lead = torch.where(closer, comparable(leads), lead)
        gradient = torch.where(per_image(closer, gradient), gradients, gradient)
        nearest = torch.where(closer, distances, nearest)
    return lead, gradient


def _move(
    norm: Literal["Linf", "L2"],
    alpha_max: float,
    eta: float,
    point: Tensor,
    clean: Tensor,
    gradient: Tensor,
    lead: Tensor,
) -> None:
    """Go from x^(i) to x^(i+1), in place: an overshot, biased step over the linearised boundary.

    Args:
        norm: of the smallest way to the boundary.
        alpha_max: largest weight of the way from the clean image.
        eta: overshoot.
        point: (N, ...) x^(i), becomes x^(i+1).
        clean: (N, ...) x_orig.
        gradient: (N, ...) of `lead`.
        lead: (N,) the target's logit minus the label's, at `point`.
    """
    shape = point.shape
    start, origin, normals = point.flatten(1), clean.flatten(1), gradient.flatten(1)
    # Scaling both alike leaves the hyperplane where it is, and keeps squares from overflowing.
    size = norms(normals, "Linf")
    scale = torch.where(size > _LARGEST_NORMAL, 1 / size, 1.0)
    normals, lead = normals * scale.unsqueeze(1), lead * scale
    lead_at_origin = lead + (origin - start).mul_(normals).sum(dim=1)
    way, way_from_origin = _ways(start, origin, normals, lead, lead_at_origin, norm)
    length = norms(way, norm).clamp_(min=_SMALLEST_STEP)
    length_from_origin = norms(way_from_origin, norm).clamp_(min=_SMALLEST_STEP)
    alpha = (length / (length + length_from_origin)).clamp_(max=alpha_max).unsqueeze(1)
    ahead = way.mul_(eta).add_(start).mul_(1 - alpha)
    ahead_of_origin = way_from_origin.mul_(eta).add_(origin).mul_(alpha)
    point.copy_(ahead.add_(ahead_of_origin).clamp_(0, 1).view(shape))


def _ways(
    start: Tensor,
    origin: Tensor,
    normals: Tensor,
    lead: Tensor,
    lead_at_origin: Tensor,
    norm: Literal["Linf", "L2"],
) -> tuple[Tensor, Tensor]:
    """Return the shortest ways (N, D) to the boundary from x^(i) and from x_orig, (N, D) each."""
    if start.device.type == "cpu":
        return (
            onto_hyperplane(start, normals, lead, norm),
            onto_hyperplane(origin, normals, lead_at_origin, norm),
        )
    # A GPU takes as long for both at once as for one.
    ways = onto_hyperplane(
        torch.cat((start, origin)),
        normals.repeat(2, 1),
        torch.cat((lead, lead_at_origin)),
        norm,
    )
    return ways[: len(start)], ways[len(start) :]


def _step_back(
    norm: Literal["Linf", "L2"],
    eps: float,
    beta: float,
    point: Tensor,
    clean: Tensor,
    best: Tensor,
    distance: Tensor,
    wrong: Tensor,
    searching: Tensor,
    best_distance: Tensor,
) -> None:
    """Keep the closest adversarial image, and step back from adversarial points, in place.

    Args:
        norm: of the distance.
        eps: an image as close as this is kept even if a closer one was, and was not confirmed.
        beta: share of the perturbation that is kept.
        point: (N, ...) x^(i+1).
        clean: (N, ...) x_orig.
        best: (N, ...) closest adversarial images.
        distance: (N,) written to: of `point`.
        wrong: (N,) bool, whether `point` is adversarial.
        searching: (N,) bool, whether it may be kept.
        best_distance: (N,) of `best`.
    """
    perturbations = point - clean
    distance.copy_(norms(perturbations, norm))
    closer = (distance < best_distance) | (distance <= eps)
    copy_rows(best, wrong & searching & closer, point)
    copy_rows(point, wrong, perturbations.mul_(beta).add_(clean))
