"""Workers beyond this process, and the one driver that gives them shards.

How workers are started and spoken to is up to a crew: forked or new processes of this machine
(`local.py`), or actors of a Ray cluster (`ray_cluster.py`). What they get, and what happens when
one is lost, is the same for all, and here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.errors import EvaluationError, InputError
from bench.executors.events import Events, NoEvents
from bench.executors.in_process import InProcess
from bench.executors.parcels import pack_samples, unpack_blocks
from bench.executors.progress import Progress
from bench.executors.schedule import Schedule, Shard, StageShape
from bench.executors.stage import (
    Numbering,
    Setup,
    Stage,
    blocks_of,
    standing,
    unsettled,
)
from bench.executors.tally import Tally
from bench.store.records import Block

SECONDS_TO_WAIT = 1.0
"""Between two looks at a crew that says nothing."""
MOST_LOST_IN_A_ROW = 20
"""With so many workers lost and not one shard finished between, the run ends."""


@dataclass(frozen=True)
class Brief:
    """What a worker must know for the shards of a chain.

    Attributes:
        task: the module; without samples.
        chain: the stages.
    """

    task: Any
    chain: Sequence[Stage]


@dataclass(frozen=True)
class Order:
    """A shard for a worker.

    Attributes:
        stage: its stage's number in the chain.
        samples: arrays of the samples, see `bench.executors.parcels.pack_samples`.
        work: of the stage, with no more than what these samples need; None: the chain's own.
    """

    stage: int
    samples: Mapping[str, Any]
    work: Any = None


@dataclass(frozen=True)
class Finished:
    """A worker finished its shard; `data` is of `pack_blocks`."""

    worker: str
    data: bytes


@dataclass(frozen=True)
class Failed:
    """A worker's shard raised an error; the worker goes on.

    Attributes:
        worker: its name.
        is_input: whether the user's input is at fault.
        text: for the user.
    """

    worker: str
    is_input: bool
    text: str


@dataclass(frozen=True)
class Lost:
    """A worker is no more, for the reason given."""

    worker: str
    reason: str


@dataclass(frozen=True)
class Joined:
    """A worker is ready for shards."""

    worker: str


Event = Finished | Failed | Lost | Joined


class Crew(Protocol):
    """Workers that do shards of one chain at a time."""

    @property
    def size(self) -> int:
        """How many workers there are, or will soon be."""

    @property
    def most(self) -> int:
        """How many workers there can be at the same time."""

    @property
    def device_type(self) -> str | None:
        """The kind of device that they have; None: the task's."""

    def begin(self, brief: Brief, own: InProcess) -> None:
        """Tell all workers what they will work on; start those that are missing.

        Args:
            brief: for them.
            own: the driver's own worker, from which others may take what is prepared.
        """

    def give(self, worker: str, order: Order) -> None:
        """Give a worker that has no shard one."""

    def events(self, seconds: float) -> list[Event]:
        """Return what happened since the last call; wait so long for something to happen."""

    def ask(self, task: Any, setup: Setup, question: Callable[[Any], Any]) -> Any:
        """Return a worker's answer, see `Executor.ask`."""

    def end(self) -> None:
        """Take back shards that are under way: nothing waits for them any more."""

    def close(self) -> None:
        """Let all workers go."""


