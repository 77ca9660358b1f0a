"""What a run recorded about each sample, in the form that a candidate's page draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.store.manifest import Manifest
from bench.store.records import FloatArray, IntArray
from bench.store.summary import AttackedSummary
from bench.store.tables import CONFIDENCE_COLUMNS

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CandidateRecords:
    """The tables of a run that attacked.

    Attributes:
        summary: the run's summary.
        samples, attempts: its tables; n samples.
    """

    summary: AttackedSummary
    samples: pd.DataFrame
    attempts: pd.DataFrame

    @property
    def manifest(self) -> Manifest:
        """The run's manifest."""
        return self.summary.manifest

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @cached_property
    def labels(self) -> IntArray:
        """The true classes (n,)."""
        return _whole(self.samples["label"])

    @cached_property
    def clean_prediction(self) -> IntArray:
        """The classes of the clean images (n,); -1: no answer."""
        return _whole(self.samples["clean_prediction"])

    @cached_property
    def prediction(self) -> IntArray:
        """The classes of what the attacks left (n,): the witness where a sample was broken."""
        broken = _whole(self.samples["adversarial_prediction"])
        return np.where(self.broken, broken, self.clean_prediction)

    @cached_property
    def broken(self) -> BoolArray:
        """Whether an attack broke the sample (n,)."""
        return self.samples["broken_by"].notna().to_numpy(bool)

    @cached_property
    def clean_correct(self) -> BoolArray:
        """Whether the clean image is classified correctly (n,)."""
        return self.samples["clean_correct"].to_numpy(bool)

    @cached_property
    def robust(self) -> BoolArray:
        """Whether the sample survived every attack (n,)."""
        return self.samples["robust"].to_numpy(bool)

    @cached_property
    def passes(self) -> FloatArray:
        """Passes that all attacks spent on the sample (n,), a gradient counted as one more."""
        spent = self.attempts["forward_passes"] + self.attempts["backward_passes"]
        sums = spent.groupby(self.attempts["index"]).sum()
        return self.samples["index"].map(sums).fillna(0).to_numpy(np.float64)

    @cached_property
    def steps(self) -> dict[int, int]:
        """The step at which the winning attack broke a sample, by index; unknown ones lack."""
        won = self.attempts[(self.attempts["outcome"] == "broken")].dropna(subset=["iteration"])
        return dict(zip(won["index"].tolist(), won["iteration"].tolist(), strict=True))

    @property
    def has_confidences(self) -> bool:
        """Whether the run recorded the candidate's confidence."""
        names = set(CONFIDENCE_COLUMNS)
        return names <= set(self.samples.columns) and bool(
            self.samples["clean_confidence"].notna().any()
        )

    def column(self, name: str) -> FloatArray:
        """Return a column of numbers (n,), NaN where it is null or missing."""
        if name not in self.samples:
            return np.full(self.n, np.nan)
        return self.samples[name].to_numpy(dtype=np.float64, na_value=np.nan)

    def class_name(self, label: int) -> str:
        """Return the name of a class; "no answer" for -1."""
        return class_name(self.classes, label)

    @cached_property
    def classes(self) -> Sequence[str]:
        """Names of the classes, as far as they are recorded."""
        names = self.manifest.dataset.classes or self.manifest.information.get("classes") or ()
        return tuple(str(name) for name in names)

    @cached_property
    def class_count(self) -> int:
        """Number of classes, at least of those that occur."""
        seen = [int(values.max()) for values in (self.labels, self.prediction) if len(values)]
        return max(len(self.classes), 1 + max(seen, default=0))


def class_name(classes: Sequence[str], label: int) -> str:
    """Return the name of a class, its number where no name is known."""
    if label < 0:
        return "no answer"
    return classes[label] if label < len(classes) else str(label)


def _whole(column: pd.Series[int]) -> IntArray:
    values: IntArray = column.fillna(-1).to_numpy().astype(np.int64)
    return values
