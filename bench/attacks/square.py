"""Square attack (Andriushchenko et al. 2020, "Square attack: a query-efficient black-box
adversarial attack via random search", arXiv 1912.00049, algorithms 1 to 3).

Random search without gradients: each query changes one square window of the perturbation, smaller
and smaller ones as queries go by, and keeps the change if the margin shrinks. Both forms start from
a random perturbation of full size.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from bench.attacks.attack import (
    Attack,
    Model,
    Passes,
    attack_samples,
    check_items,
    misclassified,
)
from bench.attacks.distances import Norm, norms, per_image
from bench.attacks.draws import Draws
from bench.attacks.losses import margin
from bench.attacks.projections import SMALLEST_NORM, onto_box_
from bench.attacks.rowwise import RowFunction, copy_rows
from bench.attacks.state import State
from bench.errors import InputError

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share of changed pixels is halved."""

_TILES = 5
"""About how many windows fit along a side in the L2 start."""


@dataclass(frozen=True)
class SquareState(State):
    """See `State`; `best` is the image of the smallest margin. An iteration is a query.

    Attributes:
        clean: (N, C, H, W).
        candidate: (N, C, H, W) the image of the current query.
        best_margin: (N,) the label's logit minus the highest other one.
        draws: the items' random numbers.
    """

    clean: Tensor
    candidate: Tensor
    best_margin: Tensor
    draws: Draws


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
        self._tables: dict[tuple[str, int, int, torch.device], Tensor] = {}

    def start(
        self,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        targets: Tensor | None = None,
        restarts: Tensor | None = None,
    ) -> SquareState:
        """From a random perturbation of full size; see `Attack.start`."""
        check_items(images, labels, targets, targeted=False)
        if images.dim() != 4 or min(images.shape[2:]) < _TILES:
            raise InputError(
                f"expected images (N, C, H, W) of at least {_TILES} x {_TILES} pixels for Square,"
                f" got {tuple(images.shape)}"
            )
        images = images.contiguous()
        return SquareState(
            labels=labels.clone(),
            targets=torch.zeros_like(labels),
            best=self._first(images, draws),
            broken=torch.zeros_like(labels, dtype=torch.bool),
            iteration=torch.zeros_like(labels),
            clean=images.clone(),
            candidate=images.clone(),
            best_margin=torch.full_like(labels, float("inf"), dtype=images.dtype),
            draws=draws,
        )

    def step(self, model: Model, state: SquareState) -> SquareState:
        """One query; see `Attack.step`."""
        searching = ~self.finished(state)
        self._propose(state)
        with torch.no_grad():
            logits = model(state.candidate).to(state.best_margin.dtype)
        current = -margin(logits, state.labels, state.targets)
        wrong = misclassified(logits, state.labels)
        smaller = (current < state.best_margin) & searching
        state.best_margin.copy_(torch.where(smaller, current, state.best_margin))
        copy_rows(state.best, smaller | (wrong & searching), state.candidate)
        state.broken.logical_or_(wrong & searching)
        state.iteration.add_(searching)
        return state

    @abstractmethod
    def _first(self, images: Tensor, draws: Draws) -> Tensor:
        """(N, C, H, W) images with random perturbations of full size."""

    @abstractmethod
    def _propose(self, state: SquareState) -> None:
        """Write the next images to ask about into `candidate`; at iteration 0 the starts."""

    def _table(self, images: Tensor, column: Literal["side", "number"]) -> Tensor:
        """(steps + 1,) int64 by iteration: the window's side, or how often it was made smaller.

        The side is 0 at the start, which changes nothing.
        """
        height, width = images.shape[2:]
        key = (column, height, width, images.device)
        if key not in self._tables:
            numbers = [_halvings(query) for query in range(self._queries)]
            sides = self._sides(height, width)
            values = [sides[number] for number in numbers] if column == "side" else numbers
            self._tables[key] = torch.tensor([0, *values, values[-1]], device=images.device)
        return self._tables[key]

    def _sides(self, height: int, width: int) -> list[int]:
        """The windows' sides, from the first on."""
        shares = [self._p_init / 2**number for number in range(len(_HALVINGS) + 1)]
        return [self._side(share, height, width) for share in shares]

    def _side(self, share: float, height: int, width: int) -> int:
        """Side of the window that covers a share of the image."""
        side = max(round(math.sqrt(share * height * width)), 1)
        return min(side, height, width)


