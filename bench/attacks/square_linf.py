"""The Linf form of the Square attack (Andriushchenko et al. 2020, "Square attack: a query-efficient
black-box adversarial attack via random search", arXiv 1912.00049, algorithm 2).

Starts from vertical stripes; a window moves to the other face of the ball.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bench.attacks.draws import Draws
from bench.attacks.projections import onto_box_
from bench.attacks.rowwise import RowFunction
from bench.attacks.square_search import Square, SquareState, corner, interval, random_signs


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
        """Vertical stripes."""
        count, channels, _, width = images.shape
        events = torch.zeros(count, dtype=torch.int64, device=images.device)
        stripes = random_signs(draws.uniform(events, channels * width, images.dtype))
        return (images + self.eps * stripes.view(count, channels, 1, width)).clamp_(0, 1)

    def propose(self, state: SquareState) -> None:
        count, channels, height, width = state.best.shape
        size = self.table(state.best, "side")[state.iteration]
        numbers = state.draws.uniform(state.iteration, 2 + channels, state.best.dtype)
        top = corner(numbers[:, 0], height - size)
        left = corner(numbers[:, 1], width - size)
        signs = random_signs(numbers[:, 2:]).mul_(2 * self.eps).view(count, channels, 1, 1)
        down = signs * interval(top, size, height, signs).view(count, 1, height, 1)
        across = interval(left, size, width, signs).view(count, 1, 1, width)
        self._change(state.candidate, state.best, state.clean, down, across)


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
