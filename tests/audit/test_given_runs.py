"""Runs that came with the artefact: what their witnesses say of the claims' ball."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import data
from bench.auditing.checklist import checklist
from bench.auditing.given import check_runs
from bench.auditing.job import Job, Log
from bench.auditing.records import Isolation, Order
from bench.candidates import Candidate
from bench.runs.session import evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import Suite
from tests.audit.test_process import SUITE
from tests.silent import SilentObserver

CPU = torch.device("cpu")


@pytest.fixture
def candidate(linear_digits: nn.Module) -> Candidate:
    """The linear classifier, with a digest of its own."""
    return Candidate("linear", linear_digits, {"weights": "1" * 64}, "2" * 64)


def job_in(folder: Path) -> Job:
    """Return what the stages of an audit of the quick suite share, below a folder."""
    isolation = Isolation(network=False, network_note="", memory_bytes=None, memory_note="")
    order = Order(
        candidate="linear",
        suite="quick",
        claims={"robust": 0.5},
        budget_seconds=60,
        level=0.05,
        seed=0,
        out=str(folder),
    )
    log = Log(folder / "audit-records.json", isolation)
    return Job(order, Suite.model_validate(SUITE), log, time.monotonic())


@pytest.mark.parametrize("eps", [0.02, 0.04, 0.6])
def test_only_witnesses_in_the_claims_ball_count(
    candidate: Candidate, tmp_path: Path, eps: float
) -> None:
    job = job_in(tmp_path)
    settings = Settings(job.suite, CPU, eps=eps)
    samples = data.load("digits").first(60)
    made = evaluate(candidate, samples, settings, Store(tmp_path / "given"), SilentObserver())
    table = made.folder.samples()
    broken = table.loc[table["broken_by"].notna(), "index"].tolist()
    check_runs(job, tmp_path / "given", candidate, CPU)
    (given,) = job.log.records.runs
    assert not given.error
    assert broken
    row = next(each for each in checklist(job.log.records, []) if each.what.startswith("witnesses"))
    if eps <= job.suite.threat_model.eps:
        assert given.broken == broken
        assert given.outside == 0
        assert not job.log.records.troubles
        return
    assert len(given.broken) < len(broken)
    assert given.outside == len(broken) - len(given.broken)
    (trouble,) = job.log.records.troubles
    assert "made within Linf, eps = 0.6, the claims are about Linf, eps = 0.04" in trouble.reason
    assert not trouble.is_failure
    assert "do not count" in row.figure
