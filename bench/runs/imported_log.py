"""Published certification logs as runs, to be compared with our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.candidates.weights import file_sha256
from bench.certification.log import read_certification_log
from bench.certification.smoothing import Smoothing
from bench.data import Dataset
from bench.errors import InputError
from bench.kinds.certified import ImportedLogRecords
from bench.runs import environment
from bench.runs.certification import CertifyingKind
from bench.runs.imported import keep
from bench.runs.manifest import dataset_record
from bench.runs.session import RunResult
from bench.store import Store
from bench.store.manifest import Manifest, Selection
from bench.store.records import CertificationBlock, IntArray
from bench.suites import Suite
from bench.suites.suite import check_certifiable


class ImportedLog(ImportedLogRecords, CertifyingKind):
    """A certification log that others published."""


def import_certification_log(
    path: Path,
    suite: Suite,
    dataset: Dataset,
    candidate: str,
    sigma: float,
    store: Store,
    source: str = "",
    notice: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """Import a certification log into the store, completely or not at all.

    Args:
        dataset: the suite's whole data set.
        candidate: name of the log's classifier.
        sigma: standard deviation of its noise.
        source: origin of the log.
        notice: called with messages for the user that are no errors.

    Raises:
        InputError: a line of the log is wrong, sigma is not above 0, the suite certifies nothing,
            or its norm is not L2.
    """
    protocol = suite.certifying_protocol
    check_certifiable(suite.threat_model, f"suite {suite.name}")
    Smoothing(sigma)
    if not candidate.strip() or "/" in candidate:
        raise InputError(f"--candidate: expected a name without '/', got {candidate!r}")
    certificates = read_certification_log(path, dataset.labels.numpy(), len(dataset.classes), sigma)
    selection, overrides = _selection(certificates.index, len(dataset))
    manifest = Manifest(
        kind=ImportedLog.name,
        suite=suite.name,
        suite_version=suite.version,
        candidate=candidate,
        dataset=dataset_record(suite, dataset),
        threat_model=suite.threat_model,
        protocol=protocol,
        attacks=[],
        engine="imported",
        engine_settings={"sigma": float(sigma), "log_sha256": file_sha256(path)},
        precision="as published",
        seed=0,
        selection=selection,
        overrides=overrides,
        weights_sha256={},
        definition_sha256="",
        suite_title=suite.title,
        environment=environment.describe(torch.device("cpu")),
        information={"source": source, "log": path.name},
    )
    kind = ImportedLog()
    block = CertificationBlock(key=protocol, seconds=0.0, certificates=certificates)
    return keep(kind, manifest, dataset, store, lambda: (kind.join([block]), []), notice)


def _selection(index: IntArray, size: int) -> tuple[Selection, dict[str, object]]:
    """Return which of `size` samples a log has, and the overrides: a part makes a variant."""
    n = len(index)
    step = int(index[1]) if n > 1 else size
    if n == size:
        return Selection(kind="all", n=n), {}
    if np.array_equal(index, np.arange(n)):
        return Selection(kind="first", n=n), {"n_examples": n}
    if np.array_equal(index, np.arange(0, size, step)):
        return Selection(kind="every", n=n, step=step), {"every": step}
    return Selection(kind="listed", n=n), {"n_examples": n}
