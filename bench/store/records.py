"""Results that engines return block by block: plain arrays, one entry a sample or an attempt.

In blocks an unknown whole number is `UNKNOWN` and an absent text is empty, since
arrays have no null. The tables of a run (`bench.store.tables`) hold nulls instead.
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

UNKNOWN = -1

ABSTAINED = -1
"""The prediction where the draws do not determine the smoothed classifier's class."""

DRAWS_WITHOUT_CLASS = "draws_without_class"
"""In a certification's engine record: draws whose logits were not finite, if there were any."""


@dataclass(frozen=True)
class CleanResults:
    """Predictions without attack, one entry a sample.

    Attributes:
        index: (n,) places in the data set.
        label: (n,) true classes.
        prediction: (n,) predicted classes; -1: none, the logits are not finite.
    """

    index: IntArray
    label: IntArray
    prediction: IntArray


@dataclass(frozen=True)
class Attempts:
    """One attack on one sample an entry.

    Attributes:
        index: (n,) places in the data set.
        attack: (n,) names.
        outcome: (n,) of `AttemptOutcome`.
        iteration: (n,) step at which the sample broke, -1 where that is not known.
        forward_passes: (n,) passes without gradient; for engines that count by batch, its share.
        backward_passes: (n,) gradients.
        seconds: (n,) share of the wall-clock time.
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
    """Adversarial images, each the proof that a sample is not robust.

    Attributes:
        index: (n,) places in the data set.
        attack: (n,) names of the attacks that found them.
        prediction: (n,) what the candidate says of the image; never the label; -1: no class, the
            logits are not finite.
        images: (n, C, H, W) float32, exactly the images that were confirmed.
    """

    index: IntArray
    attack: TextArray
    prediction: IntArray
    images: ImageArray


@dataclass(frozen=True)
class Certificates:
    """Certificates, one entry a sample.

    Attributes:
        index: (n,) places in the data set.
        label: (n,) true classes.
        prediction: (n,) the smoothed classifier's classes; -1 where it abstained.
        radius: (n,) L2 radii within which the prediction cannot change; 0 where it abstained.
        certified_count: (n,) votes for the predicted class; -1 where that is not known.
        noise_samples: (n,) of how many votes; -1 where that is not known.
    """

    index: IntArray
    label: IntArray
    prediction: IntArray
    radius: FloatArray
    certified_count: IntArray
    noise_samples: IntArray


@dataclass(frozen=True)
class SweepResults:
    """Results of a sweep, one entry a sample at one weight.

    Attributes:
        alpha: (n,) weights of the robust base.
        index: (n,) places in the data set.
        label: (n,) true classes.
        clean_prediction: (n,) predicted classes without attack; -1: none, the mix is not finite.
        broken_by: (n,) names of attacks; empty where nothing broke the sample.
        adversarial_prediction: (n,) what the mix says of the witness; -1: no class, or there is no
            witness (`broken_by` is empty).
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
    """The best points of searches that broke nothing: where those at the next weight start.

    Attributes:
        index: (n,) places in the data set.
        perturbation: (n, C, H, W) float16, from the clean image.
    """

    index: IntArray
    perturbation: npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class Block:
    """The results of one finished piece of work; it is saved whole or not at all.

    A kind of run adds its own parts: fields that are records of arrays, or None.

    Attributes:
        key: names the piece within its run, e.g. "01-apgd-ce-00003".
        seconds: wall-clock time of the piece.
        record: the engine's own figures; over a run's blocks numbers add up, and texts are equal.
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


@dataclass(frozen=True, kw_only=True)
class CertificationBlock(Block):
    """Certificates of some samples."""

    certificates: Certificates


@dataclass(frozen=True, kw_only=True)
class SweepBlock(Block):
    """Results at one weight; the last block holds the results of all weights."""

    results: SweepResults
    attempts: Attempts | None = None
    witnesses: Witnesses | None = None
    starts: SweepStarts | None = None
