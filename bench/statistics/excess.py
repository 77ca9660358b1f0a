"""Whether a count is above a threshold by more than chance."""

from __future__ import annotations

from scipy.stats import binom

CHANCE = 0.01
"""The largest p-value of an excess that counts as more than chance."""


def beyond_chance(count: int, n: int, threshold: float) -> bool:
    """Return whether a count among n is significantly above a share of `threshold`.

    On few samples one lucky step takes an honest model above a threshold, so the excess must also
    be more than chance (exact binomial test at `CHANCE`).
    """
    return bool(binom.sf(count - 1, n, threshold) < CHANCE)
