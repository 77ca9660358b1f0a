"""What an attack is: a search for adversarial images that advances work items step by step.

A work item is (sample, attack, target, restart). A scheduler starts items, keeps a batch of them
full, and steps the batch; each item counts its own iterations, so items at different ones share a
batch, and none changes another's result:

    state = attack.start(images, labels, draws, targets, restarts)
    while ...:
        attack.step(model, state)
        leaving = attack.finished(state)
        images = attack.images(state)      # of broken items: the adversarial images

A step never asks the device for a value, its shapes are those of the state, and its cost in passes
is `attack.passes`, for all items alike. Stepping a finished item changes neither whether it is
broken nor its best image, so a batch may hold finished items.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bench.attacks.distances import Norm, per_image
from bench.attacks.draws import Draws, keyed_draws
from bench.attacks.losses import Loss
from bench.attacks.replay import Replayed
from bench.attacks.rowwise import RowFunction, asking_is_free
from bench.attacks.state import State, select
from bench.decision import classes_of
from bench.errors import InputError

Model = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, K)."""

STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 8}
"""Steps after which the host asks which items are done; asking makes a GPU wait."""

S = TypeVar("S", bound=State)


@dataclass(frozen=True)
class Passes:
    """Passes of images through the network.

    Attributes:
        forward: without gradient.
        forward_backward: forward, then back to the image; each further way back counts as one too.
    """

    forward: int
    forward_backward: int


class Attack(ABC, Generic[S]):
    """A search, with its parameters. Holds nothing of the items that it works on.

    Attributes:
        norm: of the ball.
        eps: its radius, in the [0, 1] pixel scale.
        steps: how many steps an item takes that does not break.
        passes: what one step costs an item.
        arithmetic: what a step does to whole images besides its passes.
        replayed: parts of a step that a GPU replays as one launch each.
        least_height: rows that an image must have.
        stops_at_break: whether an item is finished once it is broken. An attack that looks for the
            highest loss, rather than for a mistake, goes on to the end of its budget.
    """

    norm: Norm
    eps: float
    steps: int
    passes: Passes
    arithmetic: tuple[RowFunction, ...]
    replayed: tuple[Replayed[Any], ...] = ()
    least_height: int = 1
    stops_at_break: bool = True

    @abstractmethod
    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> S:
        """Return the state of new items, before their first step. No pass is made.

        Args:
            images: (N, ...) clean images in [0, 1]; their dtype is the one computed in.
            labels: (N,) int64, their right classes.
            draws: the items' random numbers.
            targets: (N,) int64, the classes to reach, if the attack is targeted.
            restarts: (N,) int64, the number of each item's restart; all 0 by default.

        Raises:
            InputError: shapes or dtypes do not fit, or targets are missing.
        """

    @abstractmethod
    def step(self, model: Model, state: S) -> S:
        """Advance every item by one iteration, in place, and return the same state.

        Args:
            model: in a mode where no image depends on the others in its batch.
            state: N items.
        """

    def compile(self) -> None:
        """Compile the step's arithmetic at the next step, for batches of that step's size.

        This pays in long runs, see `RowFunction.compile`. If it fails, everything runs uncompiled.
        """
        for function in self.arithmetic:
            function.compile()

    @property
    def compile_problem(self) -> str:
        """Why something runs uncompiled that was to be compiled; empty if there is no problem."""
        return "; ".join(function.problem for function in self.arithmetic if function.problem)

    @property
    def replay_problem(self) -> str:
        """Why a GPU launches each operation of a step; empty if there is no problem."""
        return "; ".join(part.problem for part in self.replayed if part.problem)

    def release(self) -> None:
        """Give back the memory of what a GPU replays, once a search is done."""
        for part in self.replayed:
            part.forget()

    def finished(self, state: S) -> Tensor:
        """Return (N,) bool: at the end of the budget, or broken if the attack stops there."""
        exhausted = state.iteration >= self.steps
        return state.broken | exhausted if self.stops_at_break else exhausted

    def images(self, state: S) -> Tensor:
        """Return the best images (N, ...), inside the ball: adversarial where items broke."""
        return state.best

    def margins(self, state: S) -> tuple[Tensor, Tensor] | None:
        """Return by how much each item's class was led by another: at the start, and at best.

        Negative where the right class leads; None: the attack does not measure it.

        Returns:
            (N,) and (N,), in logits, NaN where they are not known.
        """
        return None

    def reference_passes(self, standing: Sequence[int], targeted: bool, queries: int) -> Passes:
        """Return the passes that pyautoattack 0.2.0 takes for the same work.

        For an attack that pyautoattack does not have, these are the attack's own passes; other
        attacks override this method. pyautoattack predicts the clean images at the start of an
        attack and the adversarial ones at its end, and a targeted attack ranks the classes anew for
        each target.

        Args:
            standing: how many samples each round attacks; a round is one restart of one target.
            targeted: whether rounds aim for classes.
            queries: the sum of all samples' steps, their starts included.
        """
        steps = sum(standing) * self.steps
        return Passes(steps * self.passes.forward, steps * self.passes.forward_backward)


