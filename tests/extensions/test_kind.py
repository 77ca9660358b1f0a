"""A new kind of run: one module, through public interfaces only.

Accuracy under Gaussian corruption at several severities, D. Hendrycks and T. Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions", ICLR 2019: no attack, no witness.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from bench.candidates import Candidate
from bench.data import Dataset
from bench.engines import Task
from bench.executors.progress import Progress
from bench.formatting import percent
from bench.runs.kind import RunnableKind, common_fields, task_of
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.best_known import best_known
from bench.store.kinds import Columns, Overview, register_kind
from bench.store.manifest import Manifest
from bench.store.records import Block, IntArray
from bench.store.summary import Flag, Summary
from bench.store.tables import ATTEMPT_COLUMNS, Tables, attempt_table, frame
from tests.extensions.runs import call, page, run, write_suite


@dataclass(frozen=True)
class Predictions:
    """Predictions under one severity, one entry a sample.

    Attributes:
        index: (n,) places in the data set.
        label: (n,) true classes.
        severity: (n,) number of the severity, 0 for clean images.
        prediction: (n,) predicted classes.
    """

    index: IntArray
    label: IntArray
    severity: IntArray
    prediction: IntArray


@dataclass(frozen=True, kw_only=True)
class CorruptionBlock(Block):
    """All samples under one severity."""

    predictions: Predictions


class CorruptionSummary(Summary):
    """Accuracies by severity; the robust accuracy is that of the strongest corruption."""

    by_severity: dict[str, float]


class CorruptionEngine:
    """Adds Gaussian noise that depends on seed and severity alone, and predicts once."""

    name = "gaussian-corruption"
    precision = "float32"

    def __init__(self, deviations: Sequence[float]) -> None:
        self.deviations = (0.0, *deviations)

    def default_batch_size(self, module: nn.Module, images: Tensor) -> int:
        return 256

    def settings(self, task: Task) -> dict[str, Any]:
        return {"deviations": list(self.deviations[1:])}

    def run(
        self,
        task: Task,
        finished: Mapping[str, Any],
        report: Callable[[Progress], None],
        executor: Any = None,
    ) -> Iterator[CorruptionBlock]:
        n = len(task.labels)
        for severity, deviation in enumerate(self.deviations):
            key = f"{severity:02d}"
            if key in finished:
                continue
            generator = torch.Generator().manual_seed(task.seed + severity)
            noise = torch.randn(task.images.shape, generator=generator)
            images = (task.images + deviation * noise).clamp(0, 1)
            with torch.no_grad():
                parts = torch.split(images, task.batch_size)
                logits = torch.cat([task.module(part.to(task.device)).cpu() for part in parts])
            yield CorruptionBlock(
                key=key,
                seconds=0.0,
                predictions=Predictions(
                    index=task.indices.numpy(),
                    label=task.labels.numpy(),
                    severity=np.full(n, severity),
                    prediction=logits.argmax(dim=1).numpy(),
                ),
            )
            report(Progress(f"severity {severity}", done=n, total=n, robust=n, examples=n))


class Corruption(RunnableKind):
    """Accuracy under noise of several standard deviations."""

    name = "corruption"
    block = CorruptionBlock
    summary = CorruptionSummary
    columns = Columns(
        samples=pa.schema(
            [(name, pa.int64()) for name in ("index", "label", "severity", "prediction")]
        ),
        attempts=ATTEMPT_COLUMNS,
    )

    def engine(self, settings: Settings) -> CorruptionEngine:
        return CorruptionEngine(settings.chosen_protocol.arguments["deviations"])

    def task(self, candidate: Candidate, dataset: Dataset, settings: Settings, engine: Any) -> Task:
        return task_of(candidate.module, dataset, settings, engine)

    def join(self, blocks: Sequence[CorruptionBlock]) -> Tables:  # type: ignore[override]
        samples = frame(block.predictions for block in blocks)
        return Tables(samples, attempt_table([]), None, self.columns)

    def summarise(
        self,
        manifest: Manifest,
        tables: Tables,
        raised: Sequence[Flag],
        record: Mapping[str, float | str],
        finished: str,
    ) -> CorruptionSummary:
        samples = tables.samples
        right = (samples["prediction"] == samples["label"]).groupby(samples["severity"]).sum()
        counts = [int(count) for count in right.tolist()]
        n = len(samples) // len(counts)
        names = ["clean", *(f"{each:g}" for each in manifest.engine_settings["deviations"])]
        return CorruptionSummary(
            **common_fields(manifest, n, counts[0], counts[-1], raised, record, finished),
            by_severity={name: count / n for name, count in zip(names, counts, strict=True)},
            seconds=0.0,
        )

    def overview(self, summary: CorruptionSummary) -> Overview:
        worst = f"{percent(summary.robust_accuracy)}%"
        return Overview(
            headline="under the strongest corruption",
            results=[("corrupted", f"{worst} under the strongest noise")],
            columns=("noise", "accuracy"),
            rows=[(name, percent(value)) for name, value in summary.by_severity.items()],
        )


PROTOCOL = "corrupted: {kind: corruption, arguments: {deviations: [0.1, 0.4, 1.0]}}"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite that attacks and corrupts."""
    register_kind(Corruption())
    protocols = f"standard: {{attacks: [apgd-ce]}}\n  {PROTOCOL}"
    return write_suite(tmp_path, "corruptions", protocols)


