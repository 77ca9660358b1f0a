"""What is kept of a run: plain data, shared by engines, runner, store, report and checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from bench.suites import ThreatModel

SCHEMA_VERSION = 1

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ImageArray = npt.NDArray[np.float32]
TextArray = npt.NDArray[np.str_]

Outcome = Literal["broken", "survived", "skipped", "failed"]


@dataclass(frozen=True)
class CleanResults:
    """Predictions without attack, one entry a sample.

    Attributes:
        index: (n,) places in the data set.
        label: (n,) true classes.
        prediction: (n,) predicted classes.
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
        outcome: (n,) of `Outcome`.
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
class Witnesses:
    """Adversarial images, each the proof that a sample is not robust.

    Attributes:
        index: (n,) places in the data set.
        attack: (n,) names of the attacks that found them.
        prediction: (n,) what the candidate says of the image; never the label.
        images: (n, C, H, W) float32, exactly the images that were confirmed.
    """

    index: IntArray
    attack: TextArray
    prediction: IntArray
    images: ImageArray


@dataclass(frozen=True)
class Certificates:
    """What is proved of samples, one entry a sample.

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
    """What a sweep says of a mix, one entry a sample at one weight.

    Attributes:
        alpha: (n,) weights of the robust base.
        index: (n,) places in the data set.
        label: (n,) true classes.
        clean_prediction: (n,) predicted classes without attack.
        broken_by: (n,) names of attacks; empty where nothing broke the sample.
        adversarial_prediction: (n,) what the mix says of the witness; -1 where there is none.
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


@dataclass(frozen=True)
class Block:
    """What one finished piece of work brought; it is saved whole or not at all.

    Attributes:
        key: names the piece within its run, e.g. "apgd-ce-00003".
        seconds: wall-clock time of the piece.
    """

    key: str
    seconds: float
    clean: CleanResults | None = None
    attempts: Attempts | None = None
    witnesses: Witnesses | None = None
    certificates: Certificates | None = None
    sweep: SweepResults | None = None
    starts: SweepStarts | None = None
    record: Mapping[str, float | str] = field(default_factory=dict)
    """How the engine did it; over a run's blocks numbers add up, and texts are alike."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetRecord(_Record):
    """Which data: name, digest of images, labels and order, and the size of the whole data set."""

    name: str
    sha256: str
    size: int


class Selection(_Record):
    """Which samples of the protocol's: `all`, the `first` n, `every` step-th, n in all, n drawn at
    `random` or n `listed`.

    A random selection is drawn without replacement from `population` samples, all of the
    protocol's, keyed by `seed`. One that names a `round` grows
    by so many samples at a time, n at most, and may stop early: when the interval of the robust
    accuracy is at most `until_width` wide, or when `budget_seconds` are spent.
    """

    kind: Literal["all", "first", "every", "random", "listed"]
    n: int
    step: int | None = None
    seed: int | None = None
    population: int | None = None
    round: int | None = None
    until_width: float | None = None
    """A fraction: 0.03 is three points."""
    budget_seconds: float | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What a selection does not have is no part of its record, nor of the run's digest.
        return {name: value for name, value in handler(self).items() if value is not None}


class Manifest(_Record):
    """What decides a run's result, and where it was made."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["evaluation", "certification", "sweep", "imported-log", "imported-witnesses"] = (
        "evaluation"
    )
    suite: str
    suite_version: int
    candidate: str
    dataset: DatasetRecord
    threat_model: ThreatModel
    protocol: str
    attacks: list[dict[str, Any]]
    engine: str
    engine_settings: dict[str, Any]
    """Settings that decide the result: for the reference engine its batch size."""
    precision: str
    seed: int
    selection: Selection
    overrides: dict[str, Any]
    """What differs from the suite as defined; empty: ranked, otherwise a variant."""
    weights_sha256: dict[str, str]
    definition_sha256: str
    repetition: int = 0
    """Counts runs that were made again: for --again, or since the same digests do not make the
    candidate the same (`bench.same_candidate`)."""
    suite_title: str = ""
    environment: dict[str, Any] = {}
    information: dict[str, Any] = {}
    """Architecture, paper, training of the candidate."""
    unidentified: list[str] | None = None
    """What of the candidate could not be digested, a line each; None: of an earlier version of this
    program, whose digests left out much of what decides the answers."""
    fingerprint: list[str] | None = None
    """The candidate's logits on the probe images, a line an image; None: they vary."""

    @property
    def run(self) -> str:
        """Short digest of everything that decides the result: the run's name."""
        content = self.model_dump(
            mode="json",
            # Where a run is made, and what depends on it: logits are rounded in many ways.
            exclude={"suite_title", "environment", "information", "unidentified", "fingerprint"},
        )
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Flag(_Record):
    """A reason to doubt a number."""

    name: str
    measured: float | str
    threshold: float | str
    meaning: str
    advice: str


