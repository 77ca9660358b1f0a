"""Gives the free workers of a crew what jobs have for them."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from bench.errors import EvaluationError
from bench.executors.crew import Crew, Failed, Finished, Joined, Lost, Order, Question
from bench.executors.in_process import InProcess
from bench.executors.jobs import Job, Losses, Update
from bench.executors.need import in_order_of_need

SECONDS_TO_WAIT = 1.0
"""Between two looks at a crew that says nothing."""
MOST_LOST_IN_A_ROW = 20
"""With so many workers lost in a job and nothing finished between, it ends. With so many lost that
had nothing to do, and nothing finished by any, all end."""
MOST_GONE_IN_A_ROW = 1000
"""The same for workers that were gone before they began: a large node may be lost as it waits."""


class Desk(Protocol):
    """Where a run hands in a job."""

    def working(self, job: Job, own: InProcess) -> AbstractContextManager[Iterator[Update]]:
        """Let a crew do a job within this context, and wait for its updates as they are asked for.

        What is still under way at the end of the context is given up.

        Args:
            job: what is to be done.
            own: the run's own worker, see `Crew.begin`.
        """


class Dispatcher:
    """Knows which workers are free, and which job each of the others works for.

    Args:
        crew: the workers.
    """

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._jobs: list[Job] = []
        self._free: list[str] = []
        self._has: dict[str, Job] = {}
        self._last: dict[str, Job] = {}
        """The job, if it is under way, that each worker was given work of last."""
        self._knows: dict[str, weakref.ref[Any]] = {}
        """The module that each worker was given work for last."""
        self._lost_idle = 0

    @property
    def has_jobs(self) -> bool:
        """Whether there is anything to give out, or to wait for."""
        return any(not job.is_over for job in self._jobs)

    @contextlib.contextmanager
    def working(self, job: Job, own: InProcess) -> Iterator[Iterator[Update]]:
        """Let the crew do a job, in this thread."""
        self.prepare(job, own)
        self.begin(job)
        try:
            yield self._updates(job)
        finally:
            self.end(job)

    def prepare(self, job: Job, own: InProcess) -> None:
        """Make the crew ready for a job; may take long, and any thread may do it."""
        self.crew.begin(job.brief, own)

    def begin(self, job: Job) -> None:
        """Give out what a job has, from now on."""
        if not self.has_jobs:
            self._lost_idle = 0
        self._jobs.append(job)

    def end(self, job: Job) -> None:
        """Give up what is left of a job."""
        self._jobs.remove(job)
        busy = [worker for worker, its in self._has.items() if its is job]
        gone = set(self.crew.end(job.brief, busy))
        for worker in busy:
            del self._has[worker]
        self._free = [worker for worker in self._free if worker not in gone]
        self._last = {worker: its for worker, its in self._last.items() if its is not job}
        self._knows = {worker: its for worker, its in self._knows.items() if worker not in gone}

    def step(self, seconds: float) -> None:
        """Give out what there is, then note what happened within so many seconds."""
        self._share_out()
        try:
            for event in self.crew.events(seconds):
                if isinstance(event, Joined):
                    self._free.append(event.worker)
                elif isinstance(event, Lost):
                    self._lost(event)
                elif (job := self._has.pop(event.worker, None)) is not None:
                    self._free.append(event.worker)
                    self._lost_idle = 0
                    self._answered(job, event)
        except EvaluationError as error:  # the crew as a whole is lost
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End all jobs by an error."""
        for job in self._jobs:
            if not job.is_over:
                job.fail(copy.copy(error))  # each is raised in another thread

    def _updates(self, job: Job) -> Iterator[Update]:
        while True:
            while job.updates.empty():
                self.step(SECONDS_TO_WAIT)
            update = job.updates.get()
            if update is None:
                return
            yield update

    def _answered(self, job: Job, event: Finished | Failed) -> None:
        if job.is_over:
            return
        job.losses = Losses()
        try:
            if isinstance(event, Failed):
                job.failed(event)
            else:
                job.finished(event.worker, event.data)
        except Exception as error:  # what came is of no use; other jobs go on
            job.fail(error)

    def _lost(self, event: Lost) -> None:
        if event.worker in self._free:
            self._free.remove(event.worker)
        last, holds = self._last.pop(event.worker, None), self._has.pop(event.worker, None)
        self._knows.pop(event.worker, None)
        if last is not None and not last.is_over:
            last.lost(event)
        if holds is None:
            self._lost_idle += 1
            if self._lost_idle >= MOST_LOST_IN_A_ROW:
                self.fail(_too_many(self._lost_idle, event))
                self._lost_idle = 0
        elif not holds.is_over:
            # One that was gone before its shard began says nothing about the shard.
            losses = holds.losses
            losses.begun += event.began
            losses.others += not event.began
            if losses.begun >= MOST_LOST_IN_A_ROW or losses.others >= MOST_GONE_IN_A_ROW:
                holds.fail(_too_many(losses.begun + losses.others, event))

    def _share_out(self) -> None:
        # What one worker does not get, none gets.
        while self._free and self._give(self._free[0]):
            del self._free[0]

    def _give(self, worker: str) -> bool:
        """Give a free worker something; return whether there is anything."""
        jobs = [job for job in self._jobs if not job.is_over]
        known = self._knows[worker]() if worker in self._knows else None
        own = next((n for n, job in enumerate(jobs) if job.brief.task.module is known), None)
        busy = list(self._has.values())
        order = list(
            in_order_of_need([job.schedule for job in jobs], [busy.count(job) for job in jobs], own)
        )
        # A worker that has something else to do takes no small shards of what is not complete yet.
        ways = [(1, True)] if len(jobs) > 1 else []
        for workers, patient in [*ways, (self.crew.size, False)]:
            for place in order:
                job = jobs[place]
                try:
                    work = job.next_for(worker, workers, patient=patient)
                    if work is not None:
                        self._hand_over(worker, job, work)
                        return True
                except Exception as error:  # such as what cannot be sent; other jobs go on
                    self._has.pop(worker, None)
                    job.fail(error)
                    return False
        return False

    def _hand_over(self, worker: str, job: Job, work: Order | Question) -> None:
        last = self._last.get(worker)
        if last is not None and last is not job:
            last.left(worker)
        self._last[worker] = self._has[worker] = job
        self._knows[worker] = weakref.ref(job.brief.task.module)
        self.crew.give(worker, job.brief, work)


def _too_many(count: int, event: Lost) -> EvaluationError:
    return EvaluationError(
        f"{count} workers were lost one after the other, the last one for this reason: "
        f"{event.reason}; the same command goes on with what is finished"
    )
