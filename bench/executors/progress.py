"""Where an evaluation stands, for displays."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Where an evaluation stands; one is sent after each block and at the start of a stage.

    Attributes:
        stage: "clean", "certify" or the attack's name.
        done, total: samples of this stage.
        robust: samples not broken so far.
        examples: all samples of the run.
        seconds_left: estimate for the whole run, None while unknown.
    """

    stage: str
    done: int
    total: int
    robust: int
    examples: int
    seconds_left: float | None = field(default=None)
