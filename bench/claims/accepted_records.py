"""Accepted results in a folder: the project's own in the package, or those that a user keeps.

Each folder has the same three files: `accepted.csv`, `accepted_samples.csv` and
`accepted_certified.csv`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import TypeVar

from bench.claims.accepted import (
    FILE,
    AcceptedResult,
    accepted_row,
    load_accepted,
    write_accepted,
)
from bench.claims.accepted_samples import (
    CERTIFIED_FILE,
    SAMPLES_FILE,
    AcceptedCertification,
    SampleOutcomes,
    accepted_certification,
    load_accepted_certifications,
    load_sample_outcomes,
    sample_outcomes,
    write_accepted_certifications,
    write_sample_outcomes,
)
from bench.errors import InputError
from bench.store import Store
from bench.store.summary import AttackedSummary, CertifiedSummary, Summary

SHIPPED = Path(str(resources.files("bench.claims")))
"""The folder of the project's own."""

KEPT_OVERRIDES = frozenset({"n_examples", "every", "noise_samples"})
"""What may differ from the suite as defined: what the records tell apart."""

Row = TypeVar("Row")
Loaded = TypeVar("Loaded")
Votes = Callable[[CertifiedSummary], Mapping[int, bool]]
"""From a certification to what fresh votes say of its samples, see `accepted_certification`."""


@dataclass(frozen=True)
class AcceptedRecords:
    """Accepted runs.

    Attributes:
        results: evaluations with standard AutoAttack's accuracy.
        samples: what became of the samples of evaluations, express ones among them.
        certifications: certifications with their samples' radii.
    """

    results: Sequence[AcceptedResult] = ()
    samples: Sequence[SampleOutcomes] = ()
    certifications: Sequence[AcceptedCertification] = ()

    def updated(self, newer: AcceptedRecords) -> AcceptedRecords:
        """Return these with newer ones, each in the place of the one about the same."""
        return AcceptedRecords(
            _updated(self.results, newer.results, _result_key),
            _updated(self.samples, newer.samples, _samples_key),
            _updated(self.certifications, newer.certifications, _certification_key),
        )


def together(records: Sequence[AcceptedRecords]) -> AcceptedRecords:
    """Return what is in any of several folders."""
    return AcceptedRecords(
        tuple(chain.from_iterable(each.results for each in records)),
        tuple(chain.from_iterable(each.samples for each in records)),
        tuple(chain.from_iterable(each.certifications for each in records)),
    )


def load_records(folder: Path = SHIPPED) -> AcceptedRecords:
    """Return the accepted results of a folder; what has no file is empty.

    Raises:
        InputError: there is no such file at all, or one is wrong (file and row are named).
    """
    if not any((folder / name).is_file() for name in (FILE, SAMPLES_FILE, CERTIFIED_FILE)):
        raise InputError(
            f"{folder}: expected a folder with {FILE}, {SAMPLES_FILE} or {CERTIFIED_FILE}, got "
            "none of them; `bench accept` writes them"
        )
    return _load(folder)


def update_records(folder: Path, newer: AcceptedRecords) -> None:
    """Write newer results into the files of a folder, which is made if there is none.

    Raises:
        InputError: one of the files that are there is wrong.
    """
    records = _load(folder).updated(newer)
    folder.mkdir(parents=True, exist_ok=True)
    write_accepted(list(records.results), folder / FILE)
    write_sample_outcomes(records.samples, folder / SAMPLES_FILE)
    write_accepted_certifications(records.certifications, folder / CERTIFIED_FILE)


def records_of(store: Store, runs: Iterable[Summary], votes: Votes) -> AcceptedRecords:
    """Return complete runs as accepted results.

    Args:
        votes: called for each certification.

    Raises:
        InputError: a run of which the records cannot tell what it measured.
    """
    results, samples, certifications = [], [], []
    for run in runs:
        _check_acceptable(run)
        table = store.folder(run.manifest).samples()
        if isinstance(run, CertifiedSummary):
            certifications.append(accepted_certification(run, table, votes(run)))
            continue
        samples.append(sample_outcomes(run, table))
        if isinstance(run, AttackedSummary) and _has_result(run):
            results.append(accepted_row(run))
    return AcceptedRecords(results, samples, certifications)


def _has_result(run: AttackedSummary) -> bool:
    """Return whether a run stands in `accepted.csv`, whose rows are the first samples' numbers."""
    in_order = run.manifest.selection.kind in ("all", "first")
    return run.kind.is_ranked and in_order and run.autoattack_accuracy is not None


def _check_acceptable(run: Summary) -> None:
    """Refuse a run of which the records cannot tell what it measured.

    Raises:
        InputError: it is such a run.
    """
    manifest = run.manifest
    title = f"{manifest.suite}/{manifest.candidate}@{run.run}"
    if run.kind.is_imported or not (run.kind.certifies or run.kind.has_witnesses):
        raise InputError(
            f"{title}: expected an evaluation or a certification, got a run of kind {manifest.kind}"
        )
    others = sorted(manifest.overrides.keys() - KEPT_OVERRIDES)
    if others:
        raise InputError(
            f"{title}: expected a run under the suite as it is defined, on all samples, the first "
            f"ones or every k-th; got another {', '.join(others)}"
        )


def _load(folder: Path) -> AcceptedRecords:
    return AcceptedRecords(
        _rows(load_accepted, folder / FILE),
        _rows(load_sample_outcomes, folder / SAMPLES_FILE),
        _rows(load_accepted_certifications, folder / CERTIFIED_FILE),
    )


def _rows(load: Callable[[Path], Sequence[Loaded]], path: Path) -> Sequence[Loaded]:
    return load(path) if path.is_file() else ()


def _updated(
    old: Sequence[Row], new: Sequence[Row], key: Callable[[Row], tuple[object, ...]]
) -> Sequence[Row]:
    return list({key(row): row for row in [*old, *new]}.values())


def _result_key(row: AcceptedResult) -> tuple[object, ...]:
    return row.suite, row.candidate, row.protocol, row.engine, row.precision, row.n_examples


def _samples_key(row: SampleOutcomes) -> tuple[object, ...]:
    return row.suite, row.candidate, row.protocol, row.engine, row.step, len(row.clean)


def _certification_key(row: AcceptedCertification) -> tuple[object, ...]:
    draws = row.sigma, row.noise_samples, row.procedure
    return row.suite, row.candidate, row.protocol, row.engine, row.step, *draws, row.n_examples
