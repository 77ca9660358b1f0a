"""Audit a candidate from beginning to end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import bench
from bench.auditing.claims import parse_claims
from bench.auditing.decision import LEVEL
from bench.auditing.page import write_report
from bench.auditing.process import run_apart
from bench.auditing.records import FILE, ORDER_FILE, Order, Records
from bench.auditing.report import Report, make_report
from bench.errors import InputError
from bench.formatting import threat_model
from bench.runs.settings import Settings
from bench.store.files import safe_name, write_json
from bench.suites import Suite, load_suite
from bench.validation.seeds import check_seed

if TYPE_CHECKING:
    from bench.candidates import CandidateReference

SLACK_SECONDS, SLACK_SHARE = 30.0, 0.15
"""Beyond the budget, after which the candidate's process is killed: it ends by itself before."""
LEAST_BUDGET = 10.0
MEMORY_SHARE = 0.75
"""Share of the machine's memory that the candidate's process may have."""
OUT = "audits"
"""Folder for audits, where none is named."""

Folder = str | os.PathLike[str]
Tell = Callable[[Records], None]


@dataclass(frozen=True)
class Audit:
    """A finished audit.

    Attributes:
        report: what it says.
        page, json, form: its files.
    """

    report: Report
    page: Path
    json: Path
    form: Path


def audit(
    candidate: Folder,
    claims: Iterable[str] | Mapping[str, float | str],
    suite: Folder = "cifar10-linf",
    *,
    budget: str | float = "30m",
    witnesses: Sequence[Folder] = (),
    results: Folder | None = None,
    out: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    memory: float | None = None,
    architecture: str | None = None,
    data_dir: Folder | None = None,
    model_dir: Folder | None = None,
    tell: Tell = lambda _: None,
) -> Audit:
    """Test what is claimed of a candidate, within a time, in a process of its own.

    Args:
        candidate: the name, folder or file of a candidate, as for `bench run`. Its code runs in
            another process, so a model in this one cannot be audited.
        claims: such as `{"clean": 85.21, "autoattack": 38.72}`, in percent.
        suite: a name, or the path of a suite's file.
        budget: in seconds, or such as "30m".
        witnesses: files of adversarial images that came with the artefact.
        results: folder of results that came with the artefact.
        out: folder for the report and the audit's own records; None: `audits/SUITE/CANDIDATE`.
        seed: of the draw of the samples.
        device: `auto`, `cpu` or `cuda`.
        memory: most memory of the candidate's process, in GiB; None: three quarters of what the
            machine has.
        architecture: what builds the network of a weights file.
        data_dir, model_dir: folders as for `bench.evaluate`.
        tell: called with the records so far, again and again.

    Returns:
        the report, and its files. `report.is_refuted` says whether a claim is refuted.

    Raises:
        InputError: wrong claims or seed, an unknown suite or candidate, or a folder that cannot be
            written.
        Unavailable: something could not be downloaded.
    """
    if not isinstance(candidate, str | os.PathLike):
        raise InputError(
            f"expected the name or folder of a candidate, got {type(candidate).__name__}: its code "
            "runs in another process; write a submission, or use bench.evaluate"
        )
    check_seed(seed)
    wanted = list(parse_claims(claims))
    found = load_suite(os.fspath(suite))
    seconds = _budget(budget, found)
    name = os.fspath(candidate)
    _check_given(witnesses, results)
    folder = Path(out) if out is not None else Path(OUT) / safe_name(found.name) / safe_name(name)
    fetched = fetch(name, found, _path(data_dir), _path(model_dir), architecture)
    memory_bytes = _memory(memory)
    order = Order(
        candidate=name,
        suite=os.fspath(suite),
        claims={each.name: each.accuracy for each in wanted},
        budget_seconds=seconds,
        level=LEVEL,
        seed=seed,
        out=str(folder.resolve()),
        witnesses=[str(Path(each).resolve()) for each in witnesses],
        results=_resolved(results),
        data_dir=_resolved(data_dir),
        model_dir=_resolved(model_dir),
        device=device,
        memory_bytes=memory_bytes,
        architecture=architecture,
    )
    _begin(folder, order)
    ended = run_apart(
        (folder / ORDER_FILE).resolve(),
        folder,
        seconds + SLACK_SECONDS + SLACK_SHARE * seconds,
        memory_bytes,
        lambda: tell(read_records(folder)),
    )
    report = make_report(
        suite=found,
        threat_model=threat_model(found.threat_model),
        candidate=name if architecture is None else f"{name},architecture={architecture}",
        claims=wanted,
        records=read_records(folder),
        ended=ended,
        fetched=fetched,
        seed=seed,
        budget_seconds=seconds,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        bench_version=bench.__version__,
    )
    files = write_report(report, folder)
    return Audit(report, files["page"], files["json"], files["form"])


