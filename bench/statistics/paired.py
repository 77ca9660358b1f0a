"""Two candidates on the same samples: counts of agreement, the exact test, and the difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.statistics.comparison import mcnemar_p_value


def paired_counts(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedCounts:
    """Count how many of n samples survive for both of two, for only one of them, or for neither.

    Args:
        first: (n,) which survive for the first.
        second: (n,) the same of the second one, for the same samples.

    Raises:
        InputError: there is no sample.
    """
    return PairedCounts(
        both=int((first & second).sum()),
        only_first=int((first & ~second).sum()),
        only_second=int((~first & second).sum()),
        neither=int((~first & ~second).sum()),
    )


def mean_interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a mean over the population of images.

    It is Student's, which is approximate unless the values are normal; with hundreds of images the
    mean is close to normal whatever they are. For two candidates on the same images, hand over the
    differences by image.

    Args:
        values: (n,) one number an image.
        confidence: in (0, 1).

    Raises:
        InputError: fewer than two values, or the confidence is out of its range.
    """
    if len(values) < 2:
        raise InputError(f"expected at least 2 values, got {len(values)}")
    _check_confidence(confidence)
    from scipy.stats import t  # slow to import

    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(t.isf((1 - confidence) / 2, len(values) - 1)) * error
    return mean - reach, mean + reach


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"expected a confidence in (0, 1), got {confidence}; 0.95 is usual")


@dataclass(frozen=True)
class PairedCounts:
    """How many samples survive for both, for only one of them, or for neither.

    Raises:
        InputError: a count is negative, or there is no sample.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    def __post_init__(self) -> None:
        counts = (self.both, self.only_first, self.only_second, self.neither)
        if min(counts) < 0 or not sum(counts):
            raise InputError(
                f"expected counts >= 0 of at least one sample, got {', '.join(map(str, counts))}"
            )

    @property
    def n(self) -> int:
        """The number of samples."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def accuracies(self) -> tuple[float, float]:
        """The shares of the samples that survive for the first and for the second."""
        return (self.both + self.only_first) / self.n, (self.both + self.only_second) / self.n

    @property
    def difference(self) -> float:
        """The first's share minus the second's, in [-1, 1]."""
        return (self.only_first - self.only_second) / self.n

    @property
    def p_value(self) -> float:
        """The p-value of McNemar's exact test, two-sided."""
        return mcnemar_p_value(self.only_first, self.only_second)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the score interval of the difference, in [-1, 1].

        It holds those differences that the score test for paired proportions does not reject. Other
        than an interval made of two accuracies' intervals, it knows that the samples are the same.
        It is about the population of images, and approximate: near `confidence`, not above it.

        Source: Tango, "Equivalence test and confidence interval for the difference in proportions
        for the paired-sample design", Statistics in Medicine 17 (1998).

        Args:
            confidence: in (0, 1).

        Raises:
            InputError: the confidence is out of its range.
        """
        _check_confidence(confidence)
        from scipy.stats import norm  # slow to import

        limit = float(norm.isf((1 - confidence) / 2))
        return self._end(-1.0, limit), self._end(1.0, limit)

    def _end(self, far: float, limit: float) -> float:
        """Return where the score reaches `limit`, between the difference and -1 or 1."""
        near = self.difference
        if abs(self._score(far)) <= limit:
            return far
        for _ in range(45):
            middle = (near + far) / 2
            if abs(self._score(middle)) <= limit:
                near = middle
            else:
                far = middle
        return (near + far) / 2

    def _score(self, difference: float) -> float:
        """Return how far the counts are from a difference, in standard errors under it."""
        n, b, c = self.n, self.only_first, self.only_second
        distance = b - c - n * difference
        if abs(distance) < 1e-9:
            return 0.0
        # The most likely share of samples that survive for the second only, if that is the
        # difference: the larger root of a quadratic equation.
        linear = (2 * n - b + c) * difference - b - c
        constant = -c * difference * (1 - difference)
        root = math.sqrt(max(linear * linear - 8 * n * constant, 0.0))
        share = (root - linear) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        return math.inf if variance <= 1e-12 else distance / math.sqrt(variance)


def holm_p_values(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of tests, in their order.

    If each test at p <= a is called significant after adjustment, the probability that any of the
    true hypotheses is among them is at most a.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted
