"""Runs that were interrupted or damaged: what is sound stays, and the rest is made again."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from torch import nn

from bench import data
from bench.candidates import Candidate
from bench.runs.session import RunResult, evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.store.summary import ExpressSummary
from bench.suites import load_suite
from bench.suites.suite import AttackChoice
from tests.silent import SilentObserver


def _run(module: nn.Module, root: Path, protocol: str = "standard") -> tuple[RunResult, list[str]]:
    """Evaluate a network by one short attack; return the result and the notices."""
    suite = load_suite("digits-linf")
    attacks = (AttackChoice(name="apgd-ce", parameters={"steps": 2}),)
    short = suite.protocol(protocol).model_copy(update={"attacks": attacks})
    suite = suite.model_copy(update={"protocols": {protocol: short}})
    settings = Settings(suite, protocol=protocol, n_examples=8, eps=0.08)
    candidate = Candidate("linear", module, {"weights": "1" * 64}, "2" * 64)
    observer = SilentObserver()
    samples = data.load("digits").first(8)
    return evaluate(candidate, samples, settings, Store(root), observer), observer.notices


def test_a_manifest_that_is_damaged_or_missing_is_written_again(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    first, _ = _run(linear_digits, tmp_path)
    manifest = first.folder.path / "manifest.json"
    intact = manifest.read_text()
    for damage in (lambda: manifest.write_text("{"), manifest.unlink):
        damage()
        again, notices = _run(linear_digits, tmp_path)
        assert again.reused
        assert again.summary == first.summary
        assert "the manifest is written again" in notices[0]
        assert manifest.read_text() == intact
    assert len(list(tmp_path.rglob("*damaged*"))) == 1

    # Without the summary's copy the manifest is the plan's.
    manifest.write_text("{")
    assert first.folder.verify_tables() == [manifest]
    (first.folder.path / "run.json").write_text("{")
    again, notices = _run(linear_digits, tmp_path)
    assert ["manifest.json" in notices[0], "run.json" in notices[1]] == [True, True]
    assert again.folder.manifest().run == first.summary.run
    assert again.summary.robust_accuracy == first.summary.robust_accuracy


def test_an_unfinished_run_with_a_damaged_manifest_goes_on(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    first, _ = _run(linear_digits, tmp_path / "whole")
    folder = Store(tmp_path / "begun").folder(first.summary.manifest)
    with folder.locked():
        folder.begin(first.summary.manifest)
    (folder.path / "manifest.json").write_text("{")
    resumed, _ = _run(linear_digits, tmp_path / "begun")
    assert resumed.folder.path == folder.path
    assert resumed.summary.robust_accuracy == first.summary.robust_accuracy


def test_an_express_run_that_is_summed_up_again_says_what_is_left(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    first, _ = _run(linear_digits, tmp_path, "express")
    assert isinstance(first.summary, ExpressSummary)
    assert (first.summary.left is None) == bool(first.summary.escalated)
    record = first.folder.path / "run.json"
    record.write_text("{")
    again, notices = _run(linear_digits, tmp_path, "express")
    assert notices[1:] == ["summed up again from its tables"]
    assert again.summary == first.summary.model_copy(update={"finished": again.summary.finished})

    # Tables of earlier releases lack the engine's record: such a run is made again.
    attempts = first.folder.path / "attempts.parquet"
    pq.write_table(pq.read_table(attempts).replace_schema_metadata(None), attempts)
    assert _run(linear_digits, tmp_path, "express")[0].reused
    record.write_text("{")
    again, notices = _run(linear_digits, tmp_path, "express")
    assert isinstance(again.summary, ExpressSummary)
    assert not any("summed up" in notice for notice in notices)
    assert again.summary.left == first.summary.left
    assert again.summary.escalated == first.summary.escalated
    assert not (again.folder.path / "parts").exists()


def test_tables_of_earlier_releases_are_summed_up_without_the_engine_record(
    linear_digits: nn.Module, tmp_path: Path
) -> None:
    first, _ = _run(linear_digits, tmp_path)
    attempts = first.folder.path / "attempts.parquet"
    pq.write_table(pq.read_table(attempts).replace_schema_metadata(None), attempts)
    (first.folder.path / "run.json").write_text("{")
    again, notices = _run(linear_digits, tmp_path)
    assert notices[1:] == ["summed up again from its tables; how the engine made them is lost"]
    assert again.summary.robust_accuracy == first.summary.robust_accuracy