def entering(standing: Sequence[int]) -> int:
    """Return how many samples the first round attacks."""
    return standing[0] if standing else 0


@dataclass(frozen=True)
class AttackedSamples:
    """What an attack did to a batch of samples.

    Attributes:
        images: (N, ...): adversarial where `broken`, else the clean images.
        broken: (N,) bool; False also for samples that were classified wrongly at the start, which
            are not attacked.
        steps: (N,) int64, attack steps that each sample took.
    """

    images: Tensor
    broken: Tensor
    steps: Tensor


def attack_samples(
    attack: Attack[Any],
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    name: str,
    targets: int = 0,
    restarts: int = 1,
    seed: int = 0,
    indices: Tensor | None = None,
) -> AttackedSamples:
    """Run an attack on the samples that are classified correctly, as one plain loop.

    Target after target and restart after restart, each on the samples that survive so far.

    Args:
        attack: what to run.
        model: to fool.
        images: (N, ...) clean images in [0, 1].
        labels: (N,) int64.
        name: of the attack, a part of the random streams' key.
        targets: how many of the likeliest wrong classes to aim for in turn; 0: untargeted. Fewer
            where there are fewer wrong classes.
        restarts: for each target.
        seed: of the random streams.
        indices: (N,) int64, places in the data set, a part of the streams' key; 0, 1, ... by
            default.

    Raises:
        InputError: images outside [0, 1], or labels that are no classes.
    """
    if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
        raise InputError("expected images in [0, 1], got values outside; scale the images")
    if indices is None:
        indices = torch.arange(len(images), device=images.device)
    with torch.no_grad():
        logits = model(images)
    check_labels(labels, logits)
    standing = (classes_of(logits) == labels).nonzero().flatten()
    classes = likeliest_wrong_classes(logits, labels, targets)
    found = images.clone()
    broken = torch.zeros_like(labels, dtype=torch.bool)
    steps = torch.zeros_like(labels)
    between = STEPS_BETWEEN_LOOKS.get(images.device.type, 1)
    for rank in range(1, classes.shape[1] + 1) if targets else range(1):
        for restart in range(restarts):
            if not len(standing):
                break
            draws = keyed_draws(seed, indices[standing], name, restarts=restart, targets=rank)
            state = attack.start(
                images[standing],
                labels[standing],
                draws,
                classes[standing, rank - 1] if targets else None,
                torch.full_like(standing, restart),
            )
            rows, left = standing, attack.steps
            while len(rows):
                for _ in range(max(1, min(between, left))):
                    state = attack.step(model, state)
                left -= between
                done = attack.finished(state).cpu()
                count = int(done.sum())
                # To take items out makes a GPU wait, so it keeps finished ones for a while.
                if not count or (between > 1 and 2 * count < len(rows)):
                    continue
                leaving = done.nonzero().flatten().to(images.device)
                staying = (~done).nonzero().flatten().to(images.device)
                gone, at = select(state, leaving), rows[leaving]
                steps[at] += gone.iteration
                broken[at] = gone.broken
                fallen = per_image(gone.broken, images)
                found[at] = torch.where(fallen, attack.images(gone), found[at])
                rows, state = rows[staying], select(state, staying)
            standing = standing[~broken[standing]]
    return AttackedSamples(found, broken, steps)


