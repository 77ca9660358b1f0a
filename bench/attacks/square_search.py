"""What the forms of the Square attack share (Andriushchenko et al. 2020, "Square attack: a
query-efficient black-box adversarial attack via random search", arXiv 1912.00049, algorithm 1).

A random search without gradients: each query changes one square window of the perturbation, and
keeps the change if the margin shrinks. The windows become smaller as queries go by.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from bench.attacks.attack import Attack, Model, Passes, check_items, entering, misclassified
from bench.attacks.distances import Norm
from bench.attacks.draws import Draws
from bench.attacks.losses import margin
from bench.attacks.replay import Replayed
from bench.attacks.rowwise import copy_rows
from bench.attacks.state import State
from bench.errors import InputError

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share of changed pixels is halved."""


@dataclass(frozen=True)
class SquareState(State):
    """See `State`; `best` is the image of the smallest margin. An iteration is a query.

    Attributes:
        clean: (N, C, H, W).
        best_margin: (N,) the label's logit minus the highest other one.
        draws: the items' random numbers.
    """

    clean: Tensor
    best_margin: Tensor
    draws: Draws


class Query(Protocol):
    """The images of a step's pass, and what is done with the answer."""

    @property
    def images(self) -> Tensor:
        """(N, C, H, W) to ask about."""

    def settle(self, keep: Tensor) -> None:
        """Make the asked images the best ones where `keep` (N,); elsewhere all is as before."""


@dataclass(frozen=True)
class WholeQuery:
    """Images of their own.

    Attributes:
        images: (N, C, H, W) to ask about.
        best: (N, C, H, W).
    """

    images: Tensor
    best: Tensor

    def settle(self, keep: Tensor) -> None:
        """See `Query.settle`."""
        copy_rows(self.best, keep, self.images)


class Square(Attack[SquareState]):
    """What the forms of the attack share. An item's first query is its start."""

    def __init__(self, norm: Norm, eps: float, queries: int, p_init: float) -> None:
        if not eps > 0 or queries < 1 or not 0 < p_init <= 1:
            raise InputError(
                "expected eps > 0, queries >= 1 and p_init in (0, 1]; got"
                f" {eps}, {queries} and {p_init}"
            )
        self.norm = norm
        self.eps = eps
        self.steps = queries + 1
        self.passes = Passes(forward=1, forward_backward=0)
        self._queries = queries
        self._p_init = p_init
        self._query = Replayed(self.propose)
        self._answer = Replayed(self._settle)
        self.replayed = (self._query, self._answer)
        self._tables: dict[tuple[str, int, int, torch.device], Tensor] = {}

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> SquareState:
        """Start from a random perturbation of full size; see `Attack.start`."""
        check_items(images, labels, targets, targeted=False)
        if images.dim() != 4 or images.shape[2] < self.least_height:
            raise InputError(
                f"expected images (N, C, H, W) of at least {self.least_height} rows for Square in"
                f" {self.norm}, got {tuple(images.shape)}"
            )
        images = images.contiguous()
        return SquareState(
            labels=labels.clone(),
            targets=torch.zeros_like(labels),
            best=self.first(images, draws),
            broken=torch.zeros_like(labels, dtype=torch.bool),
            iteration=torch.zeros_like(labels),
            clean=images.clone(),
            best_margin=torch.full_like(labels, float("inf"), dtype=images.dtype),
            draws=draws,
        )

    def step(self, model: Model, state: SquareState) -> SquareState:
        """Make one query; see `Attack.step`."""
        query = self._query(state)
        with torch.no_grad():
            logits = model(query.images)
        self._answer((state, query), logits)
        return state

    def _settle(self, asked: tuple[SquareState, Query], logits: Tensor) -> None:
        """Do all of a step that follows its pass, in place; `logits` (N, K) answer the query."""
        state, query = asked
        searching = ~self.finished(state)
        logits = logits.to(state.best_margin.dtype)
        current = -margin(logits, state.labels, state.targets)
        wrong = misclassified(logits, state.labels)
        # Below an infinite margin, of logits that are not finite, no later one could fall.
        smaller = (current < state.best_margin) & current.isfinite() & searching
        torch.where(smaller, current, state.best_margin, out=state.best_margin)
        query.settle(smaller | (wrong & searching))
        state.broken.logical_or_(wrong & searching)
        state.iteration.add_(searching)

    def reference_passes(self, standing: Sequence[int], targeted: bool, queries: int) -> Passes:
        """See `Attack.reference_passes`: broken samples are dropped at once.

        The images that a round returns are predicted once more.
        """
        return Passes(2 * entering(standing) + sum(standing) + queries, 0)

    @abstractmethod
    def first(self, images: Tensor, draws: Draws) -> Tensor:
        """Return (N, C, H, W) images with random perturbations of full size."""

    @abstractmethod
    def propose(self, state: SquareState) -> Query:
        """Return what to ask next; at iteration 0 about the starts."""

    def table(self, images: Tensor, column: Literal["side", "number"]) -> Tensor:
        """Return (steps + 1,) int64 by iteration: the window's side, or how often it shrank.

        The side is 0 at the start, which changes nothing.
        """
        height, width = images.shape[2:]
        key = (column, height, width, images.device)
        if key not in self._tables:
            numbers = [_halvings(query) for query in range(self._queries)]
            sides = self.sides(height, width)
            values = [sides[number] for number in numbers] if column == "side" else numbers
            self._tables[key] = torch.tensor([0, *values, values[-1]], device=images.device)
        return self._tables[key]

    def sides(self, height: int, width: int) -> list[int]:
        """Return the windows' sides, from the first on."""
        shares = [self._p_init / 2**number for number in range(len(_HALVINGS) + 1)]
        return [self.side(share, height, width) for share in shares]

    def side(self, share: float, height: int, width: int) -> int:
        """Return the side of the window that covers a share of the image."""
        side = max(round(math.sqrt(share * height * width)), 1)
        return min(side, height, width)


def random_signs(numbers: Tensor) -> Tensor:
    """Return signs from uniform numbers."""
    return (numbers >= 0.5).to(numbers.dtype).mul_(2).sub_(1)


def corner(numbers: Tensor, room: Tensor) -> Tensor:
    """Return (N,) int64 places in [0, room), or 0 without room, from uniform numbers (N,)."""
    return (numbers * room).long()


def interval(start: Tensor, size: Tensor, length: int, like: Tensor) -> Tensor:
    """Return (N, length): one from `start` (N,) on for `size` (N,) places, else zero."""
    place = torch.arange(length, device=start.device) - start.unsqueeze(1)
    return ((place >= 0) & (place < size.unsqueeze(1))).to(like.dtype)


def _halvings(query: int) -> int:
    """Return how often the share of changed pixels was halved before a query, counted from 0."""
    return sum(query > limit for limit in _HALVINGS)
