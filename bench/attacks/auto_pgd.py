"""Auto-PGD (Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", arXiv 2003.01690), algorithm 1:

    eta <- 2 eps;  x_max <- x(0);  f_max <- f(x(0))
    for k = 0, ..., N_iter - 1:
        z(k+1) <- P(x(k) + eta grad f(x(k)))                                     `Move`
        x(k+1) <- P(x(k) + alpha (z(k+1) - x(k)) + (1 - alpha) (x(k) - x(k-1)))  `Move`
        if f(x(k+1)) > f_max:  x_max <- x(k+1);  f_max <- f(x(k+1))              `APGD.step`
        if k is a checkpoint w_j:                                                `checkpoints`
            if condition 1 or condition 2:                                       `adapt_step_size`
                eta <- eta / 2;  x(k+1) <- x_max

with P the projection onto the ball and [0, 1], and alpha = 1 in the first step. Condition 1: since
the last checkpoint the loss f rose in fewer than the share rho of the steps. Condition 2: the last
checkpoint did not halve eta, and f_max has not risen since.

Here a step begins with the pass at x(k) and ends with the way to x(k+1), so that it makes one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from bench.attacks.attack import (
    Attack,
    LossSlope,
    Model,
    Passes,
    check_items,
    entering,
    loss_and_gradient,
    misclassified,
)
from bench.attacks.distances import Norm, linf_or_l2, norms, per_image
from bench.attacks.draws import Draws
from bench.attacks.losses import Loss
from bench.attacks.projections import SMALLEST_NORM, onto_ball_, onto_box_
from bench.attacks.replay import Replayed
from bench.attacks.rowwise import RowFunction, copy_rows, resting
from bench.attacks.state import State
from bench.errors import InputError


@dataclass(frozen=True)
class APGDState(State):
    """See `State`; `best` is x_max, the point of the highest loss, also of an item that is broken.

    Attributes:
        adversarial: (N, ...) the image that broke the item; meaningless before.
        clean: (N, ...) centres of the balls.
        point: (N, ...) x(k), where the next step evaluates the model.
        previous: (N, ...) x(k-1).
        best_gradient: (N, ...) at `best`.
        best_loss: (N,) f_max.
        last_loss: (N,) f(x(k-1)).
        checkpoint_loss: (N,) f_max at the last checkpoint.
        increases: (N,) how often the loss rose since the last checkpoint.
        halved: (N,) bool, whether the last checkpoint halved the step size.
        step_size: (N,) eta.
    """

    adversarial: Tensor
    clean: Tensor
    point: Tensor
    previous: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    last_loss: Tensor
    checkpoint_loss: Tensor
    increases: Tensor
    halved: Tensor
    step_size: Tensor


class APGD(Attack[APGDState]):
    """Auto-PGD. Its first step evaluates the starting point, so an item takes steps + 1 of them."""

    def __init__(
        self,
        norm: Norm,
        eps: float,
        loss: Loss,
        *,
        targeted: bool = False,
        steps: int = 100,
        phases: int = 1,
        rho: float = 0.75,
        momentum: float = 0.75,
        passes: int = 1,
        stops_at_break: bool = True,
    ) -> None:
        """Make an attack.

        Args:
            norm: of the ball, Linf or L2.
            eps: its radius, in the [0, 1] pixel scale; positive.
            loss: to ascend.
            targeted: whether the loss reads target classes.
            steps: gradient steps after the start, at least 1.
            phases: how often the whole search is done, each time from the best point of the one
                before; for subclasses whose loss changes from one to the next.
            rho: the step size is halved where fewer than this share of steps raised the loss.
            momentum: weight alpha of the gradient step; the rest goes to the last movement.
            passes: how many passes the model takes for one answer.
            stops_at_break: see `Attack`.

        Raises:
            InputError: a parameter is out of its range.
        """
        norm = linf_or_l2(norm, "APGD")
        if not eps > 0 or steps < 1 or phases < 1:
            raise InputError(
                f"expected eps > 0, steps >= 1 and phases >= 1, got {eps}, {steps} and {phases}"
            )
        self.norm = norm
        self.eps = eps
        self.phase_steps = steps + 1
        self.steps = phases * self.phase_steps
        self.passes = Passes(forward=0, forward_backward=passes)
        self.stops_at_break = stops_at_break
        self._slope = LossSlope(loss)
        self._targeted = targeted
        self._momentum = momentum
        self._needed = [*(fewest_rises(steps, rho) * phases), NO_CHECKPOINT]
        self._needed_on: dict[torch.device, Tensor] = {}
        self._move = RowFunction(partial(_move_rows, MOVES[norm], eps))
        self.arithmetic = (self._move,)
        self._next_phase = Replayed(self._begin_phase)
        self._after_pass = Replayed(self._go_on)
        self.replayed = (self._slope.replayed, self._next_phase, self._after_pass)

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> APGDState:
        """Start from a random point of the ball; see `Attack.start`."""
        check_items(images, labels, targets, self._targeted)
        events = torch.zeros_like(labels)
        draw = draws.uniform if self.norm == "Linf" else draws.normal
        noise = draw(events, math.prod(images.shape[1:]), images.dtype).view_as(images)
        if self.norm == "Linf":
            noise = 2 * noise - 1
        scale = self.eps / (norms(noise, self.norm) + SMALLEST_NORM)
        return self.start_at(images + noise * per_image(scale, images), images, labels, targets)

    def start_at(
        self, points: Tensor, images: Tensor, labels: Tensor, targets: Tensor | None = None
    ) -> APGDState:
        """Start from given points; otherwise as `start`.

        Args:
            points: (N, ...) inside the balls; clamped to [0, 1].
            images: (N, ...) clean images.
            labels: (N,) int64.
            targets: (N,) int64, if the attack is targeted.
        """
        check_items(images, labels, targets, self._targeted)
        images = images.contiguous()
        points = points.contiguous().clamp(0, 1)
        zeros = images.new_zeros(len(images))
        return APGDState(
            labels=labels.clone(),
            targets=torch.zeros_like(labels) if targets is None else targets.clone(),
            best=points,
            broken=torch.zeros_like(labels, dtype=torch.bool),
            iteration=torch.zeros_like(labels),
            adversarial=points.clone(),
            clean=images.clone(),
            point=points.clone(),
            previous=points.clone(),
            best_gradient=torch.zeros_like(points),
            best_loss=zeros - float("inf"),
            last_loss=zeros.clone(),
            checkpoint_loss=zeros.clone(),
            increases=zeros.clone(),
            halved=torch.ones_like(labels, dtype=torch.bool),
            step_size=zeros + 2 * self.eps,
        )

    def step(self, model: Model, state: APGDState) -> APGDState:
        """Make one forward-backward pass at x(k), then go to x(k+1); see `Attack.step`."""
        if self.steps > self.phase_steps:
            self._next_phase(state)
        logits, losses, gradient = self.evaluate(model, state)
        self._after_pass(state, logits, losses, gradient)
        return state

    def _go_on(self, state: APGDState, logits: Tensor, losses: Tensor, gradient: Tensor) -> None:
        """Do all of a step that follows its pass, in place.

        Args:
            state: N items.
            logits: (N, K) at x(k).
            losses: (N,) there.
            gradient: (N, ...) there; its memory is used up.
        """
        searching = ~self.finished(state)
        first = self._begins(state)
        improved = (losses > state.best_loss) & searching  # f(x(k)) > f_max
        wrong = misclassified(logits, state.labels) & searching
        copy_rows(state.adversarial, wrong, state.point)
        torch.where(improved, losses, state.best_loss, out=state.best_loss)
        back = self.adapt_step_size(state, losses, first, searching)
        alpha = first.to(losses.dtype).mul_(1 - self._momentum).add_(self._momentum)
        move = Move(
            point=state.point,
            previous=state.previous,
            best=state.best,
            best_gradient=state.best_gradient,
            gradient=gradient,
            clean=state.clean,
            improved=improved,
            back=back,
            step_size=state.step_size,
            alpha=alpha,
            radius=self.radii(state),
        )
        with resting(~searching, state.point, state.previous):
            self._move(*(each for each in move if each is not None))
        state.broken.logical_or_(wrong)
        state.iteration.add_(searching)

    def images(self, state: APGDState) -> Tensor:
        """See `Attack.images`.

        A misclassified point may have a lower loss than an earlier one. Its item, should it go on,
        does so from the point of the highest loss, as in the reference.
        """
        return torch.where(per_image(state.broken, state.best), state.adversarial, state.best)

    def reference_passes(self, standing: Sequence[int], targeted: bool, queries: int) -> Passes:
        """See `Attack.reference_passes`: broken samples are carried on to the end."""
        attacked = sum(standing)
        ranking = attacked if targeted else 0
        return Passes(2 * entering(standing) + ranking, attacked * self.steps)

    def evaluate(self, model: Model, state: APGDState) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, K), losses (N,) and gradients (N, ...) at the items' points.

        Attacks on a loss that needs more than the model's logits override this.
        """
        return loss_and_gradient(model, state.point, state.labels, state.targets, self._slope)

    def radii(self, state: APGDState) -> Tensor | None:
        """Return the radius (N,) of each item's ball; None: all are `eps`.

        Attacks whose items have radii of their own override this.
        """
        return None

    def _begins(self, state: APGDState) -> Tensor:
        """Return (N,) bool: which items are at the first step of a phase."""
        return state.iteration % self.phase_steps == 0

    def _begin_phase(self, state: APGDState) -> None:
        """Let the items at a later phase's first step search from their best point, in place."""
        beginning = self._begins(state) & (state.iteration > 0) & ~self.finished(state)
        copy_rows(state.point, beginning, state.best)
        copy_rows(state.previous, beginning, state.best)
        state.best_loss.masked_fill_(beginning, float("-inf"))
        for zeroed in (state.last_loss, state.checkpoint_loss, state.increases):
            zeroed.masked_fill_(beginning, 0)
        state.halved.logical_or_(beginning)
        state.step_size.masked_fill_(beginning, 2 * self.eps)

    def adapt_step_size(
        self, state: APGDState, losses: Tensor, first: Tensor, searching: Tensor
    ) -> Tensor:
        """Halve step sizes, in place; return (N,) bool: which items go back to their best point.

        Attacks with another schedule override this.

        In the reference the first step's loss is compared with 0, not with the start's; `last_loss`
        is left at 0 to do the same.
        """
        if losses.device not in self._needed_on:
            self._needed_on[losses.device] = torch.tensor(self._needed).to(losses)
        needed = self._needed_on[losses.device][state.iteration]
        at_checkpoint = (needed >= 0) & searching
        compared = searching & ~first
        rose = (losses > state.last_loss) & compared
        state.increases.add_(rose)
        torch.where(compared, losses, state.last_loss, out=state.last_loss)
        condition_1 = (state.increases <= needed) & searching
        condition_2 = at_checkpoint & ~state.halved & (state.checkpoint_loss >= state.best_loss)
        back = condition_1 | condition_2
        torch.where(at_checkpoint, back, state.halved, out=state.halved)
        noted = at_checkpoint | (first & searching)
        torch.where(noted, state.best_loss, state.checkpoint_loss, out=state.checkpoint_loss)
        state.increases.mul_(~at_checkpoint)
        state.step_size.div_(1 + back.to(losses.dtype))
        return back


