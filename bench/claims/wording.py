"""Measured numbers in words: shares, differences and radii with their 95% intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.formatting import interval, percent, points
from bench.statistics import exact_binomial_interval
from bench.statistics.paired import PairedCounts, mean_interval


def share(stands: NDArray[np.bool_]) -> str:
    """Return the share of samples (n,) that stand, with its exact interval."""
    count = int(stands.sum())
    bounds = exact_binomial_interval(count, len(stands))
    return f"{percent(count / len(stands))} [{interval(bounds)}]"


def difference(counts: PairedCounts) -> str:
    """Return the difference of two accuracies in points, with its interval and McNemar's p."""
    low, high = counts.interval()
    return f"{between(counts.difference, low, high)}, {p_value(counts.p_value)}"


def between(value: float, low: float, high: float) -> str:
    """Return a difference of fractions in points, with its interval."""
    return f"{points(value)} [{points(low)}, {points(high)}]"


def p_value(value: float) -> str:
    """Return a p-value with two digits, such as p = 0.031."""
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def size(fraction: float) -> str:
    """Return a fraction in points, as short as it can be."""
    return f"{100 * fraction:g} points"


def mean_radius(radii: NDArray[np.float64]) -> str:
    """Return the mean of radii (n,), with its interval."""
    low, high = mean_interval(radii)
    return f"{radii.mean():.3f} [{low:.3f} – {high:.3f}]"


def radius_difference(differences: NDArray[np.float64]) -> str:
    """Return the mean of differences (n,) of radii, with its interval and signs."""
    ends = [f"{end:+.3f}".replace("-", "−") for end in mean_interval(differences)]
    mean = f"{differences.mean():+.3f}".replace("-", "−")
    return f"{mean} [{ends[0]}, {ends[1]}]"


def places(index: NDArray[np.int64]) -> str:
    """Describe samples by their places (n,) in the data set, ascending."""
    steps = set(np.diff(index).tolist())
    if index[0] == 0 and steps <= {1}:
        return f"the first {len(index):,}"
    if index[0] == 0 and len(steps) == 1:
        return f"{len(index):,}, one in {steps.pop()}"
    return f"{len(index):,}"
