"""Auto-PGD (Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", arXiv 2003.01690, algorithm 1).

Projected gradient ascent with momentum on a loss. At checkpoints the step size is halved, and the
search goes back to the best point, if the loss rose too seldom since the last checkpoint or the
best loss did not improve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from bench.attacks.attack import (
    Attack,
    Model,
    Passes,
    attack_samples,
    check_items,
    entering,
    loss_and_gradient,
    misclassified,
)
from bench.attacks.distances import Norm, norms, per_image
from bench.attacks.draws import Draws
from bench.attacks.losses import LOSSES, Loss, is_targeted, loss_for
from bench.attacks.projections import SMALLEST_NORM, onto_ball_, onto_box_
from bench.attacks.rowwise import RowFunction, copy_rows, resting
from bench.attacks.state import State
from bench.errors import InputError


@dataclass(frozen=True)
class APGDState(State):
    """See `State`; `best` is the point of the highest loss, also of an item that is broken.

    Attributes:
        adversarial: (N, ...) the image that broke the item; meaningless before.
        clean: (N, ...) centres of the balls.
        point: (N, ...) x^(k), where the next step evaluates the model.
        previous: (N, ...) x^(k-1).
        best_gradient: (N, ...) at `best`.
        best_loss: (N,).
        last_loss: (N,) at x^(k-1).
        checkpoint_loss: (N,) best loss at the last checkpoint.
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
        if norm not in MOVES:
            raise InputError(f"expected norm Linf or L2 for APGD, got {norm}")
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
        self._loss = loss
        self._targeted = targeted
        self._momentum = momentum
        # Fewest rises of the loss that keep the step size, where a step ends at a checkpoint.
        needed = [float("-inf")] * (steps + 1)
        place = 0
        for length in checkpoint_lengths(steps):
            place += length
            needed[place] = rho * length
        self._needed = [*(needed * phases), float("-inf")]
        self._needed_on: dict[torch.device, Tensor] = {}
        self._move = RowFunction(self._row_move())
        self.arithmetic = (self._move,)

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> APGDState:
        """From a random point of the ball; see `Attack.start`."""
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
        """From given points; otherwise as `start`.

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
        """One forward-backward pass at x^(k), then the way to x^(k+1); see `Attack.step`."""
        searching = ~self.finished(state)
        first = state.iteration % self.phase_steps == 0
        if self.steps > self.phase_steps:
            self._begin_phase(state, first & (state.iteration > 0) & searching)
        logits, losses, gradient = self.evaluate(model, state)
        improved = (losses > state.best_loss) & searching
        wrong = misclassified(logits, state.labels) & searching
        copy_rows(state.adversarial, wrong, state.point)
        state.best_loss.copy_(torch.where(improved, losses, state.best_loss))
        back = self._checkpoint(state, losses, first, searching)
        weight = first.to(losses.dtype).mul_(1 - self._momentum).add_(self._momentum)
        with resting(~searching, state.point, state.previous):
            self.move(state, gradient, improved, back, weight)
        state.broken.logical_or_(wrong)
        state.iteration.add_(searching)
        return state

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
        """Logits (N, K), losses (N,) and their gradients (N, ...) at the items' points.

        Attacks on a loss that needs more than the model's logits override this.
        """
        return loss_and_gradient(model, state.point, state.labels, state.targets, self._loss)

    def move(
        self, state: APGDState, gradient: Tensor, keep: Tensor, back: Tensor, weight: Tensor
    ) -> None:
        """The way to x^(k+1), in place; arguments as for `_move_linf`.

        Attacks whose items have radii of their own override this and `_row_move`.
        """
        self._move(
            state.point,
            state.previous,
            state.best,
            state.best_gradient,
            gradient,
            state.clean,
            keep,
            back,
            state.step_size,
            weight,
        )

    def _row_move(self) -> Callable[..., None]:
        """Return what `move` applies to groups of rows."""
        return partial(MOVES[self.norm], self.eps)

    def _begin_phase(self, state: APGDState, beginning: Tensor) -> None:
        """Let the items in `beginning` (N,) start a search at their best point, in place."""
        copy_rows(state.point, beginning, state.best)
        copy_rows(state.previous, beginning, state.best)
        state.best_loss.masked_fill_(beginning, float("-inf"))
        for zeroed in (state.last_loss, state.checkpoint_loss, state.increases):
            zeroed.masked_fill_(beginning, 0)
        state.halved.logical_or_(beginning)
        state.step_size.masked_fill_(beginning, 2 * self.eps)

    def _checkpoint(
        self, state: APGDState, losses: Tensor, first: Tensor, searching: Tensor
    ) -> Tensor:
        """Update the step sizes, in place; (N,) bool: which items go back to their best point.

        Conditions 1 and 2 of the paper, at the checkpoints. In the reference the first step's loss
        is compared with 0, not with the start's; `last_loss` is left at 0 to do the same.
        """
        if losses.device not in self._needed_on:
            self._needed_on[losses.device] = torch.tensor(self._needed).to(losses)
        needed = self._needed_on[losses.device][state.iteration]
        at_checkpoint = (needed >= 0) & searching
        rose = (losses > state.last_loss) & ~first & searching
        state.increases.add_(rose)
        state.last_loss.copy_(torch.where(first | ~searching, state.last_loss, losses))
        seldom = (state.increases <= needed) & searching
        stalled = at_checkpoint & ~state.halved & (state.checkpoint_loss >= state.best_loss)
        back = seldom | stalled
        state.halved.copy_(torch.where(at_checkpoint, back, state.halved))
        state.checkpoint_loss.copy_(
            torch.where(at_checkpoint | (first & searching), state.best_loss, state.checkpoint_loss)
        )
        state.increases.mul_(~at_checkpoint)
        state.step_size.div_(1 + back.to(losses.dtype))
        return back


def _move_linf(
    eps: float | Tensor,
    point: Tensor,
    previous: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    gradient: Tensor,
    clean: Tensor,
    keep: Tensor,
    back: Tensor,
    step_size: Tensor,
    weight: Tensor,
) -> None:
    """Keep or restore the best point, then step from x^(k) to x^(k+1), in place; in Linf.

    Args:
        eps: radius of the ball, or (N,) one for each image.
        point: (N, ...) x^(k), becomes x^(k+1).
        previous: (N, ...) x^(k-1), becomes x^(k).
        best: (N, ...) best points.
        best_gradient: (N, ...) there.
        gradient: (N, ...) at `point`; its memory is used up.
        clean: (N, ...) centres of the balls.
        keep: (N,) bool, whether `point` is the best one now.
        back: (N,) bool, whether to go on from the best one.
        step_size: (N,) eta.
        weight: (N,) alpha, of the gradient step against the last movement.
    """
    _keep_or_go_back(point, best, best_gradient, gradient, keep, back)
    step_size, weight = per_image(step_size, point), per_image(weight, point)
    eps = per_image(eps, point) if isinstance(eps, Tensor) else eps
    lower, upper = (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1)
    ahead = torch.addcmul(point, gradient.sign_(), step_size, out=gradient)
    onto_box_(ahead, lower, upper)
    _with_momentum(ahead, point, previous, weight)
    torch.clamp(ahead, lower, upper, out=point)


def _with_momentum(ahead: Tensor, point: Tensor, previous: Tensor, weight: Tensor) -> None:
    """`ahead` to x + alpha (ahead - x) + (1 - alpha) (x - x_previous), and x to `previous`."""
    torch.lerp(point, ahead, weight, out=ahead)
    ahead.addcmul_(previous.sub_(point), weight - 1)
    previous.copy_(point)


def _move_l2(
    eps: float | Tensor,
    point: Tensor,
    previous: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    gradient: Tensor,
    clean: Tensor,
    keep: Tensor,
    back: Tensor,
    step_size: Tensor,
    weight: Tensor,
) -> None:
    """The same in L2; arguments as for `_move_linf`."""
    _keep_or_go_back(point, best, best_gradient, gradient, keep, back)
    step_size = step_size / (norms(gradient, "L2") + SMALLEST_NORM)
    step_size, weight = per_image(step_size, point), per_image(weight, point)
    ahead = torch.addcmul(point, gradient, step_size, out=gradient)
    onto_ball_(ahead, clean, eps)
    _with_momentum(ahead, point, previous, weight)
    point.copy_(onto_ball_(ahead, clean, eps))


MOVES: Mapping[str, Callable[..., None]] = MappingProxyType({"Linf": _move_linf, "L2": _move_l2})
"""The way from x^(k) to x^(k+1), by norm; the first argument is the radius."""


def _keep_or_go_back(
    point: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    gradient: Tensor,
    keep: Tensor,
    back: Tensor,
) -> None:
    copy_rows(best, keep, point)
    copy_rows(best_gradient, keep, gradient)
    copy_rows(point, back, best)
    copy_rows(gradient, back, best_gradient)


def checkpoint_lengths(steps: int) -> list[int]:
    """Steps from each checkpoint to the next.

    The first after 22% of the steps, each next one 3% sooner, never less than 6%.
    """
    shortest = max(int(0.06 * steps), 1)
    decrease = max(int(0.03 * steps), 1)
    lengths = [max(int(0.22 * steps), 1)]
    while sum(lengths) + (following := max(lengths[-1] - decrease, shortest)) <= steps:
        lengths.append(following)
    return lengths


def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    eps: float,
    loss: str = "ce",
    steps: int = 100,
    targets: int = 9,
    restarts: int = 1,
    seed: int = 0,
    indices: Tensor | None = None,
) -> Tensor:
    """Attack images with Auto-PGD.

    Args:
        model: to fool.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64.
        norm: of the ball, Linf or L2.
        eps: its radius, in the [0, 1] pixel scale.
        loss: a name of `bench.attacks.losses.LOSSES`; replaced by a margin where too few classes
            leave it undefined.
        steps: gradient steps.
        targets: how many wrong classes a targeted loss aims for in turn.
        restarts: random starts, for each target.
        seed: of the random streams.
        indices: (N,) places in the data set, part of the streams' key; 0, 1, ... by default.

    Returns:
        (N, C, H, W): adversarial images where the attack succeeded, else the clean ones.

    Raises:
        InputError: a parameter or an input is out of its range.
    """
    if loss not in LOSSES:
        raise InputError(f"expected a loss of {', '.join(LOSSES)}; got {loss!r}")
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    used = loss_for(loss, classes)
    attack = APGD(norm, eps, LOSSES[used], targeted=is_targeted(used), steps=steps)
    return attack_samples(
        attack,
        model,
        images,
        labels,
        name=f"apgd-{loss}",
        targets=targets if is_targeted(used) else 0,
        restarts=restarts,
        seed=seed,
        indices=indices,
    ).images
