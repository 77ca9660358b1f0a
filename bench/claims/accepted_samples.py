"""What became of each sample in accepted runs.

Accuracies alone cannot tell two candidates apart as well as the samples can on which they differ.
`accepted_samples.csv` has one row for each accepted evaluation whose samples are kept, and
`accepted_certified.csv` one for each accepted certification.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from pydantic import Field, field_validator, model_validator

from bench.claims.accepted import digests
from bench.claims.rows import read_rows
from bench.errors import InputError
from bench.store.files import write
from bench.store.summary import CertifiedSummary, Summary
from bench.store.tables import certificates_of
from bench.validation import StrictModel

SAMPLES_FILE = "accepted_samples.csv"
CERTIFIED_FILE = "accepted_certified.csv"
NONE = "-"
"""Stands for a sample without a certificate for its class, or without a witness inside it."""

Bits = Annotated[str, Field(pattern="^[01]+$", description="a row of 0 and 1", examples=["0110"])]
Step = Annotated[int, Field(ge=1)]
Row = TypeVar("Row", bound=StrictModel)


class KeptRun(StrictModel):
    """What both files say of a run."""

    suite: Annotated[str, Field(min_length=1, examples=["digits-l2"])]
    suite_version: int
    candidate: str
    weights_sha256: str
    """As in `accepted.csv`."""
    protocol: str
    engine: str
    seed: int
    step: Step
    """1 for the first samples of the data set, k for every k-th."""
    run: str
    finished: str
    bench_version: str


class SampleOutcomes(KeptRun):
    """An evaluation's samples, in the order of the data set.

    Accepted runs stand in `accepted.csv` too, express evaluations here only.
    """

    clean: Bits
    """1 where the sample is right without an attack."""
    robust: Bits
    """1 where it stood every attack."""

    @model_validator(mode="after")
    def _one_length(self) -> SampleOutcomes:
        if len(self.clean) != len(self.robust):
            raise ValueError(
                f"expected as many digits in clean and robust, got {len(self.clean)} and "
                f"{len(self.robust)}"
            )
        if any(robust > clean for robust, clean in zip(self.robust, self.clean, strict=True)):
            raise ValueError("expected 0 in robust wherever clean is 0, got 1")
        return self

    @property
    def index(self) -> NDArray[np.int64]:
        """The places (n,) in the data set."""
        return np.arange(len(self.clean)) * self.step

    def standing(self, quantity: Literal["clean", "robust"]) -> NDArray[np.bool_]:
        """Return which samples count for the accuracy `clean` or `robust`, (n,)."""
        digits: str = getattr(self, quantity)
        return np.array([digit == "1" for digit in digits])


class AcceptedCertification(KeptRun):
    """A certification that was reviewed and accepted, with its samples' radii."""

    procedure: str
    sigma: Annotated[float, Field(gt=0)]
    """Standard deviation of the noise, in the [0, 1] pixel scale."""
    noise_samples: Annotated[int, Field(ge=1)]
    """Draws for each sample, at most."""
    radii: str
    """For each sample its certified L2 radius, and `-` where the prediction is wrong or none."""
    fresh_votes: Annotated[str, Field(pattern="^[-01]+$")]
    """What votes say at the adversarial images inside a sample's radius, a sign for each sample: 1
    if its certificate stands there, 0 if not, and `-` where there is no such image."""

    @property
    def n_examples(self) -> int:
        """Number of samples."""
        return len(self.fresh_votes)

    @field_validator("radii")
    @classmethod
    def _radii(cls, value: str) -> str:
        for word in value.split():
            if word != NONE and not (word.replace(".", "", 1).isdigit()):
                raise ValueError(f"expected radii, or {NONE} for none, got {word!r}")
        if not value.split():
            raise ValueError("expected a radius for each sample, got none")
        return value

    @model_validator(mode="after")
    def _as_many_signs(self) -> AcceptedCertification:
        if len(self.fresh_votes) != len(self.radii.split()):
            raise ValueError(
                f"expected as many signs in fresh_votes as radii, got {len(self.fresh_votes)} and "
                f"{len(self.radii.split())}"
            )
        return self

    def certificates(self) -> RadiiOfSamples:
        """Return the radii of the samples."""
        words = self.radii.split()
        return RadiiOfSamples(
            index=np.arange(len(words)) * self.step,
            radius=np.array([-1.0 if word == NONE else float(word) for word in words]),
            asked=np.array([sign != NONE for sign in self.fresh_votes]),
            contradicted=np.array([sign == "0" for sign in self.fresh_votes]),
            weights_sha256=self.weights_sha256,
        )


