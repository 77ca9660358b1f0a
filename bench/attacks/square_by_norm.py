"""Square attack, by norm: `square_search.py` with `square_linf.py` or `square_l2.py`."""

from __future__ import annotations

from bench.attacks.distances import Norm, linf_or_l2
from bench.attacks.square_l2 import SquareL2
from bench.attacks.square_linf import SquareLinf
from bench.attacks.square_search import Square


def square_for(norm: Norm, eps: float, *, queries: int = 5000, p_init: float = 0.8) -> Square:
    """Return the form of the attack for a norm; parameters as for `SquareLinf`.

    Raises:
        InputError: there is none, or a parameter is out of its range.
    """
    if linf_or_l2(norm, "Square") == "L2":
        return SquareL2(eps, queries=queries, p_init=p_init)
    return SquareLinf(eps, queries=queries, p_init=p_init)
