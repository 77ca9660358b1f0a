"""What a training tells its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """Accuracies, as fractions, of the averaged weights on the held-out training images."""

    epoch: int
    clean_accuracy: float
    robust_accuracy: float | None = None
    """Under ten steps of PGD in the threat model; None for a recipe without one."""


@dataclass(frozen=True)
class Progress:
    """The state of a training after some steps."""

    epoch: int
    """Finished epochs."""
    epochs: int
    step: int
    """Finished steps, of all epochs."""
    steps: int
    seconds: float
    """Spent so far, in earlier runs of a resumed training too."""
    loss: float
    """Mean training loss of this epoch so far."""
    learning_rate: float
    measurement: Measurement | None = None
    """The one taken at the end of this epoch, if one was."""


@dataclass(frozen=True)
class TriedNumbers:
    """Numbers of a mix that were attacked on the held-out images."""

    numbers: Mapping[str, float]
    """Empty: the robust base alone, which comes first."""
    clean_accuracy: float
    """As a fraction, as the next two."""
    attacked_accuracy: float
    """An upper bound, if it is below what is required."""
    required: float
    """Attacked accuracy that is robust enough."""
    is_robust_enough: bool


ProgressCallback = Callable[[Progress | TriedNumbers], None]


def ignore(progress: Progress | TriedNumbers) -> None:
    """The callback of a caller who does not care."""
