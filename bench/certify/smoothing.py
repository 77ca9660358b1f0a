"""Randomized smoothing: what is certified, and Cohen et al.'s CERTIFY.

The smoothed classifier says of an image x the class that the base classifier says most often of
x + d, d ~ N(0, sigma^2 I). If that class has probability at least p >= 1/2, no image nearer than
sigma Phi^-1(p) in L2 has another one.

Source: Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing",
ICML 2019, arXiv 1902.02918.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from bench.certify.bounds import check_failure_probability, clopper_pearson_lower
from bench.errors import InputError
from bench.store.records import FloatArray, IntArray


@dataclass(frozen=True)
class Smoothing:
    """A smoothed classifier's noise, and how much of it a certificate may take.

    Attributes:
        sigma: standard deviation of the noise, in the [0, 1] pixel scale.
        selection_samples: draws that guess the class (n0 in the paper).
        noise_samples: draws that bound its probability (n in the paper), at most.
        failure_probability: that a certificate is wrong, at most, over the draws (alpha).

    Raises:
        InputError: sigma is not above 0, a number of draws is below 1, or the failure probability
            is not in (0, 1).
    """

    sigma: float
    selection_samples: int = 100
    noise_samples: int = 100_000
    failure_probability: float = 0.001

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise InputError(f"expected sigma > 0, got {self.sigma}; 0.25, 0.5 and 1 are usual")
        for name in ("selection_samples", "noise_samples"):
            if getattr(self, name) < 1:
                raise InputError(f"expected {name} >= 1, got {getattr(self, name)}")
        check_failure_probability(self.failure_probability)


@dataclass
class Evidence:
    """What the draws have said of N samples so far; the draws that guess the class not counted.

    Attributes:
        successes: (N,) votes for the guessed class.
        drawn: (N,) votes in all.
        certified: (N, R) which of a procedure's questions are settled with yes.
        refuted: (N, R) which are settled with no.
    """

    successes: IntArray
    drawn: IntArray
    certified: npt.NDArray[np.bool_]
    refuted: npt.NDArray[np.bool_]

    @classmethod
    def none(cls, samples: int, questions: int) -> Evidence:
        """Before the first draw."""
        open_questions = np.zeros((samples, questions), dtype=np.bool_)
        zeros = np.zeros(samples, dtype=np.int64)
        return cls(zeros, zeros.copy(), open_questions, open_questions.copy())


class Procedure(Protocol):
    """Decides how many draws a sample takes, and what radius they prove."""

    @property
    def name(self) -> str:
        """As a user writes it."""

    @property
    def smoothing(self) -> Smoothing:
        """What is certified, with how much noise."""

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides its result, for the manifest."""

    def start(self, samples: int) -> Evidence:
        """The state before the first draw."""

    def next_look(self, drawn: int) -> int:
        """The number of draws, above `drawn`, at which a sample is judged next."""

    def judge(self, evidence: Evidence) -> npt.NDArray[np.bool_]:
        """Update the questions; returns which samples (N,) need no more draws."""

    def radii(self, evidence: Evidence) -> FloatArray:
        """(N,) certified radii of judged samples; NaN: abstained.

        Over the draws, the probability that the radius of a sample is larger than the truth, or
        that a class is certified that the smoothed classifier does not say, is at most
        `smoothing.failure_probability`.
        """


@dataclass(frozen=True)
class FixedProcedure:
    """CERTIFY: all draws, then the exact (Clopper-Pearson) bound of the class's probability."""

    smoothing: Smoothing
    name = "fixed"

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def start(self, samples: int) -> Evidence:
        """See `Procedure`; there are no questions but one number."""
        return Evidence.none(samples, 0)

    def next_look(self, drawn: int) -> int:
        """After all draws."""
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


def certified_radii(lower_bounds: FloatArray, sigma: float) -> FloatArray:
    """sigma Phi^-1(p) for lower bounds p of the guessed class's probability; NaN below 1/2."""
    radii = sigma * ndtri(np.maximum(lower_bounds, 0.5))
    return np.asarray(np.where(lower_bounds >= 0.5, radii, np.nan), dtype=np.float64)
