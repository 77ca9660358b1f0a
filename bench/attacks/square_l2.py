"""The L2 form of the Square attack (Andriushchenko et al. 2020, "Square attack: a query-efficient
black-box adversarial attack via random search", arXiv 1912.00049, algorithm 3).

Starts from a tiling of bumps; a query moves the mass of one window into another.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from bench.attacks.distances import norms, per_image
from bench.attacks.draws import Draws
from bench.attacks.projections import SMALLEST_NORM
from bench.attacks.rowwise import RowFunction, copy_rows
from bench.attacks.square_search import (
    Query,
    Square,
    SquareState,
    WholeQuery,
    corner,
    interval,
    random_signs,
)

_TILES = 5
"""About how many windows fit along the height in the start."""


class SquareL2(Square):
    """Algorithm 3: the mass of two windows is put into one of them, with a bump added to it."""

    least_height = _TILES

    def __init__(self, eps: float, *, queries: int = 5000, p_init: float = 0.8) -> None:
        """Make an attack; parameters as for `SquareLinf`."""
        super().__init__("L2", eps, queries, p_init)
        self._change = RowFunction(partial(_change_l2, eps))
        self.arithmetic = (self._change,)
        self._bumps: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}

    def first(self, images: Tensor, draws: Draws) -> Tensor:
        """Return bumps of random sign and direction side by side."""
        count, channels, height, width = images.shape
        side = height // _TILES
        first = (height - side * _TILES) // 2
        across = max(width // side, 1)
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
        perturbations = bumps * random_signs(numbers[:, 1:])
        scale = self.eps / (norms(perturbations, "L2") + SMALLEST_NORM)
        return (images + perturbations * per_image(scale, images)).clamp_(0, 1)

    def side(self, share: float, height: int, width: int) -> int:
        """See `Square.side`; odd, and at least 3."""
        side = max(round(math.sqrt(share * height * width)), 3)
        return min(side + (side + 1) % 2, height, width)

    def propose(self, state: SquareState) -> Query:
        """See `Square.propose`."""
        count, channels, height, width = state.best.shape
        dtype = state.best.dtype
        size = self.table(state.best, "side")[state.iteration]
        numbers = state.draws.uniform(state.iteration, 5 + channels, dtype)
        top, other_top = (corner(numbers[:, place], height - size) for place in (0, 2))
        left, other_left = (corner(numbers[:, place], width - size) for place in (1, 3))
        turned = numbers[:, 4] > 0.5
        signs = random_signs(numbers[:, 5:]).view(count, channels, 1, 1)
        table = self._bump_table(state.best)
        border = table.shape[1] - 1
        kind = 2 * self.table(state.best, "number")[state.iteration] + turned
        images = torch.empty_like(state.best)
        self._change(
            images,
            state.best,
            state.clean,
            interval(top, size, height, signs),
            interval(left, size, width, signs),
            interval(other_top, size, height, signs),
            interval(other_left, size, width, signs),
            _place_in_bump(top, height, border) + (kind * (border + 1)).unsqueeze(1),
            _place_in_bump(left, width, border),
            signs,
            state.iteration == 0,
            shared=(table,),
        )
        return WholeQuery(images, state.best)

    def _bump_table(self, images: Tensor) -> Tensor:
        """Return all bumps, each with a border of zeros at its end: (2 windows (L + 1), L + 1).

        First the upright and turned bump of the first windows, then those of the next ones.
        """
        height, width = images.shape[2:]
        key = (height, width, images.device, images.dtype)
        if key not in self._bumps:
            border = min(height, width) + 1
            sides = self.sides(height, width)
            table = torch.zeros(len(sides), 2, border, border, dtype=torch.float64)
            for number, side in enumerate(sides):
                table[number, 0, :side, :side] = bump(side)
                table[number, 1, :side, :side] = bump(side).T
            self._bumps[key] = table.view(-1, border).to(images)
        return self._bumps[key]


def _change_l2(
    eps: float,
    bumps: Tensor,
    images: Tensor,
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
    """Move the mass of both windows into one, with a bump added and in the ball, into `images`.

    Args:
        eps: radius of the ball.
        bumps: (R, L + 1) rows of bumps of norm one, zero at their ends.
        images: (N, C, H, W) written to.
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

    delta = images.copy_(best).sub_(clean)
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
    copy_rows(images, first, best)


def _length(perturbations: Tensor) -> Tensor:
    """Return (N, C, 1, 1) Euclidean norm of each channel of (N, C, H, W)."""
    length: Tensor = torch.linalg.vector_norm(perturbations, dim=(2, 3), keepdim=True)
    return length


def _place_in_bump(start: Tensor, length: int, border: int) -> Tensor:
    """Return (N, length) int64: places counted from `start` (N,); `border` outside the bump."""
    place = torch.arange(length, device=start.device) - start.unsqueeze(1)
    return torch.where((place >= 0) & (place < border), place, border)


def _tile_coordinates(length: int, side: int, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Return where each place along a side lies within its tile, and in which; -1 if in none."""
    place = torch.arange(length) - first
    tile = place.div(side, rounding_mode="floor")
    covered = (tile >= 0) & (tile < count)
    return place % side, torch.where(covered, tile, -1)


def bump(side: int) -> Tensor:
    """Return the paper's eta of the L2 form: two pyramids of opposite sign, one above the other.

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
    """Return (height, width) of norm 1: at distance d from the centre, the sum of 1/k^2, k > d."""
    steps = max(height // 2, width // 2) + 1
    heights = torch.tensor([1 / k**2 for k in range(1, steps + 1)], dtype=torch.float64)
    level = heights.flip(0).cumsum(0).flip(0)
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    pyramid = level[torch.maximum(rows.unsqueeze(1), columns)]
    return pyramid / pyramid.square().sum().sqrt()
