"""All work in this process, one stage after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.executors.events import Events, NoEvents
from bench.executors.progress import Progress
from bench.executors.stage import (
    Doing,
    Numbering,
    Setup,
    Stage,
    blocks_of,
    standing,
    unsettled,
)
from bench.executors.tally import Tally
from bench.executors.worker import WorkerHere
from bench.store.records import Block

HERE = "this process"
"""The name of its one worker."""


class InProcess:
    """Does everything here; a stage is one shard, unless its result belongs to a batch size.

    It keeps the worker of the last task, so that what a setup made serves all chains of a run.
    """

    workers = 1
    device_type = None

    def __init__(self, events: Events | None = None) -> None:
        self._events = events or NoEvents()
        self._worker: WorkerHere | None = None
        self._module: Any = None

    def following(self, events: Events) -> InProcess:
        """Return one that tells events what it does; it prepares everything itself."""
        return InProcess(events)

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
        numbering = Numbering(finished)
        self._events.work_begins([stage.name for stage in chain], self.workers)
        self._events.worker_joins(HERE)
        for number, stage in enumerate(chain):
            blocks = blocks_of(finished, stage.prefix)
            left = unsettled(task, rows, stage, blocks)
            tally.enter(number, len(rows))
            tally.add(
                number,
                len(rows) - len(left),
                len(rows) - len(standing(task, rows, stage, blocks)),
                0.0,
            )
            for shard in _shards(left, stage):
                for block in self._shard(task, stage, number, shard, tally):
                    named = replace(block, key=numbering.key(block.key))
                    blocks.append(named)
                    yield named
            tally.show(number)
            rows = standing(task, rows, stage, blocks)

    def ask(self, task: Any, setup: Setup, question: Callable[[Any], Any]) -> Any:
        """Return an answer about what a setup made."""
        return question(self.worker(task).prepared(setup))

    def worker(self, task: Any) -> WorkerHere:
        """Return the worker for a task's module."""
        if self._worker is None or self._module is not task.module:
            self._worker, self._module = WorkerHere(task), task.module
        self._worker.task = task.part(slice(0, 0))
        return self._worker

    def _shard(
        self, task: Any, stage: Stage, number: int, rows: Tensor, tally: Tally
    ) -> Iterator[Block]:
        """Do a stage on some rows; the tally has it all at the end."""
        part = task.part(rows)
        work = stage.work.of(part.indices.numpy())
        latest = Doing(0, 0, 0.0)

        def told(doing: Doing) -> None:
            nonlocal latest
            latest = doing
            tally.show(number, doing)

        lost = 0
        began = time.monotonic()
        self._events.shard_begins(HERE, stage.name, len(rows))
        for block in self.worker(task).blocks(work, stage.setup, part, told):
            lost += len(stage.work.lost(block))
            yield block
        tally.add(number, len(rows), lost, latest.cost)
        seconds = time.monotonic() - began
        self._events.shard_ends(HERE, stage.name, len(rows), seconds, latest.cost)


def _shards(rows: Tensor, stage: Stage) -> Sequence[Tensor]:
    if not len(rows):
        return ()
    return torch.split(rows, stage.exactly) if stage.exactly else (rows,)
