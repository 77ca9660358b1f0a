"""Where an evaluation stands, for displays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Progress:
    """Where an evaluation stands; one is sent after each block and at the start of a stage.

    Attributes:
        stage: "clean", "certify" or the attack's name.
        done, total: samples of this stage.
        robust: samples not broken so far.
        examples: all samples of the run.
        seconds_left: estimate for the whole run, None while unknown.
        workers: how many are at work.
        samples_per_second: by all workers in the last minute, each counted once a stage; None while
            unknown.
        passes_per_second: forward passes of one image, a backward pass as so many of them; like
            the samples.
    """

    stage: str
    done: int
    total: int
    robust: int
    examples: int
    seconds_left: float | None = field(default=None)
    workers: int = 1
    samples_per_second: float | None = None
    passes_per_second: float | None = None


def counting_others(report: Callable[[Progress], None], robust: int) -> Callable[[Progress], None]:
    """Return a report that also counts robust samples which a chain of stages does not take.

    Args:
        report: what is told in the end.
        robust: how many they are; negative: samples that the chain takes, and that are broken.
    """

    def told(progress: Progress) -> None:
        report(replace(progress, robust=max(progress.robust + robust, 0)))

    return told if robust else report
