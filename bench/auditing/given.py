"""The stages of an audit that check what came with the artefact: images and runs."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from bench.attacks import inside
from bench.auditing.job import BATCH, Job
from bench.auditing.records import GivenRun, GivenWitnesses
from bench.candidates import Candidate
from bench.data import Dataset
from bench.errors import BenchError
from bench.formatting import count, threat_model
from bench.runs.imported_witnesses import import_witnesses, read_images
from bench.runs.settings import Settings
from bench.runs.verify import check_kind, verify
from bench.store import RunFolder, Store
from bench.store.selection import dataset_of
from bench.suites import ThreatModel

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
        given = _given_run(job, folder, candidate, device)
        job.log.records.runs.append(given)
        if given.outside:
            job.log.trouble("results", _left_out(job, given), False)
        job.log.write()
    if len(own) > MOST_RUNS:
        job.log.trouble("results", f"{len(own) - MOST_RUNS} further runs were left out", False)


def _given_run(job: Job, folder: RunFolder, candidate: Candidate, device: torch.device) -> GivenRun:
    start = time.monotonic()
    manifest = folder.manifest()
    claimed, n, confirmed, failures, first, error = 0.0, 0, None, 0, "", ""
    broken: list[int] = []
    outside = 0
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
            broken, outside = _broken_within(folder, dataset, job.suite.threat_model)
    except BenchError as raised_error:
        error = " ".join(str(raised_error).split())
    return GivenRun(
        run=manifest.run,
        protocol=manifest.protocol,
        threat_model=threat_model(manifest.threat_model),
        n_examples=n,
        claimed=claimed,
        confirmed=confirmed,
        failures=failures,
        first_failure=first,
        error=error,
        is_whole=manifest.selection.kind == "all",
        broken=broken,
        outside=outside,
        seconds=time.monotonic() - start,
    )


def _broken_within(
    folder: RunFolder, dataset: Dataset, threat: ThreatModel
) -> tuple[list[int], int]:
    """Return the samples that a run's witnesses break in a ball, and how many lie outside it.

    The run may be of another radius or norm; each image counts where it lies.

    Args:
        folder: of a run that is confirmed.
        dataset: its samples.

    Returns:
        indices in the data set, ascending; and the number of samples that the run broke only by
        images outside the ball.
    """
    clean, indices = dataset.images.numpy(), dataset.indices.tolist()
    place = {index: row for row, index in enumerate(indices)}
    within: set[int] = set()
    found = folder.witnesses(clean, indices)
    for each in (found, folder.smallest_images(clean, indices)):
        if each is not None:
            own = dataset.images[[place[index] for index in each.index.tolist()]]
            good = inside(torch.from_numpy(each.images), own, threat.norm, threat.eps)
            within.update(each.index[good.numpy()].tolist())
    broken = set() if found is None else set(found.index.tolist())
    return sorted(within), len(broken - within)


def _left_out(job: Job, given: GivenRun) -> str:
    """Return why witnesses of a run do not count."""
    ball = threat_model(job.suite.threat_model)
    return (
        f"run {given.run} was made within {given.threat_model}, the claims are about {ball}: "
        f"{count(given.outside)} of the samples that it broke have no witness within {ball} and do "
        "not count as broken"
    )
