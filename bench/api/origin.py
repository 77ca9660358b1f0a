"""What an evaluation was made of, and how to find it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is slow to import, and records are read without it
    from bench.candidates import CandidateReference
    from bench.data import Dataset
    from bench.suites import Suite


@dataclass(frozen=True)
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
