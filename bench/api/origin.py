"""What an evaluation was made of, and how to find it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is slow to import, and records are read without it
    from bench.candidates import CandidateReference
    from bench.data import Dataset
    from bench.suites import Suite


@dataclass(frozen=True, repr=False)
class Origin:
    """What an evaluation was made of.

    Attributes:
        suite: None: to be loaded by the name in the records.
        reference: the candidate; None: to be found by that name.
        dataset: the samples of the run; None: to be loaded.
        data_dir, model_dir: None: the usual ones.
        trust_code: whether a submission's own code may run.
    """

    suite: Suite | None = None
    reference: CandidateReference | None = None
    dataset: Dataset | None = None
    data_dir: Path | None = None
    model_dir: Path | None = None
    trust_code: bool = False

    def __repr__(self) -> str:
        """Return names in place of the suite, the candidate and the samples, which are long."""
        given = {
            "suite": self.suite and self.suite.name,
            "candidate": self.reference and self.reference.name,
            "dataset": self.dataset and f"{self.dataset.name}, {len(self.dataset):,} samples",
            "data_dir": self.data_dir and str(self.data_dir),
            "model_dir": self.model_dir and str(self.model_dir),
            "trust_code": self.trust_code,
        }
        parts = [f"{name}={value!r}" for name, value in given.items() if value]
        return f"Origin({', '.join(parts)})"
