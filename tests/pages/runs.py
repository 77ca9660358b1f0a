"""Finished runs, written into a store without any evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bench.runs.evaluation import Evaluation
from bench.statistics import exact_binomial_interval
from bench.store import RunFolder, Store
from bench.store.manifest import DatasetRecord, Manifest, Selection
from bench.store.records import AttackBlock, CleanResults
from bench.store.summary import (
    AttackedSummary,
    AttackSummary,
    Flag,
    Summary,
    SweepPoint,
    SweepSummary,
)
from bench.suites import load_suite

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")


def make_manifest(
    suite: str, candidate: str, n: int, name: str | None = None, **changes: Any
) -> Manifest:
    """A manifest of a full run of n samples under a shipped suite; keywords change its fields.

    Args:
        name: what the suite is called in the run, if not as it ships.
    """
    defined = load_suite(suite)
    fields: dict[str, Any] = {
        "kind": "evaluation",
        "suite": name or suite,
        "suite_version": defined.version,
        "suite_title": "" if name else defined.title,
        "candidate": candidate,
        "dataset": DatasetRecord(name=defined.data.label, sha256="d" * 64, size=100),
        "threat_model": defined.threat_model,
        "protocol": "standard",
        "attacks": [{"name": name, "parameters": {}} for name in ATTACKS],
        "engine": "reference",
        "engine_settings": {"batch_size": 50},
        "precision": "float32",
        "seed": 0,
        "selection": Selection(kind="all", n=n),
        "overrides": {},
        "weights_sha256": {"weights": "e" * 64},
        "definition_sha256": "f" * 64,
        "unidentified": [],
        "environment": {"started": "2026-01-01T10:00:00+00:00", "packages": {"torch": "2.5"}},
    }
    return Manifest(**(fields | changes))


def make_summary(
    manifest: Manifest,
    clean: int,
    standing: Sequence[int],
    flags: Sequence[Flag] = (),
    finished: str = "2026-01-01T11:00:00+00:00",
) -> AttackedSummary:
    """A summary of the manifest's n samples: `clean` are right, `standing[i]` stand attack i."""
    n = manifest.selection.n
    before = [clean, *standing]
    return AttackedSummary(
        manifest=manifest,
        run=manifest.run,
        n_examples=n,
        clean_accuracy=clean / n,
        autoattack_accuracy=standing[-1] / n,
        robust_accuracy=standing[-1] / n,
        eight_bit_robust_accuracy=standing[-1] / n,
        confidence_intervals={
            "clean_accuracy": exact_binomial_interval(clean, n),
            "robust_accuracy": exact_binomial_interval(standing[-1], n),
        },
        attacks=[
            AttackSummary(
                name=name,
                attempted=before[place],
                broken=before[place] - after,
                accuracy_after=after / n,
                seconds=12.5,
                forward_passes=101 * before[place],
                backward_passes=100 * before[place],
            )
            for place, (name, after) in enumerate(zip(ATTACKS, standing, strict=True))
        ],
        flags=list(flags),
        seconds=50.0,
        started="2026-01-01T10:00:00+00:00",
        finished=finished,
    )


def save_run(
    store: Store,
    manifest: Manifest,
    clean: int,
    standing: Sequence[int],
    flags: Sequence[Flag] = (),
    finished: str = "2026-01-01T11:00:00+00:00",
    columns: Mapping[str, np.ndarray[Any, Any]] = MappingProxyType({}),
    sweep: list[SweepPoint] | None = None,
) -> RunFolder:
    """Write a finished run; counts as in `make_summary`.

    Args:
        columns: of the samples' table, by name.
        sweep: of the summary.
    """
    folder = store.folder(manifest)
    index = np.arange(manifest.selection.n)
    # The report reads the summary alone: the tables need not say the same.
    tables = Evaluation().join(
        [AttackBlock(key="clean", seconds=1.0, clean=CleanResults(index, index, index))]
    )
    tables = replace(tables, samples=tables.samples.assign(**columns))
    with folder.locked():
        folder.begin(manifest)
        summary: Summary = make_summary(manifest, clean, standing, flags, finished)
        if sweep is not None:
            common = summary.model_dump(include=set(Summary.model_fields))
            summary = SweepSummary.model_validate(common | {"sweep": sweep})
        folder.finish(tables, summary, np.zeros((0, 1, 1, 1), np.float32))
    return folder


def save_unreadable(store: Store, suite: str) -> Path:
    """Write a complete run of an earlier release, which this one refuses; return its folder."""
    folder = store.root / suite / "old-candidate" / "aaaaaaaaaaaa"
    folder.mkdir(parents=True)
    for name in ("manifest.json", "run.json"):
        (folder / name).write_text('{"schema_version": 1}\n')
    return folder
