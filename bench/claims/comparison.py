"""What a comparison of a measured number with a published one is."""

from __future__ import annotations

from dataclasses import dataclass

from bench.claims.verdict import Verdict
from bench.statistics import required_sample_size


@dataclass(frozen=True)
class Check:
    """One published number and what was measured.

    Attributes:
        suite: its name; for certified tables "certified".
        name: of the model there, or of the candidate.
        quantity: what the number is.
        source: who says so.
        published: a fraction (a radius for the average certified radius).
        run: SUITE/CANDIDATE@RUN that it is held against; empty if there is none.
        measured: a fraction; None: not measured.
        n: samples of the run.
        claimed_counts: how many samples the claim says are right, and of how many; None if it is
            not about a share of a test set, or is about the same samples.
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

    @property
    def required(self) -> int | None:
        """Samples that tell the claim from one that is 1 point lower with power 0.9.

        It takes milliseconds to compute, and there are hundreds of claims.
        """
        return None if self.claimed_counts is None else required_sample_size(*self.claimed_counts)

    @property
    def is_radius(self) -> bool:
        """Whether the numbers are radii, and no accuracies."""
        return self.quantity.startswith("average certified radius")

    @property
    def fails(self) -> bool:
        """Whether it calls for exit code 4: lower than published, or clean and different."""
        outcome = self.verdict.outcome
        return outcome == "lower than published" or (
            self.quantity == "clean" and outcome == "higher than published"
        )
