"""What an evaluation would need: downloads, and the time and the price of workers."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import data
from bench.candidates import CandidateReference
from bench.engines.engine import without_samples
from bench.executors.choice import LOCAL, ExecutorChoice
from bench.executors.parcels import pack_samples, with_samples
from bench.executors.stage import Executor, Setup, Worker
from bench.runs.estimate import Estimate
from bench.runs.kind import RunnableKind
from bench.runs.samples import Samples
from bench.runs.session import Plan, make_plan
from bench.runs.settings import Settings


@dataclass(frozen=True)
class Prospect:
    """What evaluating a candidate would need.

    Attributes:
        missing: what has to be downloaded; empty if nothing.
        estimate: the time until the last worker ends; None if something is missing.
        workers: how many share the work.
    """

    name: str
    missing: str
    estimate: Estimate | None
    workers: int = 1

    @property
    def worker_hours(self) -> tuple[float, float] | None:
        """Hours of all workers together until the last one ends, at least and at most."""
        if self.estimate is None:
            return None
        low, high = self.estimate.low, self.estimate.high
        return low * self.workers / 3600, high * self.workers / 3600


def prospects(
    references: Iterable[CandidateReference],
    settings: Settings,
    data_dir: Path | None,
    choice: ExecutorChoice,
    executor: Executor,
) -> list[Prospect]:
    """Return what evaluating each candidate would need, estimated from a few measured passes.

    A worker measures them: its device may be another one than this process has.
    """
    absent = data.missing(settings.suite.data, data_dir)
    samples = Samples(settings, data_dir)
    workers = planned_workers(choice, executor, settings.device)
    found = []
    for reference in references:
        availability = reference.availability()
        missing = "; ".join(note for note in (absent, availability.note) if note)
        time = None
        if availability.here and absent is None:
            candidate = reference.load()
            plan = make_plan(candidate, samples.of(candidate), settings)
            with _threads_of_a_worker(choice, workers, settings.device):
                time = estimated(plan, executor)
        time = None if time is None else time.shared(_at_once(choice, workers, settings.device))
        found.append(Prospect(reference.name, missing, time, workers))
    return found


def planned_workers(choice: ExecutorChoice, executor: Executor, device: torch.device) -> int:
    """Return how many workers a plan has: those asked for, or those that there are.

    The cores of this machine count as one worker, unless a number is asked for.
    """
    if choice.kind != LOCAL:
        return executor.workers
    return choice.workers or (_units(device) if device.type == "cuda" else 1)


def _at_once(choice: ExecutorChoice, workers: int, device: torch.device) -> int:
    """Return how many of the workers make progress at the same time."""
    return min(workers, _units(device)) if choice.kind == LOCAL else workers


def _units(device: torch.device) -> int:
    """Return the GPUs of this machine, or its cores."""
    count = torch.cuda.device_count() if device.type == "cuda" else torch.get_num_threads()
    return max(1, count)


def estimated(plan: Plan, executor: Executor) -> Estimate | None:
    """Return how long one worker of an executor would take for a planned run; None if unknown."""
    task = plan.task
    few = min(len(task.labels), task.batch_size)
    measured = MeasuredSample(plan.kind, pack_samples(task.part(slice(0, few))))
    bounds = executor.ask(without_samples(task), measured, bounds_of)
    return None if bounds is None else Estimate(*bounds).of(len(task.labels) / few)


@dataclass(frozen=True, eq=False)
class MeasuredSample(Setup):
    """The estimate for a few samples, measured where it is made.

    Attributes:
        kind: of the run; it estimates.
        samples: arrays, see `bench.executors.parcels.pack_samples`.
    """

    kind: RunnableKind
    samples: Mapping[str, Any]

    @property
    def key(self) -> Hashable:
        """What tells it from the setups of engines."""
        return "estimate"

    def make(self, worker: Worker) -> Estimate | None:
        """Measure."""
        return self.kind.estimate(with_samples(worker.task, self.samples))


def bounds_of(estimate: Estimate | None) -> tuple[float, float, float] | None:
    """Return an estimate as plain data."""
    return None if estimate is None else (estimate.low, estimate.high, estimate.alone)


@contextlib.contextmanager
def _threads_of_a_worker(
    choice: ExecutorChoice, workers: int, device: torch.device
) -> Iterator[None]:
    """Compute on one core in this context, if a worker of this machine has no more."""
    threads = torch.get_num_threads()
    if choice.kind == LOCAL and device.type == "cpu" and workers > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