class CrewExecutor:
    """Gives a crew's workers shards as they become free, and yields their blocks."""

    def __init__(self, crew: Crew, own: InProcess, events: Events | None = None) -> None:
        self._crew = crew
        self._own = own
        self._events = events or NoEvents()

    @property
    def workers(self) -> int:
        """How many workers the crew can have."""
        return self._crew.most

    @property
    def device_type(self) -> str | None:
        """The kind of device that the crew's workers have."""
        return self._crew.device_type

    def following(self, events: Events) -> CrewExecutor:
        """Return the same crew, whose events are told what it does."""
        return CrewExecutor(self._crew, self._own, events)

    def do(
        self,
        task: Any,
        chain: Sequence[Stage],
        rows: Tensor,
        finished: Mapping[str, Any],
        report: Callable[[Progress], None],
        expected_seconds: float | None = None,
    ) -> Iterator[Any]:
        """Take samples through a chain of stages; see `bench.executors.stage.Executor`."""
        tally = Tally(chain, len(task.labels), report)
        schedule = Schedule([_shape(stage, task.batch_size) for stage in chain])
        ways = _Ways(task, chain, finished, tally)
        ways.enter(0, rows, schedule)
        if schedule.is_done:
            return
        self._crew.begin(Brief(task.part(slice(0, 0)), chain), self._own)
        self._events.work_begins([stage.name for stage in chain], self._crew.size)
        try:
            yield from self._done(task, chain, Numbering(finished), schedule, tally, ways)
        finally:
            self._crew.end()

    def ask(self, task: Any, setup: Setup, question: Callable[[Any], Any]) -> Any:
        """Return a worker's answer about what a setup made."""
        return self._crew.ask(task, setup, question)

    def _done(
        self,
        task: Any,
        chain: Sequence[Stage],
        numbering: Numbering,
        schedule: Schedule,
        tally: Tally,
        ways: _Ways,
    ) -> Iterator[Block]:
        busy: dict[str, tuple[Shard, float]] = {}
        free: list[str] = []
        lost_in_a_row = 0
        while not schedule.is_done:
            while free and (shard := schedule.next_shard(self._crew.size)) is not None:
                worker = free.pop(0)
                busy[worker] = shard, time.monotonic()
                self._crew.give(worker, _order(task, chain, shard))
                self._events.shard_begins(worker, chain[shard.stage].name, len(shard.rows))
            for event in self._crew.events(SECONDS_TO_WAIT):
                if isinstance(event, Joined):
                    free.append(event.worker)
                    self._events.worker_joins(event.worker)
                elif isinstance(event, Failed):
                    raise (InputError if event.is_input else EvaluationError)(event.text)
                elif isinstance(event, Lost):
                    if event.worker in free:
                        free.remove(event.worker)
                    self._events.worker_lost(event.worker, event.reason)
                    lost_in_a_row += 1
                    held = busy.pop(event.worker, None)
                    again = held is None or schedule.lost(held[0])
                    if not again or lost_in_a_row >= MOST_LOST_IN_A_ROW:
                        raise EvaluationError(
                            f"a worker ended before its samples were done: {event.reason}; the "
                            "same command goes on with what is finished"
                        )
                elif event.worker in busy:
                    shard, began = busy.pop(event.worker)
                    free.append(event.worker)
                    lost_in_a_row = 0
                    seconds = time.monotonic() - began
                    stage = chain[shard.stage]
                    blocks, facts = unpack_blocks(event.data)
                    part = torch.tensor(shard.rows)
                    left = standing(task, part, stage, blocks)
                    cost = float(facts["cost"])
                    tally.add(shard.stage, len(part), len(part) - len(left), cost)
                    self._events.shard_ends(event.worker, stage.name, len(part), seconds, cost)
                    for block in blocks:
                        named = replace(block, key=numbering.key(block.key))
                        yield _shared(named, len(busy) + 1)
                    # A worker's first shard also waited until the candidate was loaded there.
                    working = sum(block.seconds for block in blocks)
                    schedule.finished(shard, len(left), min(seconds, working))
                    ways.enter(shard.stage + 1, left, schedule)
                    tally.show(shard.stage, workers=self._crew.size)


def _shape(stage: Stage, batch_size: int) -> StageShape:
    return StageShape(stage.cost, max(1, batch_size), stage.exactly, stage.filled_by)


class _Ways:
    """Where samples go: through stages that earlier blocks settle, to the first one that waits."""

    def __init__(
        self, task: Any, chain: Sequence[Stage], finished: Mapping[str, Any], tally: Tally
    ) -> None:
        self._task = task
        self._chain = chain
        self._blocks = [blocks_of(finished, stage.prefix) for stage in chain]
        self._tally = tally

    def enter(self, stage: int, rows: Tensor, schedule: Schedule) -> None:
        """Let samples (n,) wait for a stage, or for the first after it that is not settled."""
        for number in range(stage, len(self._chain)):
            each, blocks = self._chain[number], self._blocks[number]
            left = unsettled(self._task, rows, each, blocks)
            after = standing(self._task, rows, each, blocks)
            self._tally.enter(number, len(rows))
            self._tally.add(number, len(rows) - len(left), len(rows) - len(after), 0.0)
            schedule.enter(number, left.tolist())
            # What waits here is not in any block, so it stands; the rest of what stands goes on.
            rows = after[~torch.isin(after, left)]


def _order(task: Any, chain: Sequence[Stage], shard: Shard) -> Order:
    part = task.part(torch.tensor(shard.rows))
    work = chain[shard.stage].work
    own = work.of(part.indices.numpy())
    return Order(shard.stage, pack_samples(part), None if own is work else own)


def _shared(block: Block, workers: int) -> Block:
    """Return a block with its share of the time that passed: several workers were at work."""
    attempts = getattr(block, "attempts", None)
    if attempts is not None:
        attempts = replace(attempts, seconds=attempts.seconds / workers)
        block = replace(block, attempts=attempts)  # type: ignore[call-arg]
    return replace(block, seconds=block.seconds / workers)
