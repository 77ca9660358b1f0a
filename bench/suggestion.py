"""Suggest the known names nearest to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def did_you_mean(name: str, known: Sequence[str], most: int = 3, cutoff: float = 0.6) -> str:
    """Return a question that suggests known names, such as "did you mean cifar10-linf?".

    Args:
        most: suggest at most so many, the most similar ones, joined by "or".
        cutoff: how similar a name must be, from 0 (any) to 1 (equal); see
            `difflib.get_close_matches`.

    Returns:
        the question; empty: no known name is similar.
    """
    near = difflib.get_close_matches(name, known, n=most, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else ""
