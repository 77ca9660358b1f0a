"""Runs that share workers end as each does alone, and none disturbs another."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from torch import nn

from bench.candidates.registry import find_candidates
from bench.engines import AttackTask
from bench.errors import EvaluationError
from bench.executors import dispatcher
from bench.executors.crew import Brief, Event, Joined, Lost, Order, Question
from bench.executors.crew_executor import CrewExecutor
from bench.executors.hand import Hand, answer_of
from bench.executors.in_process import InProcess
from bench.executors.ray_cluster import RayWorker, _versions
from bench.executors.sharing import Baton, Stopped
from bench.executors.shipment import pack
from bench.executors.stage import Executor
from bench.runs.many import evaluate_each
from bench.runs.samples import Samples
from bench.runs.settings import Settings
from bench.store import Store
from bench.suites import load_suite
from benchmarks.faults import compare, records_of, write_suites
from tests.executors.digits import digits_task, outcomes, run
from tests.executors.runs import Unseen
from tests.executors.test_local import FailsOnSome


class Hands:
    """Workers of this process, which answer in any order; some are lost, and others join."""

    device_type = None

    def __init__(self, size: int, seed: int, losses: float = 0.0) -> None:
        self.size = self.most = size
        self.given: list[tuple[str, nn.Module]] = []
        """Each worker that was given something, and the module that it is about."""
        self._draw = random.Random(seed)
        self._losses = losses
        self._hands: dict[str, Hand] = {}
        self._knows: dict[str, nn.Module] = {}
        self._events: list[Event] = []
        self._started = 0
        for _ in range(size):
            self._start()

    def _start(self) -> None:
        name = f"hand-{self._started}"
        self._started += 1
        self._hands[name] = Hand()
        self._events.append(Joined(name))

    def begin(self, brief: Brief, own: InProcess) -> None:
        """Do nothing: workers learn by what they are given."""

    def give(self, worker: str, brief: Brief, work: Order | Question) -> None:
        self.given.append((worker, brief.task.module))
        hand = self._hands[worker]
        if self._draw.random() < self._losses:
            del self._hands[worker]
            self._events.append(Lost(worker, "it was killed", began=self._draw.random() < 0.5))
            self._start()
            return
        if self._knows.get(worker) is not brief.task.module:
            hand.take(brief.task, 1)
            self._knows[worker] = brief.task.module
        hand.follow(brief.chain)
        self._events.append(answer_of(worker, hand.do(work)))

    def events(self, seconds: float) -> list[Event]:
        if not self._events:
            return []
        # One that replaces a lost worker joins after the loss, as its name comes later.
        place = self._draw.randrange(len(self._events))
        return [self._events.pop(place)]

    def end(self, brief: Brief, busy: Collection[str]) -> Collection[str]:
        self._events = [each for each in self._events if each.worker not in busy]
        for worker in busy:
            if self._hands.pop(worker, None) is not None:
                self._start()
        return busy

    def close(self) -> None:
        """Do nothing."""


def short_task(linear_digits: nn.Module, samples: int = 20) -> AttackTask:
    """Return the shortest attacks on a few digits, on a module of its own."""
    task = digits_task(nn.Sequential(linear_digits).eval(), samples)
    return replace(task, attacks=(task.attacks[0], task.attacks[-1]))


def side_by_side(
    works: Mapping[str, Callable[[Executor], object]],
    executor: CrewExecutor,
    stopped: threading.Event | None = None,
) -> dict[str, object]:
    """Return what came of works that share an executor, errors too; all end when it is stopped."""
    baton = Baton()
    found: dict[str, object] = {}

    def work(name: str, shared: CrewExecutor) -> None:
        try:
            with baton.held():
                found[name] = works[name](shared)
        except BaseException as error:
            found[name] = error

    with executor.shared(baton) as shared:
        threads = [threading.Thread(target=work, args=(name, shared)) for name in works]
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            if stopped is not None and stopped.is_set():
                break
            time.sleep(0.05)
        baton.stop()
    for each in threads:
        each.join(120)
        assert not each.is_alive()
    return found


@pytest.mark.parametrize(("workers", "losses", "seed"), [(1, 0.0, 0), (3, 0.0, 1), (2, 0.15, 2)])
def test_each_ends_as_alone(
    linear_digits: nn.Module, workers: int, losses: float, seed: int
) -> None:
    tasks = {
        "one": short_task(linear_digits),
        "two": short_task(linear_digits, 30),
        "three": replace(short_task(linear_digits, 12), seed=5),
        "fails": digits_task(FailsOnSome(linear_digits, digits_task(linear_digits).images).eval()),
    }
    crew = Hands(workers, seed, losses)
    found = side_by_side(
        {name: lambda shared, task=task: run(task, shared) for name, task in tasks.items()},
        CrewExecutor(crew, InProcess()),
    )
    failure = found.pop("fails")
    assert isinstance(failure, EvaluationError)
    assert "this one" in str(failure)
    assert len(found) == 3
    for name, blocks in found.items():
        assert isinstance(blocks, dict), blocks
        assert outcomes(blocks) == outcomes(run(tasks[name]))


def test_all_end_when_they_are_stopped(linear_digits: nn.Module) -> None:
    stopped = threading.Event()

    class Stops(Hands):
        def events(self, seconds: float) -> list[Event]:
            if len(self.given) > 6:
                stopped.set()
                time.sleep(0.05)
            return super().events(seconds)

    tasks = [short_task(linear_digits) for _ in range(3)]
    works = {str(n): lambda shared, task=task: run(task, shared) for n, task in enumerate(tasks)}
    found = side_by_side(works, CrewExecutor(Stops(2, 0), InProcess()), stopped)
    assert [type(each) for each in found.values()] == [Stopped] * 3


def test_what_breaks_the_crew_ends_all(linear_digits: nn.Module) -> None:
    class Breaks(Hands):
        def events(self, seconds: float) -> list[Event]:
            if len(self.given) > 4:
                raise EvaluationError("the cluster is lost")
            return super().events(seconds)

    tasks = [short_task(linear_digits) for _ in range(2)]
    works = {str(n): lambda shared, task=task: run(task, shared) for n, task in enumerate(tasks)}
    found = side_by_side(works, CrewExecutor(Breaks(2, 0), InProcess()))
    assert [str(each) for each in found.values()] == ["the cluster is lost"] * 2


def test_a_fault_of_the_dispatcher_is_no_reason_to_wait_for_ever(linear_digits: nn.Module) -> None:
    class Faulty(Hands):
        def events(self, seconds: float) -> list[Event]:
            if self.given:
                raise KeyError("a fault")
            return super().events(seconds)

    task = short_task(linear_digits, 10)
    baton = Baton()
    found = []
    with CrewExecutor(Faulty(1, 0), InProcess()).shared(baton) as shared, baton.held():
        for _ in range(2):  # the second job comes after the end of the dispatcher's thread
            try:
                run(task, shared)
            except KeyError as error:
                found.append(error.args)
    assert found == [("a fault",)] * 2


def test_one_that_kills_workers_does_not_take_the_others_down(
    linear_digits: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MOST_LOST_IN_A_ROW", 4)
    tasks = {name: short_task(linear_digits) for name in ("bad", "good")}

    class Killed(Hands):
        def give(self, worker: str, brief: Brief, work: Order | Question) -> None:
            if brief.task.module is tasks["bad"].module and isinstance(work, Order):
                del self._hands[worker]
                self._events.append(Lost(worker, "it was killed"))
                self._start()
                return
            super().give(worker, brief, work)

    crew = Killed(5, 0)
    works = {name: lambda shared, task=task: run(task, shared) for name, task in tasks.items()}
    executor = CrewExecutor(crew, InProcess())
    for _ in range(2):
        found = side_by_side(works, executor)
        assert isinstance(found["bad"], EvaluationError)
        assert isinstance(found["good"], dict), found["good"]
    assert outcomes(found["good"]) == outcomes(run(tasks["good"]))


def test_what_one_candidate_cannot_be_unpacked_for_does_not_stay_with_the_worker() -> None:
    worker = RayWorker(_versions())
    worker.take(1, b"no pickle")
    assert b"cannot be unpacked" in worker.do(1, 1, b"")
    worker.take(2, pack(digits_task(nn.Flatten(), 2)))
    worker.follow(3, pack(()))
    assert b"cannot be unpacked" not in worker.do(2, 3, pack(None))


def test_what_cannot_be_sent_ends_one_run(linear_digits: nn.Module) -> None:
    tasks = [short_task(linear_digits) for _ in range(2)]

    class Refuses(Hands):
        def give(self, worker: str, brief: Brief, work: Order | Question) -> None:
            if brief.task.module is tasks[0].module and isinstance(work, Order) and work.stage > 0:
                raise EvaluationError("it cannot be sent")
            super().give(worker, brief, work)

    works = {str(n): lambda shared, task=task: run(task, shared) for n, task in enumerate(tasks)}
    found = side_by_side(works, CrewExecutor(Refuses(2, 0), InProcess()))
    assert str(found["0"]) == "it cannot be sent"
    assert isinstance(found["1"], dict)
    assert outcomes(found["1"]) == outcomes(run(tasks[1]))


def test_candidates_that_share_workers_have_the_records_of_one_after_the_other(
    tmp_path: Path,
) -> None:
    write_suites(tmp_path)
    suite = load_suite(str(tmp_path / "faults-linf.yaml"))
    settings = Settings(suite, protocol="standard", n_examples=24)
    names = ["digits-standard", "digits-robust", "digits-mix"]
    references = find_candidates(names, suite)
    told: list[str] = []

    def observed(name: str) -> Unseen:
        told.append(name)
        return Unseen()

    found: dict[str, dict[str, dict[str, pd.DataFrame]]] = {}
    for kind, executor in (("alone", None), ("shared", CrewExecutor(Hands(2, 3), InProcess()))):
        store = Store(tmp_path / kind)
        samples = Samples(settings, None)
        turns = list(
            evaluate_each(references, settings, samples, store, observed, executor=executor)
        )
        assert {turn.name for turn in turns} == set(names)
        assert all(turn.result is not None for turn in turns), turns
        found[kind] = {
            each.manifest.candidate: records_of(store.folder(each.manifest))
            for each in store.summaries()
        }
    assert sorted(told) == sorted(names * 2)
    for name in names:
        compare(found["alone"][name], found["shared"][name])


def test_one_that_is_lost_before_it_begins_is_not_the_shards_fault(
    linear_digits: nn.Module,
) -> None:
    class DiesIdle(Hands):
        left = 30

        def give(self, worker: str, brief: Brief, work: Order | Question) -> None:
            if self.left and isinstance(work, Order):
                self.left -= 1
                del self._hands[worker]
                self._events.append(Lost(worker, "its node is gone", began=False))
                self._start()
                return
            super().give(worker, brief, work)

    task = short_task(linear_digits, 10)
    blocks = run(task, CrewExecutor(DiesIdle(1, 0), InProcess()))
    assert outcomes(blocks) == outcomes(run(task))