class Move(NamedTuple):
    """The way of N items from x(k) to x(k+1): what it reads, and what it changes in place.

    Attributes:
        point: (N, ...) x(k), becomes x(k+1).
        previous: (N, ...) x(k-1), becomes x(k).
        best: (N, ...) x_max.
        best_gradient: (N, ...) there.
        gradient: (N, ...) at `point`; its memory is used up.
        clean: (N, ...) centres of the balls.
        improved: (N,) bool, whether `point` is the best one now.
        back: (N,) bool, whether to go on from the best one.
        step_size: (N,) eta.
        alpha: (N,) the weight of the gradient step against the last movement.
        radius: (N,) of each item's own ball; None: all have the same.
    """

    point: Tensor
    previous: Tensor
    best: Tensor
    best_gradient: Tensor
    gradient: Tensor
    clean: Tensor
    improved: Tensor
    back: Tensor
    step_size: Tensor
    alpha: Tensor
    radius: Tensor | None = None


def _move_linf(eps: float, move: Move) -> None:
    """Keep or restore the best point, then step from x(k) to x(k+1), in place; in Linf."""
    _keep_or_go_back(move)
    point = move.point
    eta, alpha = per_image(move.step_size, point), per_image(move.alpha, point)
    radius = eps if move.radius is None else per_image(move.radius, point)
    lower, upper = (move.clean - radius).clamp_(min=0), (move.clean + radius).clamp_(max=1)
    z = torch.addcmul(point, move.gradient.sign_(), eta, out=move.gradient)
    onto_box_(z, lower, upper)
    _with_momentum(z, move, alpha)
    torch.clamp(z, lower, upper, out=point)


