"""Calibration: does a candidate's confidence say how often it is right?

Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML
    2017, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.pages.candidate_records import BoolArray, CandidateRecords
from bench.store.records import FloatArray, IntArray

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy in bins of equal width over [0, 1].

    Attributes:
        count: (b,) samples in each bin.
        confidence: (b,) mean confidence; NaN in an empty bin.
        accuracy: (b,) share of right samples; NaN in an empty bin.
    """

    count: IntArray
    confidence: FloatArray
    accuracy: FloatArray

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.count.sum())

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.nansum(gaps * self.count) / max(self.n, 1))

    @property
    def mean_confidence(self) -> float:
        """The mean confidence over all samples."""
        return float(np.nansum(self.confidence * self.count) / max(self.n, 1))

    @property
    def mean_accuracy(self) -> float:
        """The share of right samples."""
        return float(np.nansum(self.accuracy * self.count) / max(self.n, 1))


def reliability(confidence: FloatArray, right: BoolArray, bins: int = BINS) -> Reliability:
    """Sort predictions into bins by their confidence.

    Args:
        confidence: (n,) in [0, 1]; samples with NaN are left out.
        right: (n,) whether the prediction is right.
    """
    known = np.isfinite(confidence)
    confidence, right = confidence[known], right[known]
    # As in the source, a bin excludes its lower end and includes its upper one.
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=confidence, minlength=bins) / count
        share = np.bincount(place, weights=right.astype(np.float64), minlength=bins) / count
    return Reliability(count, mean, share)


def clean_reliability(records: CandidateRecords) -> Reliability:
    """Return the calibration on clean images."""
    return reliability(records.column("clean_confidence"), records.clean_correct)


def attacked_confidence(records: CandidateRecords) -> FloatArray:
    """Return the confidence (n,) on what the attacks left: the clean image of unbroken samples."""
    return np.where(
        records.broken, records.column("adversarial_confidence"), records.column("clean_confidence")
    )


def attacked_reliability(records: CandidateRecords) -> Reliability:
    """Return the calibration on what the attacks left."""
    return reliability(attacked_confidence(records), records.robust)
