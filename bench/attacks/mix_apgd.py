"""Auto-PGD through a mix, on losses that know its parts.

Y. Bai et al., "Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing",
SIMODS 2024, arXiv 2301.12554, section 5. A search may have several phases, each on its own loss and
from the best point of the one before: first against one base alone, say, then against the mix. In
every phase an item is broken as soon as the mix itself is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from bench.attacks.attack import Model, comparable, finite
from bench.attacks.auto_pgd import APGD, APGDState
from bench.attacks.distances import Norm
from bench.attacks.draws import Draws
from bench.attacks.losses import margin
from bench.attacks.mix_losses import Answer, MixLoss
from bench.attacks.replay import Replayed
from bench.errors import InputError

_WEIGHT_EVENT = 1
"""The starts of the search are event 0 of an item's stream."""


class MixModel(Protocol):
    """A mix that returns the parts of its answer."""

    def answer(self, images: Tensor) -> Answer:
        """Return everything about images (N, C, H, W), from one pass through each base."""


@dataclass(frozen=True)
class MixState(APGDState):
    """See `APGDState`.

    Attributes:
        weights: (N,) each item's weight, which its losses use.
    """

    weights: Tensor


@dataclass(frozen=True)
class _Parts:
    """What losses read of a mix's answer; see `Answer`."""

    log_probabilities: Tensor
    accurate: Tensor
    robust: Tensor
    gamma: Tensor | None = None


class MixAPGD(APGD):
    """Auto-PGD whose losses see the mix's parts; its model must be a `MixModel`."""

    def __init__(
        self,
        norm: Norm,
        eps: float,
        losses: Sequence[MixLoss],
        *,
        targeted: bool = False,
        steps: int = 100,
        weights: Sequence[float | tuple[float, float]] = (0.0,),
        stops_at_break: bool = True,
    ) -> None:
        """Make an attack.

        Args:
            norm: of the ball, Linf or L2.
            eps: its radius, in the [0, 1] pixel scale; positive.
            losses: to ascend, one a phase.
            targeted: whether the losses read target classes.
            steps: gradient steps of each phase.
            weights: by restart, in turn: a number, or an interval to draw one from, an item.
            stops_at_break: see `Attack`.

        Raises:
            InputError: a parameter is out of its range.
        """
        if not losses or not weights:
            raise InputError("expected at least one loss and one weight, got none")
        super().__init__(
            norm,
            eps,
            margin,
            targeted=targeted,
            steps=steps,
            phases=len(losses),
            stops_at_break=stops_at_break,
        )
        self._losses = tuple(losses)
        self._used: list[bool] = []
        self._slopes = Replayed(self._losses_and_slopes)
        self.replayed = (self._slopes, *self.replayed)
        self._weights = tuple(each if isinstance(each, tuple) else (each, each) for each in weights)

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> MixState:
        """Start from a random point of the ball; see `Attack.start`."""
        state = super().start(images, labels, draws, targets, restarts)
        ends = images.new_tensor(self._weights)
        turn = torch.zeros_like(labels) if restarts is None else restarts % len(self._weights)
        low, high = ends[turn].unbind(dim=1)
        share = draws.uniform(torch.full_like(labels, _WEIGHT_EVENT), 1, images.dtype)[:, 0]
        values = {field.name: getattr(state, field.name) for field in fields(state)}
        return MixState(**values, weights=low + (high - low) * share)

    def evaluate(self, model: Model, state: APGDState) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities, and the loss of each item's phase with its gradient."""
        assert isinstance(state, MixState)
        mix: MixModel = model  # type: ignore[assignment]
        images = state.point.detach().requires_grad_()
        with torch.enable_grad():
            answer = mix.answer(images)
        parts = [answer.log_probabilities, answer.accurate, answer.robust]
        if answer.gamma is not None:
            parts.append(answer.gamma)
        read = self.read(state)
        losses, slopes = self._slopes(read, *(part.detach() for part in parts))
        used = [part for part, is_used in zip(parts, self._used, strict=True) if is_used]
        roots = [
            (part, slope) for part, slope in zip(used, slopes, strict=True) if part.requires_grad
        ]
        (gradient,) = torch.autograd.grad(
            [part for part, _ in roots], images, [slope for _, slope in roots]
        )
        logits = answer.log_probabilities.detach().to(images.dtype)
        return logits, losses, finite(gradient)

    def read(self, state: MixState) -> tuple[Tensor, ...]:
        """Return what losses read of a state, (N,) each: labels, targets, weights, iteration."""
        return state.labels, state.targets, state.weights, state.iteration

    def phase_losses(self, answer: Answer, read: tuple[Tensor, ...], phase: Tensor) -> Tensor:
        """Return (N,) the loss of the phase that each item is in.

        Args:
            answer: of the mix.
            read: of `read`.
            phase: (N,) the number of each item's loss.
        """
        labels, targets, weights = read[:3]
        losses = self._losses[0](answer, labels, targets, weights)
        for number, loss in enumerate(self._losses[1:], start=1):
            losses = torch.where(phase == number, loss(answer, labels, targets, weights), losses)
        return losses

    def _losses_and_slopes(
        self, read: tuple[Tensor, ...], *parts: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the losses (N,) of the phases, and their derivatives by the parts they use.

        Args:
            read: of `read`.
            parts: of the mix's answer, without graph.
        """
        weights, iteration = read[2:4]
        leaves = [part.detach().requires_grad_() for part in parts]
        phase = (iteration // self.phase_steps).clamp(max=len(self._losses) - 1)
        with torch.enable_grad():
            losses = self.phase_losses(_Parts(*leaves), read, phase).to(weights.dtype)
            slopes = torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
        self._used = [slope is not None for slope in slopes]
        return comparable(losses), tuple(slope for slope in slopes if slope is not None)