def _move_l2(eps: float, move: Move) -> None:
    """Keep or restore the best point, then step from x(k) to x(k+1), in place; in L2."""
    _keep_or_go_back(move)
    point = move.point
    eta = move.step_size / (norms(move.gradient, "L2") + SMALLEST_NORM)
    eta, alpha = per_image(eta, point), per_image(move.alpha, point)
    radius = eps if move.radius is None else move.radius
    z = torch.addcmul(point, move.gradient, eta, out=move.gradient)
    onto_ball_(z, move.clean, radius)
    _with_momentum(z, move, alpha)
    point.copy_(onto_ball_(z, move.clean, radius))


MOVES: Mapping[str, Callable[[float, Move], None]] = MappingProxyType(
    {"Linf": _move_linf, "L2": _move_l2}
)
"""The way from x(k) to x(k+1), by norm; the first argument is the balls' radius."""


def _move_rows(move: Callable[[float, Move], None], eps: float, *rows: Tensor) -> None:
    """Make a move that is given as a group of rows of its tensors."""
    move(eps, Move(*rows))


def _keep_or_go_back(move: Move) -> None:
    """Make x(k) the best point where it improved, and the best point x(k) where items go back."""
    copy_rows(move.best, move.improved, move.point)
    copy_rows(move.best_gradient, move.improved, move.gradient)
    copy_rows(move.point, move.back, move.best)
    copy_rows(move.gradient, move.back, move.best_gradient)


