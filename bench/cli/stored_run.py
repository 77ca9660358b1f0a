"""A stored run with its candidate and its samples, as commands that run the candidate need them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.store import RunFolder, Store
from bench.store.manifest import Manifest
from bench.store.selection import dataset_of
from bench.store.summary import Summary
from bench.suites import load_suite

if TYPE_CHECKING:
    from bench.candidates import Candidate
    from bench.data import Dataset


@dataclass(frozen=True)
class StoredRun:
    """A run, and what made it."""

    summary: Summary
    folder: RunFolder
    candidate: Candidate
    dataset: Dataset


def load_stored_run(
    store: Store,
    reference: str,
    suite_name: str | None,
    name: str | None,
    architecture: str | None,
    data_dir: Path | None,
    model_dir: Path | None,
    trust_code: bool,
    check: Callable[[Manifest], None] | None = None,
) -> StoredRun:
    """Load a run, its candidate and its samples.

    Args:
        reference: SUITE/CANDIDATE[@RUN].
        suite_name: name or path of the run's suite; None: it ships.
        name: name or path of the run's candidate; None: its name alone finds it.
        check: refuses a run that is of no use; None: one that keeps no witnesses.

    Raises:
        InputError: one of them is missing, or is not the run's.
    """
    from bench.candidates.named.model_files import with_architecture  # torch: slow to import
    from bench.candidates.registry import find_candidate, is_known
    from bench.runs.verify import check_kind

    summary = store.summary(reference, lambda kind: kind.has_witnesses)
    manifest = summary.manifest
    (check or check_kind)(manifest)
    folder = store.folder(manifest)
    suite = load_suite(suite_name or manifest.suite)
    if suite.name != manifest.suite:
        raise InputError(f"--suite: expected {manifest.suite}, the run's; got {suite.name}")
    try:
        (wanted,) = with_architecture((name or manifest.candidate,), architecture)
        found = find_candidate(wanted, suite, model_dir, trust_code)
    except InputError as error:
        if name is not None or is_known(manifest.candidate):
            raise
        raise InputError(
            f"{manifest.suite}/{manifest.candidate}@{summary.run}: made from a folder or file "
            "that a name alone does not find, or from a model in Python; name it by --candidate "
            "FOLDER or FILE, or call bench.load(...).verify(model) in Python"
        ) from error
    candidate = found.load()
    listed = folder.samples()["index"].tolist() if manifest.selection.kind == "listed" else ()
    dataset = dataset_of(manifest, suite, data_dir, candidate.preprocessing, listed)
    return StoredRun(summary, folder, candidate, dataset)