@dataclass(frozen=True)
class RadiiOfSamples:
    """Certified radii of a data set's samples.

    Attributes:
        index: (n,) places in the data set.
        radius: (n,) certified L2 radius; -1 where the prediction is wrong or there is none.
        asked: (n,) whether fresh votes were taken at adversarial images inside the radius.
        contradicted: (n,) whether they contradict the certificate.
        weights_sha256: as in `KeptRun`; "" for a published log.
    """

    index: NDArray[np.int64]
    radius: NDArray[np.float64]
    asked: NDArray[np.bool_]
    contradicted: NDArray[np.bool_]
    weights_sha256: str = ""

    @cached_property
    def counted(self) -> NDArray[np.float64]:
        """What each sample adds to the average certified radius, (n,): 0 where it is wrong."""
        return np.maximum(self.radius, 0.0)

    def some(self, rows: NDArray[np.intp]) -> RadiiOfSamples:
        """Return the samples in these rows (m,) alone."""
        return replace(
            self,
            index=self.index[rows],
            radius=self.radius[rows],
            asked=self.asked[rows],
            contradicted=self.contradicted[rows],
        )

    def at(self, radius: float) -> NDArray[np.bool_]:
        """Return which samples are right and certified at a radius, (n,)."""
        return self.radius >= radius


def sample_outcomes(summary: Summary, samples: DataFrame) -> SampleOutcomes:
    """Return what became of the samples of an evaluation.

    Args:
        samples: the run's table.

    Raises:
        InputError: the samples are neither the first ones nor every k-th.
    """
    ordered = samples.sort_values("index")
    return SampleOutcomes(
        **_identity(summary),
        clean=_bits(ordered["clean_correct"]),
        robust=_bits(ordered["robust"]),
    )


def accepted_certification(
    summary: CertifiedSummary, samples: DataFrame, stands: Mapping[int, bool]
) -> AcceptedCertification:
    """Return a finished certification as a row of the file.

    Args:
        samples: the run's table.
        stands: by place in the data set, whether the certificate stood fresh votes; samples without
            an adversarial image inside their radius are not there.

    Raises:
        InputError: the samples are neither the first ones nor every k-th.
    """
    certificates = certificates_of(samples.sort_values("index"))
    right = certificates.prediction == certificates.label
    settings = summary.manifest.engine_settings
    return AcceptedCertification(
        **_identity(summary),
        procedure=str(settings["procedure"]),
        sigma=float(settings["sigma"]),
        noise_samples=int(settings["noise_samples"]),
        radii=" ".join(
            # Cut off, not rounded: a certificate must not grow.
            f"{np.floor(radius * 1e5) / 1e5:.5f}" if correct else NONE
            for radius, correct in zip(certificates.radius, right, strict=True)
        ),
        fresh_votes="".join(
            str(int(stands[index])) if index in stands else NONE
            for index in certificates.index.tolist()
        ),
    )


def load_sample_outcomes(path: Path | None = None) -> list[SampleOutcomes]:
    """Return the kept samples of accepted evaluations, of the package or of another file.

    Raises:
        InputError: the file cannot be read, or a row is wrong (file and row are named).
    """
    return [row for _, row in read_rows(path or _shipped(SAMPLES_FILE), SampleOutcomes)]


def load_accepted_certifications(path: Path | None = None) -> list[AcceptedCertification]:
    """Return the accepted certifications of the package, or of another file.

    Raises:
        InputError: the file cannot be read, or a row is wrong (file and row are named).
    """
    return [row for _, row in read_rows(path or _shipped(CERTIFIED_FILE), AcceptedCertification)]


def write_sample_outcomes(rows: Sequence[SampleOutcomes], path: Path) -> None:
    """Write rows as a file that `load_sample_outcomes` reads, sorted by candidate."""
    _write(sorted(rows, key=_order), SampleOutcomes, path)


def write_accepted_certifications(rows: Sequence[AcceptedCertification], path: Path) -> None:
    """Write rows as a file that `load_accepted_certifications` reads, sorted by candidate."""
    _write(sorted(rows, key=_order), AcceptedCertification, path)


def _order(row: KeptRun) -> tuple[str, ...]:
    return row.suite, row.candidate, row.protocol, row.engine, row.run


def _write(rows: Sequence[Row], model: type[Row], path: Path) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(model.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    write(path, text.getvalue().encode())


def _shipped(name: str) -> Path:
    return Path(str(resources.files("bench.claims") / name))


def _identity(summary: Summary) -> dict[str, Any]:
    """Return the fields of `KeptRun`.

    Raises:
        InputError: the samples are neither the first ones nor every k-th.
    """
    manifest = summary.manifest
    selection = manifest.selection
    if selection.kind not in ("all", "first", "every"):
        raise InputError(
            f"run {summary.run}: expected all samples, the first ones or every k-th, got "
            f"{selection.kind} ones"
        )
    return {
        "suite": manifest.suite,
        "suite_version": manifest.suite_version,
        "candidate": manifest.candidate,
        "weights_sha256": digests(manifest.weights_sha256),
        "protocol": manifest.protocol,
        "engine": manifest.engine,
        "seed": manifest.seed,
        "step": selection.step or 1,
        "run": summary.run,
        "finished": summary.finished,
        "bench_version": str(manifest.environment.get("packages", {}).get("tradeoff-bench")),
    }


def _bits(values: Any) -> str:
    return "".join("1" if value else "0" for value in values)