def read_records(folder: Path) -> Records:
    """Return what the candidate's process has written so far; nothing where it wrote nothing.

    Raises:
        InputError: it wrote something else; foreign code runs in that process.
    """
    path = folder / FILE
    if not path.is_file():
        return Records()
    try:
        return Records.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected the records of an audit, got something else: the candidate's code "
            "may have changed them"
        ) from error


def fetch(
    name: str, suite: Suite, data_dir: Path | None, model_dir: Path | None, architecture: str | None
) -> str:
    """Download what is missing, in this process: the candidate's has no network.

    Foreign code is not run here: of a submission that brings its own, nothing is fetched.

    Returns:
        what was fetched, or could not be; empty: nothing was missing.

    Raises:
        InputError: an unknown candidate.
        Unavailable: the data or the weights cannot be fetched.
    """
    from bench import data
    from bench.candidates.named.model_files import with_architecture
    from bench.candidates.registry import find_candidate

    (wanted,) = with_architecture((name,), architecture)
    reference = find_candidate(wanted, suite, model_dir, trust_code=True)
    notes = []
    if absent := data.missing(suite.data, data_dir):
        data.load_source(suite.data, data_dir, 1)
        notes.append(absent)
    available = reference.availability()
    if not available.here:
        _fetch(reference)
        notes.append(available.note)
    return "; ".join(notes)


def _fetch(reference: CandidateReference) -> None:
    """Download what a candidate and those that it is made of need."""
    from bench.candidates.submission_reference import SubmissionReference

    bases = getattr(reference, "bases", None) or {}
    if isinstance(reference, SubmissionReference):
        reference.fetch()
    elif not bases:
        reference.load()  # a source of networks: its code is that of an installed package
    for base in bases.values():
        if not base.availability().here:
            _fetch(base)


def _check_given(witnesses: Sequence[Folder], results: Folder | None) -> None:
    """Check that what came with the artefact is there.

    Raises:
        InputError: it is not.
    """
    for file in witnesses:
        if not Path(file).is_file():
            raise InputError(f"--witnesses: expected a file, got {os.fspath(file)}")
    if results is not None and not Path(results).is_dir():
        raise InputError(f"--results: expected a folder, got {os.fspath(results)}")


def _begin(folder: Path, order: Order) -> None:
    """Write the order, without an earlier audit's records.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).unlink(missing_ok=True)
        write_json(folder / ORDER_FILE, order)
    except OSError as error:
        raise InputError(f"--out: {folder} cannot be written: {error.strerror}") from error


def _path(folder: Folder | None) -> Path | None:
    return None if folder is None else Path(folder)


def _resolved(folder: Folder | None) -> str | None:
    return None if folder is None else str(Path(folder).resolve())


def _budget(budget: str | float, suite: Suite) -> float:
    seconds = Settings(suite=suite, budget=budget).budget_seconds
    if seconds is None or not LEAST_BUDGET <= seconds < float("inf"):
        raise InputError(
            f"--budget: expected at least {LEAST_BUDGET:g} s, such as 30m; got {budget!r}"
        )
    return seconds


def _memory(gigabytes: float | None) -> int | None:
    """Return the most memory of the candidate's process in bytes; None where it is unknown.

    Raises:
        InputError: too little to import torch in.
    """
    if gigabytes is None:
        try:
            whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return None
        return int(MEMORY_SHARE * whole)
    if not 1 <= gigabytes < float("inf"):
        raise InputError(f"--memory: expected at least 1 GiB, got {gigabytes:g}")
    return int(gigabytes * 2**30)
