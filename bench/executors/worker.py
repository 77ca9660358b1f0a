"""A worker: it holds one candidate on one device, and does works on samples."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import torch

from bench.errors import FOREIGN_ERRORS, BenchError, EvaluationError, raised
from bench.executors.stage import Report, Setup, Work
from bench.memory.out_of_memory import ImagesAtOnce
from bench.store.records import Block

MOST_FAILED = 3
"""With more samples that fail, and more than `FAILED_SHARE` of those tried, the candidate is at
fault, and not its samples: the run ends."""
FAILED_SHARE = 0.1


class WorkerHere:
    """A worker in this process; see `bench.executors.stage.Worker`."""

    def __init__(self, task: Any, share: int = 1, may_compile: bool = True) -> None:
        self.task = task.part(slice(0, 0))
        self.share = share
        self.may_compile = may_compile
        self.memory: dict[Hashable, Any] = {}
        self._made: dict[Hashable, Any] = {}
        self._tried = 0
        self._failed = 0

    def images_at_once(self, name: str, asked: int) -> ImagesAtOnce:
        """Return how many images go through a network at once: what fitted in earlier shards."""
        size = max(1, asked // self.share)
        known = self.memory.setdefault(("images at once", name, size), ImagesAtOnce(size))
        assert isinstance(known, ImagesAtOnce)
        return known

    def prepared(self, setup: Setup) -> Any:
        """Return what a setup makes; it is made once."""
        if setup.key not in self._made:
            self._made[setup.key] = setup.make(self)
        return self._made[setup.key]

    def blocks(self, work: Work, setup: Setup | None, part: Any, report: Report) -> Iterator[Block]:
        """Do a work on the samples of a task, and yield its blocks.

        Where the candidate raises an error, the samples are halved until the one is found on which
        it does; that one is recorded as failed.

        Raises:
            EvaluationError: it raises on too many of them, or where failures cannot be recorded.
        """
        if setup is not None:
            self.prepared(setup)
        waiting = [(work, part)]
        while waiting:
            work, task = waiting.pop()
            settled: list[Any] = []
            try:
                for block in work.blocks(self, task, report):
                    settled.append(work.settled(block))
                    yield block
            except BenchError:
                raise
            except FOREIGN_ERRORS as error:
                problem, cause = raised(error), error
            else:
                self._tried += len(task.labels)
                continue
            done = np.concatenate(settled) if settled else np.array([], dtype=np.int64)
            self._tried += len(done)
            left = torch.from_numpy(np.flatnonzero(~np.isin(task.indices.numpy(), done)))
            if len(left) > 1:
                middle = len(left) // 2
                halves = task.part(left[middle:]), task.part(left[:middle])
                waiting += [(work.of(each.indices.numpy()), each) for each in halves]
            elif len(left) == 1:
                yield self._failure(work, task.part(left), problem, cause)

    def _failure(self, work: Work, task: Any, problem: str, cause: BaseException) -> Block:
        self._failed += 1
        self._tried += 1
        too_many = self._failed > MOST_FAILED and self._failed > FAILED_SHARE * self._tried
        try:
            block = work.failed(task, problem)
        except NotImplementedError:
            too_many = True
        if too_many:
            raise EvaluationError(f"failed: {problem}") from cause
        return block
