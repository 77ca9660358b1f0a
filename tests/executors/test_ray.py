"""A Ray cluster of two nodes ends as this process alone does, whatever happens to its parts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pandas as pd
import psutil
import pytest
from torch import Tensor, nn

from bench.candidates.registry import find_candidates
from bench.data import load_source
from bench.executors.choice import ExecutorChoice, executing
from bench.executors.events import NoEvents
from bench.executors.here import ThisMachine
from bench.executors.stage import Executor
from bench.runs.many import evaluate_each
from bench.runs.samples import Samples
from bench.runs.session import evaluate
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite
from bench.suites.suite import AttackChoice
from benchmarks.faults import COMMANDS, compare, records, records_of, write_suites
from tests.executors.cluster import Cluster, environment, two_nodes
from tests.executors.digits import digits_task, outcomes, run
from tests.executors.runs import Unseen, results_of
from tests.executors.test_local import FailsOnSome, KillsItsProcess

pytest.importorskip("ray")
Result = TypeVar("Result")
SECONDS = 240.0
"""A fault is noticed, and its work done again, in far less."""


class Heard(NoEvents):
    """Keeps which workers joined and which were lost."""

    def __init__(self) -> None:
        self.joined: list[str] = []
        self.lost: list[str] = []

    def worker_joins(self, worker: str) -> None:
        self.joined.append(worker)

    def worker_lost(self, worker: str, reason: str) -> None:
        self.lost.append(reason)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        for name, value in environment().items():
            patch.setenv(name, value)
        with two_nodes() as started:
            yield started


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def on_ray(cluster: Cluster, heard: Heard) -> Iterator[Executor]:
    with executing(ExecutorChoice("ray", cluster.address)) as executor:
        yield executor.following(heard)


def test_two_nodes_end_as_one_process_does(on_ray: Executor, tmp_path: Path) -> None:
    machine = ThisMachine(2)
    for kind in COMMANDS:
        alone = results_of(kind, ThisMachine(1), tmp_path)
        compare(alone, results_of(kind, on_ray, tmp_path, batch_size=7))
        compare(alone, results_of(kind, machine, tmp_path, batch_size=5))
    machine.close()


def test_candidates_that_share_the_cluster_have_the_records_of_one_after_the_other(
    on_ray: Executor, tmp_path: Path
) -> None:
    write_suites(tmp_path)
    suite = load_suite(str(tmp_path / "faults-linf.yaml"))
    settings = Settings(suite, protocol="standard", n_examples=24)
    names = ["digits-standard", "digits-robust", "digits-mix"]
    found: list[dict[str, dict[str, pd.DataFrame]]] = []
    for executor in (ThisMachine(1), on_ray):
        store = Store(tmp_path / str(len(found)))
        turns = evaluate_each(
            find_candidates(names, suite),
            settings,
            Samples(settings, None),
            store,
            lambda _: Unseen(),
            executor=executor,
        )
        results = [turn.result for turn in turns]
        assert all(result is not None for result in results)
        found.append(
            {
                each.manifest.candidate: records_of(store.folder(each.manifest))
                for each in store.summaries()
            }
        )
    for name in names:
        compare(found[0][name], found[1][name])


def test_faults_of_workers_and_candidates(
    on_ray: Executor, heard: Heard, linear_digits: nn.Module, tmp_path: Path
) -> None:
    expected = outcomes(run(digits_task(linear_digits)))
    # Two workers are killed in their shards; the next chain has all workers again.
    killing = digits_task(KillsItsProcess(linear_digits, tmp_path, 2).eval())
    assert outcomes(run(killing, on_ray)) == expected
    assert len(heard.lost) == 2
    # The candidate raises an error on one sample.
    marked = digits_task(linear_digits).images[5:6]
    failing = run(digits_task(FailsOnSome(linear_digits, marked).eval()), on_ray)
    assert [row for row in outcomes(failing) if row[1] != 5] == [
        row for row in expected if row[1] != 5
    ]
    assert ("clean", 5, "failed") in [row[:3] for row in outcomes(failing)]


@pytest.mark.slow
@pytest.mark.cifar
def test_cifar_images_end_the_same_in_other_batches(
    on_ray: Executor, data_dir: Path, tmp_path: Path
) -> None:
    suite = load_suite("cifar100-linf")
    short = (
        AttackChoice(name="apgd-ce", parameters={"steps": 20}),
        AttackChoice(name="apgd-t", parameters={"steps": 10, "targets": 3}),
        AttackChoice(name="fab-t", parameters={"steps": 10, "targets": 3}),
        AttackChoice(name="square", parameters={"queries": 200}),
    )
    protocol = suite.protocols["standard"].model_copy(update={"attacks": short})
    suite = suite.model_copy(update={"protocols": {**suite.protocols, "standard": protocol}})
    (reference,) = find_candidates(["cifar100-robust"], suite)
    images = load_source(suite.data, data_dir, 64)
    machine = ThisMachine(2)
    found = []
    for executor, batch_size in ((ThisMachine(1), None), (machine, 16), (on_ray, 24)):
        settings = Settings(suite, protocol="standard", n_examples=64, batch_size=batch_size)
        store = Store(tmp_path / str(batch_size))
        result = evaluate(reference.load(), images, settings, store, Unseen(), executor=executor)
        tables = records_of(result.folder)
        samples = tables["samples"][["index", "clean_prediction", "robust", "broken_by"]]
        found.append((samples, tables["attempts"][["attack", "index", "outcome"]]))
    machine.close()
    for samples, attempts in found[1:]:
        pd.testing.assert_frame_equal(samples, found[0][0])
        pd.testing.assert_frame_equal(attempts, found[0][1])


class Slow(nn.Module):
    """Takes some time for each pass, in workers only."""

    def __init__(self, inner: nn.Module, seconds: float) -> None:
        super().__init__()
        self.inner = inner
        self.seconds = seconds
        self.home = os.getpid()

    def forward(self, images: Tensor) -> Tensor:
        if os.getpid() != self.home:
            time.sleep(self.seconds)
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.slow
def test_a_node_is_lost_and_another_joins(
    cluster: Cluster, on_ray: Executor, heard: Heard, linear_digits: nn.Module
) -> None:
    expected = outcomes(run(digits_task(linear_digits)))
    task = digits_task(Slow(linear_digits, 0.1).eval())

    def disturb() -> None:
        _wait_until(lambda: len(heard.joined) >= 2)
        cluster.remove(cluster.nodes[-1])
        cluster.add()

    assert _beside(disturb, lambda: outcomes(run(task, on_ray))) == expected
    assert heard.lost


@pytest.mark.slow
def test_a_node_that_does_not_answer_for_a_minute(
    cluster: Cluster, on_ray: Executor, heard: Heard, linear_digits: nn.Module
) -> None:
    """Its processes are held, so that nothing comes from it, as if its cable was pulled."""
    expected = outcomes(run(digits_task(linear_digits)))
    task = digits_task(Slow(linear_digits, 0.1).eval())

    def disturb() -> None:
        _wait_until(lambda: len(heard.joined) >= 2)
        node = cluster.nodes[-1]
        node.send(signal.SIGSTOP)
        time.sleep(60)
        node.send(signal.SIGCONT)

    assert _beside(disturb, lambda: outcomes(run(task, on_ray))) == expected
    if not cluster.nodes[-1].lives:  # Ray lets no node back in that it has given up
        cluster.remove(cluster.nodes[-1])
        cluster.add()


def _command(cluster: Cluster, folder: Path) -> list[str]:
    """Return an evaluation on the cluster, and write its suite."""
    write_suites(folder)
    return [
        *("run", "--suite", str(folder / "faults-linf.yaml"), "--candidate", "digits-robust"),
        *("--protocol", "standard", "--executor", f"ray:{cluster.address}", "--device", "cpu"),
        *("--results-dir", str(folder / "results"), "--report-dir", str(folder / "reports")),
    ]


def _driver(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `bench`, anew: a process that has spoken to Ray cannot fork one that does."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _blocks(folder: Path) -> list[Path]:
    return list((folder / "results").rglob("parts/*.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_driver_is_stopped(cluster: Cluster, tmp_path: Path, number: signal.Signals) -> None:
    command, log = _command(cluster, tmp_path), tmp_path / "log"
    driver = _driver(command, log)
    _wait_until(lambda: bool(_blocks(tmp_path)) or driver.poll() is not None)
    actors = [each for node in cluster.nodes for each in node.actors]
    driver.send_signal(number)
    code = driver.wait(SECONDS)
    assert code in (0, -number, 128 + number), log.read_text()
    if code > 0:
        assert log.read_text().splitlines()[-1] == "stopped; the same command goes on"
    assert "Traceback" not in log.read_text()
    assert not psutil.wait_procs(actors, 60)[1]
    assert _driver(command, log).wait(SECONDS) == 0, log.read_text()
    records(tmp_path / "results")


@pytest.mark.slow
def test_a_lost_cluster_ends_the_run_and_another_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with two_nodes() as first:
        driver = _driver(_command(first, tmp_path), log)
        _wait_until(lambda: bool(_blocks(tmp_path)) or driver.poll() is not None)
        for node in reversed(list(first.nodes)):
            first.remove(node)
        code = driver.wait(SECONDS)
        assert code in (0, 1), log.read_text()
        if code:
            # Where Ray notices first, it ends the process itself, with a line of its own.
            assert re.search("goes on|Failed to connect to GCS", log.read_text().splitlines()[-1])
    with two_nodes() as second:
        assert _driver(_command(second, tmp_path), log).wait(SECONDS) == 0, log.read_text()


def _beside(disturb: Callable[[], None], work: Callable[[], Result]) -> Result:
    """Return what comes of a work beside which something else happens."""
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        return work()
    finally:
        thread.join()


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    assert holds()
