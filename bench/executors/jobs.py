"""What a crew is asked to do for a run, and how its workers' answers become the run's blocks.

Workers are spoken to by whoever gives out work, which may be another thread than the run's own. So
a job only decides what is done next; all that the run is to be told waits as updates, which the
run's thread calls.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from bench.errors import EvaluationError, InputError
from bench.executors.crew import Brief, Failed, Lost, Order, Question
from bench.executors.events import Events
from bench.executors.parcels import pack_samples, unpack_blocks
from bench.executors.progress import Progress
from bench.executors.schedule import Schedule, Shard, StageShape
from bench.executors.stage import Numbering, Setup, Stage, blocks_of, standing, unsettled
from bench.executors.tally import Tally
from bench.store.records import Block

Update = Callable[[], Iterable[Any]]
"""Tells the run something; returns what it yields, and raises what ended the job."""


@dataclass
class Losses:
    """Workers that were lost with what they had, since one last finished something.

    Attributes:
        begun: those that had begun it.
        others: those that were gone before.
    """

    begun: int = 0
    others: int = 0


class Job(ABC):
    """Something to do for workers, one brief's worth.

    Attributes:
        brief: what workers must know.
        updates: for the run's thread; after the last one comes None.
        is_over: whether nothing is left to do, or the job has failed.
        losses: the workers that were lost since one last finished something.
    """

    def __init__(self, brief: Brief) -> None:
        self.brief = brief
        self.updates: SimpleQueue[Update | None] = SimpleQueue()
        self.is_over = False
        self.losses = Losses()

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """What waits."""

    @abstractmethod
    def next_for(
        self, worker: str, workers: int, *, patient: bool = False
    ) -> Order | Question | None:
        """Return what a free worker gets, which has it from then on; None: nothing waits.

        Args:
            worker: its name.
            workers, patient: see `Schedule.next_shard`.
        """

    @abstractmethod
    def finished(self, worker: str, data: bytes) -> None:
        """Take what a worker answered."""

    @abstractmethod
    def lost(self, event: Lost) -> None:
        """Note that a worker is no more; what it had waits again."""

    @abstractmethod
    def left(self, worker: str) -> None:
        """Note that a worker goes over to another job."""

    def failed(self, event: Failed) -> None:
        """End the job by what a worker's work raised."""
        self.fail((InputError if event.is_input else EvaluationError)(event.text))

    def fail(self, error: BaseException) -> None:
        """End the job by an error."""
        box = [error]

        def update() -> Iterable[Any]:
            # Kept here, the error would keep the run's frames, and with them the candidate.
            raise box.pop()

        self.updates.put(update)
        self._end()

    def _end(self) -> None:
        self.is_over = True
        self.updates.put(None)


class QuestionJob(Job):
    """One question, which any worker may answer."""

    def __init__(self, task: Any, setup: Setup, question: Callable[[Any], Any]) -> None:
        super().__init__(Brief(task, ()))
        self._question = Question(setup, question)
        # Nothing that follows can begin before it is answered, so it goes before all else.
        self._schedule = Schedule([StageShape(float("inf"), 1)])
        self._schedule.enter(0, [0])
        self._shard: Shard | None = None

    @property
    def schedule(self) -> Schedule:
        """The question, as long as it waits."""
        return self._schedule

    def next_for(
        self, worker: str, workers: int, *, patient: bool = False
    ) -> Order | Question | None:
        """Return the question, unless a worker has it."""
        shard = self._schedule.next_shard(1)
        if shard is None:
            return None
        self._shard = shard
        return self._question

    def finished(self, worker: str, data: bytes) -> None:
        """Pass the answer on."""
        self.updates.put(lambda: [json.loads(data)])
        self._end()

    def left(self, worker: str) -> None:
        """Do nothing: it has answered."""

    def lost(self, event: Lost) -> None:
        """Ask again."""
        shard, self._shard = self._shard, None
        if shard is not None and not self._schedule.lost(shard, began=event.began):
            self.fail(_died(event))


