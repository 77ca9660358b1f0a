"""Results that engines return block by block: plain arrays, one entry for each sample or attempt.

Arrays have no null: in blocks an unknown integer is `UNKNOWN`, and an absent text is empty. The
tables of a run (`bench.store.tables`) have nulls instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ImageArray = npt.NDArray[np.float32]
TextArray = npt.NDArray[np.str_]

AttemptOutcome = Literal["broken", "survived", "skipped", "failed"]

FAILED: AttemptOutcome = "failed"
"""The candidate raised an error on the sample: nothing is known of it, and it is not robust."""

UNKNOWN = -1

ABSTAINED = -1
"""The prediction where the draws do not determine the smoothed classifier's class."""

DRAWS_WITHOUT_CLASS = "draws_without_class"
"""Key in a certification's engine record: the number of draws whose logits were not finite."""


@dataclass(frozen=True)
class CleanResults:
    """Predictions without attack, one entry for each sample.

    Attributes:
        index: (n,) places in the data set.
        label: (n,) true classes.
        prediction: (n,) predicted classes; -1 where the logits are not finite.
    """

    index: IntArray
    label: IntArray
    prediction: IntArray


@dataclass(frozen=True)
class Attempts:
    """Attempts: each entry is one attack on one sample.

    Attributes:
        index: (n,) places in the data set.
        attack: (n,) names.
        outcome: (n,) values of `AttemptOutcome`.
        iteration: (n,) steps at which the samples broke, -1 where unknown.
        forward_passes: (n,) passes without gradient; engines that count batches divide each count
            among the batch's samples.
        backward_passes: (n,) numbers of gradients.
        seconds: (n,) shares of the wall-clock time.
    """

    index: IntArray
    attack: TextArray
    outcome: TextArray
    iteration: IntArray
    forward_passes: FloatArray
    backward_passes: FloatArray
    seconds: FloatArray


@dataclass(frozen=True)
class Margins:
    """How near attempts came to breaking their samples, one entry an attempt.

    Attributes:
        index: (n,) places in the data set.
        start: (n,) the margin of another class over the right one where the search began, in
            logits: negative where the right class leads.
        best: (n,) the largest margin that the search found.
    """

    index: IntArray
    start: FloatArray
    best: FloatArray


@dataclass(frozen=True)
class Witnesses:
    """Adversarial images; each proves that a sample is not robust.

    Attributes:
        index: (n,) places in the data set.
        attack: (n,) names of the attacks that found them.
        prediction: (n,) classes predicted for the images, never the labels; -1 where the logits are
            not finite.
        images: (n, C, H, W) float32, bit for bit the images that were confirmed.
    """

    index: IntArray
    attack: TextArray
    prediction: IntArray
    images: ImageArray


@dataclass(frozen=True)
class Smallest:
    """The smallest known perturbations, one entry for each sample that is right without attack.

    Attributes:
        index: (n,) places in the data set.
        radius: (n,) of the smallest ball around the clean image in which an adversarial image is
            known; infinite where none is known at any radius.
        attack: (n,) names of the attacks that found it; empty where none is known.
        forward_passes: (n,) passes without gradient that the search took.
        backward_passes: (n,) numbers of gradients.
        seconds: (n,) shares of the wall-clock time.
    """

    index: IntArray
    radius: FloatArray
    attack: TextArray
    forward_passes: FloatArray
    backward_passes: FloatArray
    seconds: FloatArray


@dataclass(frozen=True)
class Certificates:
    """Certificates, one entry for each sample.

    Attributes:
        index: (n,) places in the data set.
        label: (n,) true classes.
        prediction: (n,) the smoothed classifier's classes; -1 where it abstained.
        radius: (n,) L2 radii within which the prediction cannot change; 0 where it abstained.
        certified_count: (n,) votes for the predicted class; -1 where unknown.
        noise_samples: (n,) votes in all; -1 where unknown.
    """

    index: IntArray
    label: IntArray
    prediction: IntArray
    radius: FloatArray
    certified_count: IntArray
    noise_samples: IntArray


@dataclass(frozen=True)
class SweepResults:
    """Results of a sweep; each entry is one sample at one weight.

    Attributes:
        alpha: (n,) weights of the robust base.
        index: (n,) places in the data set.
        label: (n,) true classes.
        clean_prediction: (n,) predicted classes without attack; -1 where the mix is not finite.
        broken_by: (n,) names of attacks; empty where nothing broke the sample.
        adversarial_prediction: (n,) classes that the mix predicts for the witnesses; -1 where it
            predicts none, or there is no witness (`broken_by` is empty).
        found_at: (n,) the weight at which the witness was found; NaN where there is none.
    """

    alpha: FloatArray
    index: IntArray
    label: IntArray
    clean_prediction: IntArray
    broken_by: TextArray
    adversarial_prediction: IntArray
    found_at: FloatArray


@dataclass(frozen=True)
class SweepStarts:
    """The best points of searches that broke nothing; searches at the next weight start from them.

    Attributes:
        index: (n,) places in the data set.
        perturbation: (n, C, H, W) float16, differences from the clean images.
    """

    index: IntArray
    perturbation: npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class Block:
    """The results of one finished piece of work; it is saved whole or not at all.

    A kind of run adds its own fields: records of arrays, or None.

    Attributes:
        key: name of the piece within its run, e.g. "01-apgd-ce-00003".
        seconds: wall-clock time of the piece.
        record: the engine's own figures. Over a run's blocks, numbers are added up and texts are
            equal.
    """

    key: str
    seconds: float
    record: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AttackBlock(Block):
    """Predictions without attack, or the results of an attack."""

    clean: CleanResults | None = None
    attempts: Attempts | None = None
    witnesses: Witnesses | None = None
    margins: Margins | None = None
    smallest: Smallest | None = None
    smallest_images: Witnesses | None = None


@dataclass(frozen=True, kw_only=True)
class CertificationBlock(Block):
    """Certificates of some samples."""

    certificates: Certificates


@dataclass(frozen=True)
class Measurements:
    """Numbers that are measured on samples.

    Attributes:
        index: (n,) places in the data set.
        values: (n, k), in columns that whoever asked knows.
    """

    index: IntArray
    values: FloatArray


@dataclass(frozen=True, kw_only=True)
class MeasurementBlock(Block):
    """Measurements of some samples; no run stores them as they are."""

    measurements: Measurements


@dataclass(frozen=True, kw_only=True)
class SweepBlock(Block):
    """Results at one weight; the last block holds the results of all weights."""

    results: SweepResults
    attempts: Attempts | None = None
    witnesses: Witnesses | None = None
    starts: SweepStarts | None = None