class AttackSummary(_Record):
    """What one attack of the sequence did."""

    name: str
    attempted: int
    broken: int
    accuracy_after: float
    seconds: float
    forward_passes: int
    backward_passes: int


class Convergence(_Record):
    """What attacking on with doubled budgets brought."""

    shares_broken: list[float]
    """Of the survivors, by each doubling."""
    expected_share: float
    """Of the survivors, that another doubling would break, extrapolated."""
    converged: bool
    curve: list[tuple[float, float]]
    """Passes a sample (a gradient counts as one) spent so far, and the accuracy they left."""


class Interval(_Record):
    """A 95% confidence interval of a fraction."""

    low: float
    high: float
    kind: Literal["binomial", "hypergeometric", "anytime"] = "binomial"
    """Of what: the population of images (binomial), or the finite test set of which the samples are
    a random part, of a size fixed in advance (hypergeometric) or found on the way (anytime)."""

    @property
    def width(self) -> float:
        """Its length, a fraction."""
        return self.high - self.low


class Certified(_Record):
    """What a certification proved; accuracies are fractions in [0, 1]."""

    sigma: float
    average_certified_radius: float
    """Mean over all samples of the radius where the prediction is right, else of 0."""
    accuracy_at_radius: dict[str, float]
    """Right with at least this radius, written with two decimals."""
    abstained: float
    """Samples of which the draws did not tell the class."""
    mean_noise_samples: float | None
    """Draws that bounded a sample's probability; None where a log does not say."""


class SweepPoint(_Record):
    """A mix at one weight; accuracies are fractions in [0, 1]."""

    alpha: float
    clean_accuracy: float
    attacked_accuracy: float
    """After the sweep's own attack, which is a cheap one: an upper bound."""


def best_point(points: Sequence[SweepPoint]) -> SweepPoint:
    """The weight at which a sweep's attacked accuracy is highest."""
    return max(points, key=lambda point: (point.attacked_accuracy, point.clean_accuracy))


class Summary(_Record):
    """A finished run in short, derived from its tables; accuracies are fractions in [0, 1]."""

    schema_version: int = SCHEMA_VERSION
    manifest: Manifest
    run: str
    n_examples: int
    clean_accuracy: float
    autoattack_accuracy: float | None
    """After standard AutoAttack alone; None if an attack that it does not have ran before it."""
    robust_accuracy: float
    """After every attack of the run; of a certification, what is certified at the threat model's
    radius, which no attack can undo."""
    eight_bit_robust_accuracy: float | None = None
    """After every attack, if a witness counts only as an image file of 8 bits would hold it."""
    confidence_intervals: dict[str, Interval]
    attacks: list[AttackSummary]
    flags: list[Flag]
    flags_checked: Literal["basic", "full"] = "basic"
    """Which flags were measured: `full` includes those that need attacks of their own. They may be
    added to a finished run; its numbers stay."""
    engine_record: dict[str, float | str] = {}
    """How the engine did it: passes the reference would have used, batch fill, and the like."""
    convergence: Convergence | None = None
    """Of runs that attacked until convergence."""
    certified: Certified | None = None
    """Of a certification or an imported log."""
    sweep: list[SweepPoint] | None = None
    """Of a sweep, by ascending weight; its accuracies are those of `best_point`."""
    seconds: float
    """Time spent on blocks, added up over restarts."""
    started: str
    finished: str

    @property
    def is_variant(self) -> bool:
        """Whether something differs from the suite as defined; variants are not ranked."""
        return bool(self.manifest.overrides)


@dataclass(frozen=True)
class Progress:
    """Where an evaluation stands, for displays; one is sent after each block and at starts.

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
