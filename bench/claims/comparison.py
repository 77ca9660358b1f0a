"""The result of comparing a measured number with a published one."""

from __future__ import annotations

from dataclasses import dataclass

from bench.claims.verdict import Verdict
from bench.statistics import required_sample_size


@dataclass(frozen=True)
class Check:
    """One published number and what was measured.

    Attributes:
        suite: name of the suite.
        name: name of the published model, or of the candidate.
        quantity: what the number measures.
        source: where the number was published.
        published: the published or accepted number, a fraction; a radius for average certified
            radii.
        run: SUITE/CANDIDATE@RUN that it is compared with; empty if there is none.
        measured: the measured number; None: not measured.
        n: number of samples of the run.
        is_required: whether it counts as a failure that nothing comparable was measured.
        claimed_counts: number of samples that are right by the claim, and in all; None if the claim
            is a radius or about the same samples as the run.
    """

    suite: str
    name: str
    quantity: str
    source: str
    published: float
    verdict: Verdict
    run: str = ""
    measured: float | None = None
    n: int | None = None
    claimed_counts: tuple[int, int] | None = None
    is_required: bool = False

    @property
    def required(self) -> int | None:
        """Number of samples that tells the claim from one that is 1 point lower, with power 0.9.

        It is computed when it is asked for, since it takes milliseconds for each of many claims.
        """
        return None if self.claimed_counts is None else required_sample_size(*self.claimed_counts)

    @property
    def is_radius(self) -> bool:
        """Whether the numbers are radii, and no accuracies."""
        return self.quantity.startswith("average certified radius")

    @property
    def lacks_measurement(self) -> bool:
        """Whether a required number was not measured."""
        return self.is_required and self.measured is None

    @property
    def fails(self) -> bool:
        """Whether the check fails.

        A lower number than published, a different clean accuracy, or a required number that was not
        measured.
        """
        outcome = self.verdict.outcome
        return (
            self.lacks_measurement
            or outcome == "lower than published"
            or (self.quantity == "clean" and outcome == "higher than published")
        )
