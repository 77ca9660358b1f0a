"""What decides how many draws a sample takes and which radius they prove.

`FixedProcedure` is that of CERTIFY (`bench.certification.smoothing.certify`), for many samples at
once; `bench.certification.sequential` stops earlier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.certification.smoothing import Smoothing, certified_radii
from bench.statistics.clopper_pearson import clopper_pearson_lower
from bench.store.records import FloatArray, IntArray


@dataclass
class Evidence:
    """The votes of N samples so far, without the draws that select the class.

    Attributes:
        successes: (N,) votes for the selected class.
        drawn: (N,) draws, with those that voted for no class.
        certified: (N, R) which of a procedure's questions are settled with yes.
        refuted: (N, R) which are settled with no.
    """

    successes: IntArray
    drawn: IntArray
    certified: npt.NDArray[np.bool_]
    refuted: npt.NDArray[np.bool_]

    @classmethod
    def none(cls, samples: int, questions: int) -> Evidence:
        """Return the evidence before the first draw."""
        open_questions = np.zeros((samples, questions), dtype=np.bool_)
        zeros = np.zeros(samples, dtype=np.int64)
        return cls(zeros, zeros.copy(), open_questions, open_questions.copy())


class Procedure(Protocol):
    """Decides how many draws a sample takes and which radius they prove."""

    @property
    def name(self) -> str:
        """The name that a user gives it."""

    @property
    def smoothing(self) -> Smoothing:
        """The noise, and the number of draws."""

    @property
    def settings(self) -> dict[str, Any]:
        """The other settings that decide its result, for the manifest."""

    def start(self, samples: int) -> Evidence:
        """Return the evidence before the first draw."""

    def next_look(self, drawn: int) -> int:
        """Return the number of draws, above `drawn`, at which a sample is judged next."""

    def judge(self, evidence: Evidence) -> npt.NDArray[np.bool_]:
        """Update the questions; return which samples (N,) need no more draws."""

    def radii(self, evidence: Evidence) -> FloatArray:
        """Return the certified radii (N,) of judged samples; NaN: abstained.

        Over the draws, the probability that a sample's radius is larger than the truth, or that
        the smoothed classifier has another class than the selected one, is at most
        `smoothing.failure_probability`.
        """


@dataclass(frozen=True)
class FixedProcedure:
    """CERTIFY: all draws, then the exact (Clopper-Pearson) bound of the class's probability."""

    smoothing: Smoothing
    name = "fixed"

    @property
    def settings(self) -> dict[str, Any]:
        """See `Procedure`; there are no others."""
        return {}

    def start(self, samples: int) -> Evidence:
        """See `Procedure`; there are no questions."""
        return Evidence.none(samples, 0)

    def next_look(self, drawn: int) -> int:
        """See `Procedure`: a sample is judged once, after all draws."""
        return self.smoothing.noise_samples

    def judge(self, evidence: Evidence) -> npt.NDArray[np.bool_]:
        """See `Procedure`."""
        return np.asarray(evidence.drawn >= self.smoothing.noise_samples, dtype=np.bool_)

    def radii(self, evidence: Evidence) -> FloatArray:
        """See `Procedure`."""
        bounds = clopper_pearson_lower(
            evidence.successes, evidence.drawn, self.smoothing.failure_probability
        )
        return certified_radii(bounds, self.smoothing.sigma)