class ChainJob(Job):
    """Samples on their way through a chain of stages; see `bench.executors.stage.Executor.do`."""

    def __init__(
        self,
        task: Any,
        chain: Sequence[Stage],
        rows: Tensor,
        finished: Mapping[str, Any],
        report: Callable[[Progress], None],
        events: Events,
    ) -> None:
        super().__init__(Brief(task.part(slice(0, 0)), chain))
        self._task = task
        self._chain = chain
        self._events = events
        self._numbering = Numbering(finished)
        self._blocks = [blocks_of(finished, stage.prefix) for stage in chain]
        self._tally = Tally(chain, len(task.labels), report)
        self._schedule = Schedule([_shape(stage, task.batch_size) for stage in chain])
        self._busy: dict[str, tuple[Shard, float]] = {}
        self._workers: set[str] = set()
        self._count(self._enter(0, rows))
        if self._schedule.is_done:
            self._end()

    @property
    def schedule(self) -> Schedule:
        """The samples that wait, and those that workers have."""
        return self._schedule

    def next_for(
        self, worker: str, workers: int, *, patient: bool = False
    ) -> Order | Question | None:
        """Return a shard."""
        shard = self._schedule.next_shard(workers, patient=patient)
        if shard is None:
            return None
        stage = self._chain[shard.stage]
        if worker not in self._workers:
            self._workers.add(worker)
            self._tell(self._events.worker_joins, worker)
        self._busy[worker] = shard, time.monotonic()
        self._tell(self._events.shard_begins, worker, stage.name, len(shard.rows))
        part = self._task.part(torch.tensor(shard.rows))
        own = stage.work.of(part.indices.numpy())
        return Order(shard.stage, pack_samples(part), None if own is stage.work else own)

    def finished(self, worker: str, data: bytes) -> None:
        """Let the samples that survive go on to the next stage; pass the blocks on."""
        shard, began = self._busy.pop(worker)
        seconds = time.monotonic() - began
        stage = self._chain[shard.stage]
        blocks, facts = unpack_blocks(data)
        rows = torch.tensor(shard.rows)
        left = standing(self._task, rows, stage, blocks)
        cost = float(facts["cost"])
        # A worker's first shard also waited until the candidate was loaded there.
        working = sum(block.seconds for block in blocks)
        self._schedule.finished(shard, len(left), min(seconds, working))
        entered = self._enter(shard.stage + 1, left)
        workers, at_work = len(self._workers), len(self._busy) + 1
        named = [replace(block, key=self._numbering.key(block.key)) for block in blocks]

        def update() -> Iterable[Block]:
            self._events.shard_ends(worker, stage.name, len(rows), seconds, cost)
            yield from (_shared(block, at_work) for block in named)
            self._tally.add(shard.stage, len(rows), len(rows) - len(left), cost)
            self._count(entered)
            self._tally.show(shard.stage, workers=workers)

        self.updates.put(update)
        if self._schedule.is_done:
            self._end()

    def lost(self, event: Lost) -> None:
        """Let the shard of a lost worker wait again."""
        if event.worker in self._workers:
            self._workers.remove(event.worker)
            self._tell(self._events.worker_lost, event.worker, event.reason)
        held = self._busy.pop(event.worker, None)
        if held is not None and not self._schedule.lost(held[0], began=event.began):
            self.fail(_died(event))

    def left(self, worker: str) -> None:
        """Tell the run that it has a worker less."""
        if worker in self._workers:
            self._workers.remove(worker)
            self._tell(self._events.worker_leaves, worker)

    def _tell(self, event: Callable[..., None], *facts: Any) -> None:
        def update() -> Iterable[Block]:
            event(*facts)
            return ()

        self.updates.put(update)

    def _enter(self, stage: int, rows: Tensor) -> list[tuple[int, int, int, int]]:
        """Let samples (n,) wait for a stage, or for the first after it that is not settled.

        Returns:
            of each stage its number, how many samples entered it, and how many of them earlier
            blocks settle and break.
        """
        entered = []
        for number in range(stage, len(self._chain)):
            each, blocks = self._chain[number], self._blocks[number]
            left = unsettled(self._task, rows, each, blocks)
            after = standing(self._task, rows, each, blocks)
            entered.append((number, len(rows), len(rows) - len(left), len(rows) - len(after)))
            self._schedule.enter(number, left.tolist())
            # What waits here is not in any block, so it survives; the rest of what does goes on.
            rows = after[~torch.isin(after, left)]
        return entered

    def _count(self, entered: Sequence[tuple[int, int, int, int]]) -> None:
        """Tell the tally what entered."""
        for stage, samples, settled, lost in entered:
            self._tally.enter(stage, samples)
            self._tally.add(stage, settled, lost, 0.0)


def _died(event: Lost) -> EvaluationError:
    return EvaluationError(
        f"a worker ended before its samples were done: {event.reason}; the same command goes on "
        "with what is finished"
    )


def _shape(stage: Stage, batch_size: int) -> StageShape:
    return StageShape(stage.cost, max(1, batch_size), stage.exactly, stage.filled_by)


def _shared(block: Block, workers: int) -> Block:
    """Return a block with its share of the time that passed: several workers were at work."""
    attempts = getattr(block, "attempts", None)
    if attempts is not None:
        attempts = replace(attempts, seconds=attempts.seconds / workers)
        block = replace(block, attempts=attempts)  # type: ignore[call-arg]
    return replace(block, seconds=block.seconds / workers)
