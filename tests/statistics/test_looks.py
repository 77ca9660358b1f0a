"""Intervals of all looks hold at once."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import InputError
from bench.statistics import interval_at_look


def test_all_looks_hold_at_once_on_the_same_draws() -> None:
    # Thresholds on the same uniform draws are a family of proportions, as checkpoints are that are
    # measured on the same images.
    generator = np.random.default_rng(0)
    shares, n, trials = np.linspace(0.05, 0.95, 12), 60, 400
    misses = 0
    for _ in range(trials):
        draws = generator.random(n)
        found = [
            interval_at_look(int((draws < share).sum()), n, look, 0.8)
            for look, share in enumerate(shares, start=1)
        ]
        misses += any(
            not each.low <= share <= each.high for each, share in zip(found, shares, strict=True)
        )
    assert misses / trials <= 0.2


def test_later_looks_are_wider_and_no_look_is_before_the_first() -> None:
    widths = [interval_at_look(30, 100, look).width for look in (1, 2, 10, 100)]
    assert widths == sorted(widths)
    assert widths[-1] < 0.5
    with pytest.raises(InputError, match="at least 1"):
        interval_at_look(30, 100, 0)
