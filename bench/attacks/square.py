"""Square attack, by norm: `square_search.py` with `square_linf.py` or `square_l2.py`."""

from __future__ import annotations

from torch import Tensor

from bench.attacks.attack import Model, attack_samples
from bench.attacks.distances import Norm
from bench.attacks.square_l2 import SquareL2
from bench.attacks.square_linf import SquareLinf
from bench.attacks.square_search import Square
from bench.errors import InputError


def square_for(norm: Norm, eps: float, *, queries: int = 5000, p_init: float = 0.8) -> Square:
    """Return the form of the attack for a norm; parameters as for `SquareLinf`.

    Raises:
        InputError: there is none, or a parameter is out of its range.
    """
    if norm == "Linf":
        return SquareLinf(eps, queries=queries, p_init=p_init)
    if norm == "L2":
        return SquareL2(eps, queries=queries, p_init=p_init)
    raise InputError(f"expected norm Linf or L2 for Square, got {norm}")


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