def likeliest_wrong_classes(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the wrong classes in the order of their logits, highest first.

    On a sample that is classified correctly these are the ranks 2, 3, ... of all classes.

    Args:
        logits: (N, K) of the clean images.
        labels: (N,) int64.
        count: how many; at most K - 1 are given.

    Returns:
        (N, min(count, K - 1)) int64.
    """
    others = logits.detach().scatter(1, labels.unsqueeze(1), float("-inf"))
    order = others.argsort(dim=1, stable=True).flip(1)
    return order[:, : min(count, logits.shape[1] - 1)]


class LossSlope:
    """A loss, and its derivative by the logits, which a GPU replays as one launch."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.replayed = Replayed(self._of)

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (N,) and the derivatives (N, K) of their sum, from logits without graph."""
        return self.replayed((labels, targets), logits)

    def _of(self, classes: tuple[Tensor, Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.detach().requires_grad_()
        with torch.enable_grad():
            losses = self.loss(logits, *classes)
            (slope,) = torch.autograd.grad(losses.sum(), logits)
        return comparable(losses), slope


def loss_and_gradient(
    model: Model, images: Tensor, labels: Tensor, targets: Tensor, slope: LossSlope
) -> tuple[Tensor, Tensor, Tensor]:
    """Make one forward-backward pass, with respect to the images only.

    Args:
        model: to differentiate.
        images: (N, ...).
        labels: (N,) int64.
        targets: (N,) int64.
        slope: of the loss, which gives a value a sample.

    Returns:
        Logits (N, K), losses (N,), `comparable`, and gradients (N, ...), `finite`; in the dtype of
        the images.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images).to(images.dtype)
    losses, by_logits = slope(logits.detach(), labels, targets)
    (gradient,) = torch.autograd.grad(logits, images, by_logits)
    return logits.detach(), losses, finite(gradient)


def comparable(losses: Tensor) -> Tensor:
    """Return losses (N,) without their graph, with NaN in place of infinity.

    No comparison with NaN is true. An infinite loss, from logits that are not finite or that
    overflow in the loss, would stay the best one forever: no later point would count as better.
    """
    losses = losses.detach()
    return torch.where(losses.isfinite(), losses, math.nan)


def finite(gradient: Tensor) -> Tensor:
    """Return a gradient (N, ...), contiguous, with 0 in place of NaN and infinity.

    The derivative of a square root at 0 is such an entry. It would make the gradient's length
    infinite or NaN, and an L2 attack would never move again.
    """
    gradient = gradient.contiguous()
    if asking_is_free(gradient) and math.isfinite(float(gradient.sum())):
        return gradient
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (N,) bool: whether logits (N, K) decide for another class, or for none."""
    return classes_of(logits) != labels


def check_items(images: Tensor, labels: Tensor, targets: Tensor | None, targeted: bool) -> None:
    """Check what `Attack.start` is given, without asking the device for values.

    Raises:
        InputError: shapes or dtypes do not fit, or targets are missing.
    """
    if not images.is_floating_point() or images.dim() < 2:
        raise InputError(
            f"expected floating-point images (N, ...), got {images.dtype} {tuple(images.shape)}"
        )
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise InputError(
            f"expected int64 labels ({len(images)},), got {labels.dtype} {tuple(labels.shape)}"
        )
    if targeted and targets is None:
        raise InputError("expected target classes for a targeted attack, got none")
    if targets is not None and targets.shape != labels.shape:
        raise InputError(f"expected targets ({len(images)},), got {tuple(targets.shape)}")


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Check that labels (N,) are classes of logits (N, K).

    Raises:
        InputError: shapes do not fit, or a label is outside [0, K).
    """
    if logits.dim() != 2 or len(logits) != len(labels):
        raise InputError(f"expected logits ({len(labels)}, K), got {tuple(logits.shape)}")
    if len(labels) and not bool(((labels >= 0) & (labels < logits.shape[1])).all()):
        raise InputError(
            f"expected labels in [0, {logits.shape[1]}), got {int(labels.min())} to"
            f" {int(labels.max())}"
        )
