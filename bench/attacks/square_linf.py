"""The Linf form of the Square attack (Andriushchenko et al. 2020, "Square attack: a query-efficient
black-box adversarial attack via random search", arXiv 1912.00049, algorithm 2).

Starts from vertical stripes; a window moves to the other face of the ball.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.attacks.draws import Draws
from bench.attacks.projections import onto_box_
from bench.attacks.rowwise import RowFunction, asking_is_free
from bench.attacks.square_search import (
    Query,
    Square,
    SquareState,
    WholeQuery,
    corner,
    interval,
    random_signs,
)

_LARGEST_SHARE = 1 / 16
"""Windows that cover more of the image than this are no cheaper to change by themselves."""


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

    def first(self, images: Tensor, draws: Draws) -> Tensor:
        """Return vertical stripes."""
        count, channels, _, width = images.shape
        events = torch.zeros(count, dtype=torch.int64, device=images.device)
        stripes = random_signs(draws.uniform(events, channels * width, images.dtype))
        return (images + self.eps * stripes.view(count, channels, 1, width)).clamp_(0, 1)

    def propose(self, state: SquareState) -> Query:
        """See `Square.propose`."""
        count, channels, height, width = state.best.shape
        size = self.table(state.best, "side")[state.iteration]
        numbers = state.draws.uniform(state.iteration, 2 + channels, state.best.dtype)
        top = corner(numbers[:, 0], height - size)
        left = corner(numbers[:, 1], width - size)
        signs = random_signs(numbers[:, 2:]).mul_(2 * self.eps).view(count, channels, 1, 1)
        if asking_is_free(size):
            largest = int(size.max())
            if largest**2 <= _LARGEST_SHARE * height * width:
                return WindowQuery.change(state, self.eps, top, left, size, largest, signs)
        down = signs * interval(top, size, height, signs).view(count, 1, height, 1)
        across = interval(left, size, width, signs).view(count, 1, 1, width)
        images = torch.empty_like(state.best)
        self._change(images, state.best, state.clean, down, across)
        return WholeQuery(images, state.best)


@dataclass(frozen=True)
class WindowQuery:
    """The best images, changed in place within their windows.

    Most queries change a few pixels; copying whole images for them costs a processor a good part
    of a small network's pass.

    Attributes:
        images: (N, C, H, W) the best images.
        places: (N, P) int64 where in each flat image they may differ.
        before: (N, P) what was there.
        after: (N, P) what is there now.
    """

    images: Tensor
    places: Tensor
    before: Tensor
    after: Tensor

    @classmethod
    def change(
        cls,
        state: SquareState,
        eps: float,
        top: Tensor,
        left: Tensor,
        size: Tensor,
        largest: int,
        change: Tensor,
    ) -> WindowQuery:
        """Change the windows of a state's best images, and project.

        Args:
            state: N items.
            eps: radius of the ball.
            top: (N,) int64, the windows' first rows.
            left: (N,) int64, their first columns.
            size: (N,) int64, their sides.
            largest: of the sides.
            change: (N, C, 1, 1) what to add to a window's pixels.
        """
        count, channels, height, width = state.best.shape
        side = max(largest, 1)
        rows, in_rows = _places(top, size, side, height)
        columns, in_columns = _places(left, size, side, width)
        first = torch.arange(channels, device=top.device).mul_(height * width).view(-1, 1, 1)
        places = first + (rows.mul_(width).unsqueeze(2) + columns.unsqueeze(1)).unsqueeze(1)
        places = places.view(count, -1)
        inside = (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)
        before = state.best.view(count, -1).gather(1, places)
        clean = state.clean.view(count, -1).gather(1, places)
        after = (before + (change * inside).view(count, -1)).clamp_(
            (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1)
        )
        state.best.view(count, -1).scatter_(1, places, after)
        return cls(state.best, places, before, after)

    def settle(self, keep: Tensor) -> None:
        """See `Query.settle`."""
        values = torch.where(keep.unsqueeze(1), self.after, self.before)
        self.images.view(len(keep), -1).scatter_(1, self.places, values)


def _places(start: Tensor, size: Tensor, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Return (N, count) int64 places around windows, and (N, count) bool: which are inside.

    Args:
        start: (N,) int64, the windows' first places.
        size: (N,) int64, their lengths, at most `count`.
        count: places for each, all different.
        length: of the image.
    """
    places = start.clamp(max=length - count).unsqueeze(1) + torch.arange(count, device=start.device)
    return places, (places >= start.unsqueeze(1)) & (places < (start + size).unsqueeze(1))


def _change_linf(
    eps: float, images: Tensor, best: Tensor, clean: Tensor, down: Tensor, across: Tensor
) -> None:
    """Change a window of each image by plus or minus 2 eps and project, into `images`.

    Args:
        eps: radius of the ball.
        images: (N, C, H, W) written to.
        best: (N, C, H, W).
        clean: (N, C, H, W).
        down: (N, C, H, 1) the window's change in its rows, else zero.
        across: (N, 1, 1, W) one in its columns, else zero.
    """
    lower, upper = (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1)
    images.copy_(best).addcmul_(down, across)
    onto_box_(images, lower, upper)
