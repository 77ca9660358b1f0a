"""Accepted results: a run each, with which later runs of the same candidate are compared.

`accepted.csv` has one row for each run; that of the package has the project's own, for the shipped
submissions. A change that moves one of these numbers has to change the row as well.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bench.claims.rows import read_rows
from bench.errors import InputError
from bench.store.files import write
from bench.store.summary import AttackedSummary
from bench.validation import StrictModel

FILE = "accepted.csv"

Fraction = Annotated[float, Field(ge=0, le=1)]


class AcceptedResult(StrictModel):
    """A run that was reviewed and accepted; accuracies are fractions in [0, 1]."""

    suite: Annotated[str, Field(min_length=1, examples=["digits-linf"])]
    suite_version: int
    candidate: str
    weights_sha256: str
    """The digest of the weights; for a mix, `part=digest` for each part, separated by spaces."""
    protocol: str
    engine: str
    precision: str
    batch_size: str
    """Batch size of the reference engine, whose result depends on it; empty for other engines."""
    seed: int
    n_examples: Annotated[int, Field(ge=1)]
    clean_accuracy: Fraction
    autoattack_accuracy: Fraction
    robust_accuracy: Fraction
    run: str
    finished: str
    bench_version: str


def accepted_row(summary: AttackedSummary) -> AcceptedResult:
    """Return a finished run as a row of the file.

    Raises:
        InputError: it has no AutoAttack accuracy.
    """
    manifest = summary.manifest
    if summary.autoattack_accuracy is None:
        raise InputError(
            f"{manifest.suite}/{manifest.candidate}@{summary.run}: expected a run with standard "
            "AutoAttack's accuracy, got one without"
        )
    return AcceptedResult(
        suite=manifest.suite,
        suite_version=manifest.suite_version,
        candidate=manifest.candidate,
        weights_sha256=digests(manifest.weights_sha256),
        protocol=manifest.protocol,
        engine=manifest.engine,
        precision=manifest.precision,
        batch_size=str(manifest.engine_settings.get("batch_size", "")),
        seed=manifest.seed,
        n_examples=summary.n_examples,
        clean_accuracy=summary.clean_accuracy,
        autoattack_accuracy=summary.autoattack_accuracy,
        robust_accuracy=summary.robust_accuracy,
        run=summary.run,
        finished=summary.finished,
        bench_version=str(manifest.environment.get("packages", {}).get("tradeoff-bench")),
    )


def digests(weights_sha256: Mapping[str, str]) -> str:
    if list(weights_sha256) == ["weights"]:
        return weights_sha256["weights"]
    return " ".join(f"{part}={digest}" for part, digest in sorted(weights_sha256.items()))


def load_accepted(path: Path | None = None) -> list[AcceptedResult]:
    """Return the accepted results of the package, or of another file.

    Raises:
        InputError: the file cannot be read, or a row is wrong (file and row are named).
    """
    path = path or Path(str(resources.files("bench.claims") / FILE))
    return [row for _, row in read_rows(path, AcceptedResult)]


def write_accepted(rows: list[AcceptedResult], path: Path) -> None:
    """Write rows as a file that `load_accepted` reads, sorted by suite, candidate and engine."""
    ordered = sorted(
        rows, key=lambda row: (row.suite, row.candidate, row.engine, row.precision, row.n_examples)
    )
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(AcceptedResult.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in ordered)
    write(path, text.getvalue().encode())
