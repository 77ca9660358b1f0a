"""`bench status`: runs that are running, interrupted, failed, complete, and one that is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from bench.cli import main, status
from bench.store import Store
from bench.store.events import EVENTS, EventLog, read_events
from bench.store.status import StatusWatch
from bench.store.unfinished import LOCK_TABLE
from tests.pages.runs import make_manifest, save_run
from tests.view.test_view import N, begin

listed = pytest.mark.skipif(not LOCK_TABLE.exists(), reason="the system does not list locks")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def call(store: Store) -> Callable[..., Result]:
    def called(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["status", *arguments, "--results-dir", str(store.root)])

    return called


@pytest.fixture
def log(store: Store) -> EventLog:
    """The events of an unfinished run with two workers, one of which was lost."""
    log = EventLog(begin(store))
    log.write("run-begins", host=os.uname().nodename, process=1)
    log.write("worker-joins", worker="worker-0")
    log.write("worker-joins", worker="worker-1")
    log.write("worker-joins", worker="worker-2")
    log.write("shard-ends", worker="worker-0", shards=2, samples=10, seconds=5.0)
    log.write("shard-begins", worker="worker-0", stage="apgd-ce", samples=8)
    log.write("worker-lost", worker="worker-2", reason="its node left", stage="apgd-ce", samples=4)
    log.write("stage", stage="apgd-ce", done=10, total=18, seconds_left=600.0)
    return log


@listed
def test_a_running_one_shows_stages_workers_and_time_left(
    call: Callable[..., Result], store: Store, log: EventLog
) -> None:
    with store.folder(make_manifest("digits-linf", "going", N)).locked():
        text = call("digits-linf/going").output
        facts = json.loads(call("digits-linf/going", "--json").output)
    assert "running on" in text
    assert "at most 10 min left" in text or "at most 9 min 59 s left" in text
    assert "so far clean 90.00%; 16 of 20 survive, 80.00%" in text
    assert "apgd-ce, 8 samples" in text
    assert "1 of 2 at work" in text
    assert "lost: 1 workers, 1 shards, done again" in text
    assert "worker-2: its node left" in text
    assert (facts["state"], facts["robust_accuracy"], facts["blocks"]) == ("running", 0.8, 2)
    assert facts["stages"][1] == {"name": "apgd-ce", "done": 10, "total": 18}
    workers = {each["name"]: each for each in facts["activity"]["workers"]}
    assert workers["worker-0"]["samples_per_second"] == 2.0


@listed
def test_one_that_nobody_writes_is_interrupted_or_has_failed(
    call: Callable[..., Result], log: EventLog
) -> None:
    text = call("digits-linf/going", "--follow").output
    assert "going@" in text
    assert "interrupted, last written to" in text
    assert "the same command that began it goes on" in text
    log.write("run-fails", reason="failed: KeyError")
    assert "ago: failed: KeyError" in call("digits-linf/going").output


def test_a_driver_on_another_machine_is_known_by_its_news(
    call: Callable[..., Result], log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.store.status.platform.node", lambda: "elsewhere")
    assert "running on" in call("digits-linf/going").output
    monkeypatch.setattr("bench.store.status.SECONDS_OF_LIFE", 0.0)
    assert "interrupted" in call("digits-linf/going").output


def test_runs_of_earlier_releases_have_no_events(call: Callable[..., Result], store: Store) -> None:
    begin(store)
    save_run(store, make_manifest("digits-linf", "done", N), 19, [12, 11, 11, 11])
    assert "16 of 20 survive" in call("digits-linf/going").output
    assert "complete\nclean 95.00%, robust 55.00%" in call("digits-linf/done").output
    facts = json.loads(call("digits-linf/done", "--json").output)
    assert (facts["state"], facts["activity"]) == ("complete", None)


def test_a_run_that_is_not_there_is_named(call: Callable[..., Result], store: Store) -> None:
    begin(store)
    result = call("digits-linf/gone")
    assert result.exit_code == 2
    assert "expected SUITE/CANDIDATE[@RUN], one of digits-linf/going" in result.output


SUITE = {
    "name": "quick",
    "version": 1,
    "title": "Quick",
    "data": "digits",
    "n_examples": 16,
    "threat_model": {"norm": "Linf", "eps": 0.04},
    "protocols": {"standard": {"attacks": [{"name": "apgd-ce", "parameters": {"steps": 5}}]}},
}


@pytest.mark.parametrize("executor", ["local:1", "local:2"])
def test_a_run_writes_its_events_and_no_result_comes_from_them(
    write_submission: Callable[..., Path], tmp_path: Path, executor: str
) -> None:
    suite = tmp_path / "quick.yaml"
    suite.write_text(yaml.safe_dump(SUITE))
    folders = ["--results-dir", f"{tmp_path}/results", "--report-dir", f"{tmp_path}/reports"]
    command = ["run", "--suite", str(suite), "--candidate", str(write_submission()), *folders]
    assert CliRunner().invoke(main, [*command, "--executor", executor]).exit_code == 0
    store = Store(tmp_path / "results")
    folder = store.newest("quick/linear")
    lines = read_events(folder.path)
    kinds: set[Any] = {line["event"] for line in lines}
    expected = {"run-begins", "work-begins", "worker-joins", "shard-begins", "shard-ends"}
    assert kinds >= expected | {"stage", "block", "run-ends"}
    stages = {line["stage"] for line in lines if line["event"] == "shard-ends"}
    assert stages >= {"clean", "apgd-ce"}
    (folder.path / EVENTS).write_bytes(b"not a line of it")
    again = CliRunner().invoke(main, command)
    assert "nothing was computed" in again.output
    assert status.plain(StatusWatch(store, "quick/linear").look())["state"] == "complete"
