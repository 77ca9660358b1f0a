"""The stages of an audit that check what came with the artefact: images and runs."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from bench.auditing.job import BATCH, Job
from bench.auditing.records import GivenRun, GivenWitnesses
from bench.candidates import Candidate
from bench.data import Dataset
from bench.errors import BenchError
from bench.runs.imported_witnesses import import_witnesses, read_images
from bench.runs.settings import Settings
from bench.runs.verify import check_kind, verify
from bench.store import RunFolder, Store
from bench.store.selection import dataset_of

MOST_RUNS = 5
"""How many given runs are confirmed."""


def check_witnesses(
    job: Job, file: str, candidate: Candidate, dataset: Dataset, device: torch.device
) -> GivenWitnesses:
    """Check adversarial images that came with the artefact."""
    start, path = time.monotonic(), Path(file)
    settings = Settings(job.suite, device, protocol=job.suite.attacking_protocol, batch_size=BATCH)
    found, images, error = [], 0, ""
    try:
        imported = read_images(path)
        images = len(imported.images)
        made = import_witnesses(
            imported, "came with the artefact", candidate, dataset, settings, job.store
        )
        samples = made.folder.samples()
        found = samples.loc[samples["broken_by"].notna(), "index"].tolist()
    except BenchError as raised_error:
        error = " ".join(str(raised_error).split())
    return GivenWitnesses(
        file=path.name,
        images=images,
        broken=found,
        error=error,
        seconds=time.monotonic() - start,
    )


def check_runs(job: Job, root: Path, candidate: Candidate, device: torch.device) -> None:
    """Confirm the runs of a folder of results that came with the artefact."""
    folders = [
        each
        for each in Store(root).runs(job.suite.name)
        if each.is_complete and each.kind.has_witnesses
    ]
    own = [each for each in folders if each.manifest().candidate == candidate.name]
    if not own:
        job.log.trouble(
            "results",
            f"{root.name} holds no complete run of {candidate.name} under {job.suite.name} that "
            "has witnesses",
        )
    for folder in own[:MOST_RUNS]:
        job.log.records.runs.append(_given_run(job, folder, candidate, device))
        job.log.write()
    if len(own) > MOST_RUNS:
        job.log.trouble("results", f"{len(own) - MOST_RUNS} further runs were left out", False)


def _given_run(job: Job, folder: RunFolder, candidate: Candidate, device: torch.device) -> GivenRun:
    start = time.monotonic()
    manifest = folder.manifest()
    claimed, n, confirmed, failures, first, error = 0.0, 0, None, 0, "", ""
    broken: list[int] = []
    try:
        summary = folder.summary()
        claimed, n = summary.robust_accuracy, summary.n_examples
        check_kind(manifest)
        samples = folder.samples()
        listed = samples["index"].tolist() if manifest.selection.kind == "listed" else ()
        dataset = dataset_of(manifest, job.suite, job.data_dir, candidate.preprocessing, listed)
        result = verify(folder, candidate, dataset, device, BATCH)
        confirmed, failures = result.confirmed, len(result.failures)
        first = result.failures[0] if result.failures else ""
        if result.is_confirmed:
            broken = samples.loc[samples["broken_by"].notna(), "index"].tolist()
    except BenchError as raised_error:
        error = " ".join(str(raised_error).split())
    return GivenRun(
        run=manifest.run,
        protocol=manifest.protocol,
        n_examples=n,
        claimed=claimed,
        confirmed=confirmed,
        failures=failures,
        first_failure=first,
        error=error,
        is_whole=manifest.selection.kind == "all",
        broken=broken,
        seconds=time.monotonic() - start,
    )