def test_a_kind_from_outside_runs_resumes_and_is_shown(
    tmp_path: Path,
    suite: Path,
    write_submission: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_submission("linear")
    whole = CorruptionEngine.run

    def cut_short(*arguments: Any) -> Iterator[CorruptionBlock]:
        for place, block in enumerate(whole(*arguments)):
            if place == 2:
                raise KeyboardInterrupt
            yield block

    with monkeypatch.context() as patch:
        patch.setattr(CorruptionEngine, "run", cut_short)
        assert run(tmp_path, suite, folder, "--protocol", "corrupted").exit_code == 130
    result = run(tmp_path, suite, folder, "--protocol", "corrupted")
    assert result.exit_code == 0, result.output
    assert "resuming: 2 blocks are finished" in result.output
    shown = call(tmp_path, "show", "corruptions/linear")
    assert shown.exit_code == 0, shown.output
    assert "under the strongest noise" in shown.output
    summary = json.loads(call(tmp_path, "show", "corruptions/linear", "--json").output)
    accuracies = list(summary["by_severity"].values())
    assert accuracies[0] == summary["clean_accuracy"] > accuracies[-1]
    again = run(tmp_path, suite, folder, "--protocol", "corrupted")
    assert again.exit_code == 0
    assert "--again makes a new run" in again.output
    planned = run(tmp_path, suite, folder, "--protocol", "corrupted", "--dry-run")
    assert planned.exit_code == 0, planned.output


def test_its_runs_stand_beside_others(
    tmp_path: Path, suite: Path, write_submission: Callable[..., Path]
) -> None:
    folder = write_submission("linear")
    # Alone, then beside an evaluation: neither the pages nor other commands stumble over it.
    for protocol in ("corrupted", "standard"):
        result = run(tmp_path, suite, folder, "--protocol", protocol)
        assert result.exit_code == 0, result.output
        assert call(tmp_path, "check").exit_code == 0
        text = page(tmp_path, "corruptions")
        assert "Other runs" in text
        assert "under the strongest noise" in text
    store = Store(tmp_path / "results")
    by_kind = {each.manifest.kind: each for each in store.summaries("corruptions")}
    joined = best_known(store, by_kind["evaluation"])
    assert joined.robust_accuracy == by_kind["evaluation"].robust_accuracy
    corrupted = best_known(store, by_kind["corruption"])
    assert corrupted.robust_accuracy == by_kind["corruption"].robust_accuracy
    table = call(tmp_path, "export", "csv", "--suite", str(suite))
    assert table.exit_code == 0, table.output
    assert len(table.output.splitlines()) == 2, table.output
    where = ["--suite", str(suite), "--candidate", str(folder)]
    assert call(tmp_path, "verify", "corruptions/linear", *where).exit_code == 0
    name = f"corruptions/linear@{by_kind['corruption'].run}"
    refused = call(tmp_path, "verify", name, *where)
    assert refused.exit_code == 2
    assert "expected a run that attacked, got a corruption" in refused.output
    refused = call(tmp_path, "export", "robustbench", name, "--out", str(tmp_path / "out"))
    assert refused.exit_code == 2


def test_settings_that_it_does_not_heed_are_refused(
    tmp_path: Path, suite: Path, write_submission: Callable[..., Path]
) -> None:
    settings = ["--protocol", "corrupted", "--until-converged"]
    result = run(tmp_path, suite, write_submission("linear"), *settings)
    assert result.exit_code == 2
    assert "--until-converged cannot be used with protocol corrupted" in result.output