class SquareLinf(Square):
    """Algorithm 2: in a window, all pixels of a channel go to the same face of the ball."""

    def __init__(self, eps: float, *, queries: int = 5000, p_init: float = 0.8) -> None:
        """Make an attack.

        Args:
            eps: radius of the ball, in the [0, 1] pixel scale; positive.
            queries: after the start's, at least 1.
            p_init: share of pixels that the first windows cover, in (0, 1].

        Raises:
            InputError: a parameter is out of its range.
        """
        super().__init__("Linf", eps, queries, p_init)
        self._change = RowFunction(partial(_change_linf, eps))
        self.arithmetic = (self._change,)

    def _first(self, images: Tensor, draws: Draws) -> Tensor:
        """Vertical stripes."""
        count, channels, _, width = images.shape
        events = torch.zeros(count, dtype=torch.int64, device=images.device)
        stripes = _signs(draws.uniform(events, channels * width, images.dtype))
        return (images + self.eps * stripes.view(count, channels, 1, width)).clamp_(0, 1)

    def _propose(self, state: SquareState) -> None:
        count, channels, height, width = state.best.shape
        size = self._table(state.best, "side")[state.iteration]
        numbers = state.draws.uniform(state.iteration, 2 + channels, state.best.dtype)
        top = _corner(numbers[:, 0], height - size)
        left = _corner(numbers[:, 1], width - size)
        signs = _signs(numbers[:, 2:]).mul_(2 * self.eps).view(count, channels, 1, 1)
        down = signs * _interval(top, size, height, signs).view(count, 1, height, 1)
        across = _interval(left, size, width, signs).view(count, 1, 1, width)
        self._change(state.candidate, state.best, state.clean, down, across)