def _with_momentum(z: Tensor, move: Move, alpha: Tensor) -> None:
    """Turn z into x(k) + alpha (z - x(k)) + (1 - alpha) (x(k) - x(k-1)), and x(k-1) into x(k)."""
    torch.lerp(move.point, z, alpha, out=z)
    z.addcmul_(move.previous.sub_(move.point), alpha - 1)
    move.previous.copy_(move.point)


def checkpoints(steps: int) -> list[int]:
    """Return the iterations w_1, w_2, ... at which the step size may be halved.

    The first comes after 22% of the steps. Each next period is 3% of the steps shorter than the one
    before, and never shorter than 6%; whole steps are cut off as in the reference.

    Args:
        steps: N_iter, at least 1.
    """
    period = max(int(0.22 * steps), 1)
    shortest = max(int(0.06 * steps), 1)
    decrease = max(int(0.03 * steps), 1)
    found = []
    at = period
    while at <= steps:
        found.append(at)
        period = max(period - decrease, shortest)
        at += period
    return found


NO_CHECKPOINT = float("-inf")


def fewest_rises(steps: int, rho: float) -> list[float]:
    """Return, for the iterations 0 to `steps`, how many rises of the loss condition 1 asks for.

    At a checkpoint w_j it is fulfilled by rho (w_j - w_(j-1)) rises or fewer; elsewhere the number
    is `NO_CHECKPOINT`.
    """
    needed = [NO_CHECKPOINT] * (steps + 1)
    last = 0
    for checkpoint in checkpoints(steps):
        needed[checkpoint] = rho * (checkpoint - last)
        last = checkpoint
    return needed
