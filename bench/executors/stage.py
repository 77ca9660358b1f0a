"""What an engine hands to an executor, and an executor to a worker.

An engine cuts its work into stages, such as one attack. In a stage every sample's result is its
own, so that samples can be shared out in any way. Stages that follow each other form a chain: a
sample that one stage leaves standing goes on to the next.

    work of a stage  ──> shards (some samples x one stage) ──> workers ──> blocks
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from bench.executors.events import Events
from bench.executors.progress import Progress
from bench.memory.out_of_memory import ImagesAtOnce
from bench.store.records import Block, IntArray


class Task(Protocol):
    """What executors know of an engine's task: samples, a module, and a device."""

    @property
    def module(self) -> nn.Module:
        """What runs on images."""

    @property
    def images(self) -> Tensor:
        """(N, C, H, W) float32, on the CPU."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""

    @property
    def indices(self) -> Tensor:
        """(N,) int64, the samples' places in the data set."""

    @property
    def batch_size(self) -> int:
        """Samples in one pass."""

    @property
    def device(self) -> torch.device:
        """Where passes run."""

    def part(self, rows: Tensor | slice) -> Self:
        """Return the same for some of the samples, by their places (n,) within the task."""


@dataclass(frozen=True)
class Doing:
    """How far a worker is with the samples that it was given.

    Attributes:
        finished: samples of which all is known.
        lost: samples that are broken, or wrong.
        cost: of what was done so far, in the unit of `Stage.cost`.
        under_way: what was done of the others, in samples.
    """

    finished: int
    lost: int
    cost: float
    under_way: float = 0.0


Report = Callable[[Doing], None]


class Worker(Protocol):
    """What works see of the worker that does them.

    Attributes:
        task: the module on the worker's device; without samples.
        share: how many workers share the machine's cores and memory with this one, itself included.
        may_compile: whether PyTorch's compiler may be used.
        memory: what works keep for the next shard of the same chain.
    """

    task: Any
    share: int
    may_compile: bool
    memory: dict[Hashable, Any]

    def prepared(self, setup: Setup) -> Any:
        """Return what a setup makes; it is made once."""

    def images_at_once(self, name: str, asked: int) -> ImagesAtOnce:
        """Return how many images go through a network at once, as earlier shards found out.

        Args:
            name: of what they go through, such as "clean".
            asked: of all workers that share a machine together.
        """


class Setup(ABC):
    """What must be ready before some stages; each worker makes it once. It can be pickled."""

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """What tells setups for one task apart."""

    @abstractmethod
    def make(self, worker: Worker) -> Any:
        """Return what works get by `Worker.prepared`."""


class Work(ABC):
    """What is done with samples; it can be pickled, and knows nothing of other samples."""

    @abstractmethod
    def blocks(self, worker: Worker, task: Any, report: Report) -> Iterator[Block]:
        """Do it for all samples of a task, and yield each block as it is finished.

        A block's key is the name of its piece without a number, such as "01-apgd-ce"; executors
        number blocks.
        """

    @abstractmethod
    def settled(self, block: Any) -> IntArray:
        """Return the indices of the samples that a block finishes in this stage."""

    def lost(self, block: Any) -> IntArray:
        """Return the indices of the samples that do not go on to the next stage."""
        return np.array([], dtype=np.int64)

    def of(self, indices: IntArray) -> Work:
        """Return the same with no more than what these samples need."""
        return self

    def failed(self, task: Any, problem: str) -> Block:
        """Return the record of the one sample of a task on which the candidate raised an error.

        Raises:
            NotImplementedError: such a failure cannot be recorded; it ends the run.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Stage:
    """Work on samples, each of which has a result of its own.

    Attributes:
        name: for displays.
        prefix: keys of its blocks, but for their numbers.
        work: what is done.
        cost: of a sample that the stage leaves standing, at most; in forward passes.
        setup: what the work needs; None: nothing.
        exactly: samples in a shard, the last one excepted, where the result belongs to that number;
            0: all must be together; None: any number.
        filled_by: samples whose passes keep a device busy; fewer take about as long.
        counts_up: whether displays show how many of the finished samples are right, instead of how
            many of all survive.
    """

    name: str
    prefix: str
    work: Work
    cost: float
    setup: Setup | None = None
    exactly: int | None = None
    filled_by: int = 1
    counts_up: bool = False


class Executor(Protocol):
    """Does stages of work."""

    @property
    def workers(self) -> int:
        """How many work at the same time, at most."""

    @property
    def device_type(self) -> str | None:
        """The kind of device that workers have, such as cuda; None: the task's."""

    def following(self, events: Events) -> Executor:
        """Return the same workers for one run, whose events are told what they do."""

    def do(
        self,
        task: Any,
        chain: Sequence[Stage],
        rows: Tensor,
        finished: Mapping[str, Any],
        report: Callable[[Progress], None],
        expected_seconds: float | None = None,
    ) -> Iterator[Any]:
        """Take samples through a chain of stages, and yield each new block.

        Args:
            task: all samples.
            chain: each stage on what the one before left standing.
            rows: (n,) places of the samples within the task.
            finished: blocks of an earlier, interrupted run by key; they are not done again.
            report: told how far the work is.
            expected_seconds: of the work in one process, at most; None: not known.

        Raises:
            EvaluationError: the work failed.
        """

    def ask(self, task: Any, setup: Setup, question: Callable[[Any], Any]) -> Any:
        """Return a worker's answer to a question about what a setup made.

        Args:
            task: whose module the setup is about.
            setup: made first, if it was not.
            question: a function at the top of a module; its answer is plain data.
        """


def blocks_of(finished: Mapping[str, Any], prefix: str) -> list[Any]:
    """Return the finished blocks of a stage."""
    return [block for key, block in finished.items() if key.rpartition("-")[0] == prefix]


def unsettled(task: Task, rows: Tensor, stage: Stage, blocks: Sequence[Any]) -> Tensor:
    """Return those of the rows (n,) that none of a stage's blocks finishes."""
    return without(task, rows, [stage.work.settled(block) for block in blocks])


def standing(task: Task, rows: Tensor, stage: Stage, blocks: Sequence[Any]) -> Tensor:
    """Return those of the rows (n,) that a stage's blocks leave standing."""
    return without(task, rows, [stage.work.lost(block) for block in blocks])


def without(task: Task, rows: Tensor, indices: Sequence[IntArray]) -> Tensor:
    """Return those of the rows (n,) of a task whose samples are not among the indices."""
    if not indices:
        return rows
    gone = np.isin(task.indices[rows].numpy(), np.concatenate(indices))
    return rows[torch.from_numpy(~gone)]


class Numbering:
    """Numbers the blocks of a run, after those that are there."""

    def __init__(self, finished: Mapping[str, Any]) -> None:
        self._next: dict[str, int] = {}
        for key in finished:
            name, _, number = key.rpartition("-")
            if number.isdigit():
                self._next[name] = max(self._next.get(name, 0), int(number) + 1)

    def key(self, name: str) -> str:
        """Return the key of the next block called `name`."""
        number = self._next.get(name, 0)
        self._next[name] = number + 1
        return f"{name}-{number:05d}"