class SquareL2(Square):
    """Algorithm 3: the mass of two windows is put into one of them, with a bump added to it."""

    def __init__(self, eps: float, *, queries: int = 5000, p_init: float = 0.8) -> None:
        """Make an attack; parameters as for `SquareLinf`."""
        super().__init__("L2", eps, queries, p_init)
        self._change = RowFunction(partial(_change_l2, eps))
        self.arithmetic = (self._change,)
        self._bumps: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}

    def _first(self, images: Tensor, draws: Draws) -> Tensor:
        """Bumps of random sign and direction side by side."""
        count, channels, height, width = images.shape
        side = height // _TILES
        first = (height - side * _TILES) // 2
        across = width // side
        row, row_tile = _tile_coordinates(height, side, first, height // side)
        column, column_tile = _tile_coordinates(width, side, first, across)
        tiles = (height // side) * across
        tile = (row_tile.unsqueeze(1) * across + column_tile).clamp_(min=0).to(images.device)
        covered = (row_tile.unsqueeze(1) >= 0) & (column_tile >= 0)
        events = torch.zeros(count, dtype=torch.int64, device=images.device)
        numbers = draws.uniform(events, tiles * (1 + channels), images.dtype)
        numbers = numbers.view(count, tiles, 1 + channels).transpose(1, 2)[:, :, tile]
        pattern = bump(side)[row.unsqueeze(1), column] * covered
        turned = bump(side).T[row.unsqueeze(1), column] * covered
        bumps = torch.where(numbers[:, :1] > 0.5, turned.to(images), pattern.to(images))
        perturbations = bumps * _signs(numbers[:, 1:])
        scale = self.eps / (norms(perturbations, "L2") + SMALLEST_NORM)
        return (images + perturbations * per_image(scale, images)).clamp_(0, 1)

    def _side(self, share: float, height: int, width: int) -> int:
        side = max(round(math.sqrt(share * height * width)), 3)
        return min(side + (side + 1) % 2, height, width)

    def _propose(self, state: SquareState) -> None:
        count, channels, height, width = state.best.shape
        dtype = state.best.dtype
        size = self._table(state.best, "side")[state.iteration]
        numbers = state.draws.uniform(state.iteration, 5 + channels, dtype)
        top, other_top = (_corner(numbers[:, place], height - size) for place in (0, 2))
        left, other_left = (_corner(numbers[:, place], width - size) for place in (1, 3))
        turned = numbers[:, 4] > 0.5
        signs = _signs(numbers[:, 5:]).view(count, channels, 1, 1)
        table = self._bump_table(state.best)
        border = table.shape[1] - 1
        kind = 2 * self._table(state.best, "number")[state.iteration] + turned
        self._change(
            state.candidate,
            state.best,
            state.clean,
            _interval(top, size, height, signs),
            _interval(left, size, width, signs),
            _interval(other_top, size, height, signs),
            _interval(other_left, size, width, signs),
            _place_in_bump(top, height, border) + (kind * (border + 1)).unsqueeze(1),
            _place_in_bump(left, width, border),
            signs,
            state.iteration == 0,
            shared=(table,),
        )

    def _bump_table(self, images: Tensor) -> Tensor:
        """All bumps, each with a border of zeros at its end: (2 windows (L + 1), L + 1).

        First the upright and turned bump of the first windows, then those of the next ones.
        """
        height, width = images.shape[2:]
        key = (height, width, images.device, images.dtype)
        if key not in self._bumps:
            border = min(height, width) + 1
            sides = self._sides(height, width)
            table = torch.zeros(len(sides), 2, border, border, dtype=torch.float64)
            for number, side in enumerate(sides):
                table[number, 0, :side, :side] = bump(side)
                table[number, 1, :side, :side] = bump(side).T
            self._bumps[key] = table.view(-1, border).to(images)
        return self._bumps[key]


def _change_linf(
    eps: float, candidate: Tensor, best: Tensor, clean: Tensor, down: Tensor, across: Tensor
) -> None:
    """Change a window of each image by plus or minus 2 eps and project, into `candidate`.

    Args:
        eps: radius of the ball.
        candidate: (N, C, H, W) written to.
        best: (N, C, H, W).
        clean: (N, C, H, W).
        down: (N, C, H, 1) the window's change in its rows, else zero.
        across: (N, 1, 1, W) one in its columns, else zero.
    """
    lower, upper = (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1)
    candidate.copy_(best).addcmul_(down, across)
    onto_box_(candidate, lower, upper)


def _change_l2(
    eps: float,
    bumps: Tensor,
    candidate: Tensor,
    best: Tensor,
    clean: Tensor,
    down: Tensor,
    across: Tensor,
    other_down: Tensor,
    other_across: Tensor,
    bump_row: Tensor,
    bump_column: Tensor,
    signs: Tensor,
    first: Tensor,
) -> None:
    """Move the mass of both windows into one, with a bump added and in the ball, into `candidate`.

    Args:
        eps: radius of the ball.
        bumps: (R, L + 1) rows of bumps of norm one, zero at their ends.
        candidate: (N, C, H, W) written to.
        best: (N, C, H, W).
        clean: (N, C, H, W).
        down: (N, H) one in the rows of the window to change, else zero.
        across: (N, W) one in its columns, else zero.
        other_down: (N, H) rows of the window to empty.
        other_across: (N, W) its columns.
        bump_row: (N, H) int64, which row of `bumps` to add.
        bump_column: (N, W) int64, which column.
        signs: (N, C, 1, 1) of the bumps.
        first: (N,) bool, whether the item is at its start, which stays as it is.
    """
    count, channels, height, width = best.shape
    window = (down.unsqueeze(2) * across.unsqueeze(1)).unsqueeze(1)
    other = (other_down.unsqueeze(2) * other_across.unsqueeze(1)).unsqueeze(1)
    outside = (1 - window).mul_(1 - other)
    place = bump_row.unsqueeze(2) * bumps.shape[1] + bump_column.unsqueeze(1)
    bump_there = bumps.view(-1).index_select(0, place.view(-1)).view(count, 1, height, width)

    delta = candidate.copy_(best).sub_(clean)
    mass = (delta * delta).sum(dim=(2, 3), keepdim=True)
    new = delta * window
    new.div_(_length(new).add_(SMALLEST_NORM)).addcmul_(bump_there, signs)
    delta.mul_(outside)
    mass_outside = (delta * delta).sum(dim=(2, 3), keepdim=True)
    unused = (eps**2 - mass.sum(dim=1, keepdim=True)).clamp_(min=0) / channels
    wanted = (mass - mass_outside).clamp_(min=0).add_(unused).sqrt_()
    delta.add_(new.mul_(wanted / _length(new).add_(SMALLEST_NORM)))
    scale = per_image(eps / (norms(delta, "L2") + SMALLEST_NORM), delta)
    delta.mul_(scale).add_(clean).clamp_(0, 1)
    copy_rows(candidate, first, best)


def _length(perturbations: Tensor) -> Tensor:
    """(N, C, 1, 1) Euclidean norm of each channel of (N, C, H, W)."""
    length: Tensor = torch.linalg.vector_norm(perturbations, dim=(2, 3), keepdim=True)
    return length


def bump(side: int) -> Tensor:
    """The paper's eta of the L2 form: two pyramids of opposite sign, one above the other.

    Args:
        side: of the window, at least 1.

    Returns:
        (side, side) float64 of Euclidean norm 1: its upper half rises around its centre, the lower
        one falls.
    """
    half = side // 2
    both = torch.cat((_pyramid(half, side), -_pyramid(side - half, side)))
    return both / both.square().sum().sqrt()


def _pyramid(height: int, width: int) -> Tensor:
    """(height, width) of norm 1; at distance d from the centre, the sum of 1 / k^2 over k > d."""
    steps = max(height // 2, width // 2) + 1
    heights = torch.tensor([1 / k**2 for k in range(1, steps + 1)], dtype=torch.float64)
    level = heights.flip(0).cumsum(0).flip(0)
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    pyramid = level[torch.maximum(rows.unsqueeze(1), columns)]
    return pyramid / pyramid.square().sum().sqrt()


def _halvings(query: int) -> int:
    """How often the share of changed pixels was halved before a query, counted from 0."""
    return sum(query > limit for limit in _HALVINGS)


def _signs(numbers: Tensor) -> Tensor:
    """Signs from uniform numbers."""
    return (numbers >= 0.5).to(numbers.dtype).mul_(2).sub_(1)


def _corner(numbers: Tensor, room: Tensor) -> Tensor:
    """(N,) int64: a place in [0, room), or 0 where there is no room, from uniform numbers (N,)."""
    return (numbers * room).long()


def _interval(start: Tensor, size: Tensor, length: int, like: Tensor) -> Tensor:
    """(N, length): one from `start` (N,) on for `size` (N,) places, else zero."""
    place = torch.arange(length, device=start.device) - start.unsqueeze(1)
    return ((place >= 0) & (place < size.unsqueeze(1))).to(like.dtype)


def _place_in_bump(start: Tensor, length: int, border: int) -> Tensor:
    """(N, length) int64: each place counted from `start` (N,); `border` if before or beyond it."""
    place = torch.arange(length, device=start.device) - start.unsqueeze(1)
    return torch.where((place >= 0) & (place < border), place, border)


def _tile_coordinates(length: int, side: int, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Where each place along a side lies within its tile, and in which tile; -1 if in none."""
    place = torch.arange(length) - first
    tile = place.div(side, rounding_mode="floor")
    covered = (tile >= 0) & (tile < count)
    return place % side, torch.where(covered, tile, -1)


def square(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    eps: float,
    queries: int = 5000,
    restarts: int = 1,
    seed: int = 0,
    indices: Tensor | None = None,
) -> Tensor:
    """Attack images with Square. No gradients are taken.

    Args:
        model: to fool.
        images: (N, C, H, W) in [0, 1], at least 5 x 5 pixels.
        labels: (N,) int64.
        norm: of the ball, Linf or L2.
        eps: its radius, in the [0, 1] pixel scale.
        queries: after the start's.
        restarts: random starts.
        seed: of the random streams.
        indices: (N,) places in the data set, part of the streams' key; 0, 1, ... by default.

    Returns:
        (N, C, H, W): adversarial images where the attack succeeded, else the clean ones.

    Raises:
        InputError: a parameter or an input is out of its range.
    """
    return attack_samples(
        square_for(norm, eps, queries=queries),
        model,
        images,
        labels,
        name="square",
        restarts=restarts,
        seed=seed,
        indices=indices,
    ).images


def square_for(norm: Norm, eps: float, *, queries: int = 5000, p_init: float = 0.8) -> Square:
    """The form of the attack for a norm; parameters as for `SquareLinf`.

    Raises:
        InputError: there is none, or a parameter is out of its range.
    """
    if norm == "Linf":
        return SquareLinf(eps, queries=queries, p_init=p_init)
    if norm == "L2":
        return SquareL2(eps, queries=queries, p_init=p_init)
    raise InputError(f"expected norm Linf or L2 for Square, got {norm}")
