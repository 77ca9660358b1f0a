"""Writes down what happens in a run, often enough to follow it and seldom enough to be small."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.executors.progress import Progress
from bench.runs.observer import Observer
from bench.store import RunFolder
from bench.store.events import EventLog
from bench.store.records import Block

SECONDS_BETWEEN = 5.0
"""A worker's shards, the progress and the blocks get no more than one line in so long."""


@dataclass
class _Sum:
    """What is not written yet.

    Attributes:
        count: shards or blocks.
        samples, seconds, cost: of them.
        written: when the last line was, by the monotonic clock.
    """

    count: int = 0
    samples: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    written: float = -SECONDS_BETWEEN

    def add(self, samples: int, seconds: float, cost: float) -> None:
        self.count += 1
        self.samples += samples
        self.seconds += seconds
        self.cost += cost

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self.written >= SECONDS_BETWEEN


@dataclass
class _Worker:
    """What is known of a worker.

    Attributes:
        stage, samples: of its shard; "" and 0: it has none.
        shown: the stage of the last line that says what it began, and when that was.
        ended: shards that no line says of.
    """

    stage: str = ""
    samples: int = 0
    shown: tuple[str, float] = ("", -SECONDS_BETWEEN)
    ended: _Sum = field(default_factory=_Sum)


class RunEvents:
    """Is told what the executor's workers do, and how far the run is; see `Events`, `Observer`.

    Args:
        folder: of the run, which this process has locked.
        observer: gets progress and notices too.
    """

    def __init__(self, folder: RunFolder, observer: Observer) -> None:
        self._observer = observer
        self._log = EventLog(folder.path, self._head)
        self._driver = {"host": platform.node(), "process": os.getpid()}
        self._since = ""
        self._workers: dict[str, _Worker] = {}
        self._lost = [0, 0]
        self._blocks = _Sum()
        self._block = ""
        self._stage = ("", -SECONDS_BETWEEN)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write down the beginning and the end of what runs in this context."""
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._log.write("run-begins", **self._driver)
        try:
            yield
        except Exception as error:
            self._flush()
            self._log.write("run-fails", reason=(str(error) or type(error).__name__)[:500])
            raise
        except BaseException:  # such as Ctrl-C
            self._flush()
            self._log.write("run-stops")
            raise
        self._flush()
        self._log.write("run-ends")

    def notice(self, text: str) -> None:
        """Pass a notice on, and write it down."""
        self._observer.notice(text)
        self._log.write("notice", text=text[:500])

    def progress(self, progress: Progress) -> None:
        """Pass progress on, and write it down: its beginning, its end, and now and then between."""
        self._observer.progress(progress)
        stage, written = self._stage
        now = time.monotonic()
        is_due = now - written >= SECONDS_BETWEEN
        if stage == progress.stage and not is_due and progress.done < progress.total:
            return
        self._stage = progress.stage, now
        self._log.write("stage", **{name: _short(each) for name, each in vars(progress).items()})

    def block(self, block: Block) -> None:
        """Note that a block is saved."""
        self._blocks.add(0, block.seconds, 0.0)
        self._block = block.key
        if self._blocks.is_due:
            self._write_blocks()

    def work_begins(self, stages: Sequence[str], workers: int) -> None:
        """Note that a chain of stages begins."""
        self._flush()
        self._workers = {}
        self._log.write("work-begins", stages=list(stages), workers=workers)

    def worker_leaves(self, worker: str) -> None:
        """Note that a worker goes over to another run."""
        self._write_shards(worker)
        self._workers.pop(worker, None)
        self._log.write("worker-leaves", worker=worker)

    def worker_joins(self, worker: str) -> None:
        """Note that a worker begins to work for this run."""
        self._write_shards(worker)
        self._workers[worker] = _Worker()
        self._log.write("worker-joins", worker=worker)

    def worker_lost(self, worker: str, reason: str) -> None:
        """Note that a worker is no more, and which shard was lost with it."""
        self._write_shards(worker)
        held = self._workers.pop(worker, _Worker())
        self._lost[0] += 1
        self._lost[1] += held.stage != ""
        self._log.write(
            "worker-lost", worker=worker, reason=reason, stage=held.stage, samples=held.samples
        )

    def shard_begins(self, worker: str, stage: str, samples: int) -> None:
        """Note that a worker got samples."""
        each = self._workers.setdefault(worker, _Worker())
        each.stage, each.samples = stage, samples
        shown, written = each.shown
        now = time.monotonic()
        if shown != stage or now - written >= SECONDS_BETWEEN:
            each.shown = stage, now
            self._log.write("shard-begins", worker=worker, stage=stage, samples=samples)

    def shard_ends(
        self, worker: str, stage: str, samples: int, seconds: float, cost: float
    ) -> None:
        """Note that a worker finished samples."""
        each = self._workers.setdefault(worker, _Worker())
        each.stage, each.samples = "", 0
        each.ended.add(samples, seconds, cost)
        if each.ended.is_due:
            self._write_shards(worker, stage)

    def _head(self) -> dict[str, Any]:
        workers, shards = self._lost
        return {
            **self._driver,
            "began": self._since,
            "workers": list(self._workers),
            "workers_lost": workers,
            "shards_lost": shards,
        }

    def _flush(self) -> None:
        for worker in self._workers:
            self._write_shards(worker)
        self._write_blocks()

    def _write_shards(self, worker: str, stage: str = "") -> None:
        """Write one line about the shards that a worker ended since the last one."""
        each = self._workers.get(worker)
        if each is None or not each.ended.count:
            return
        done = each.ended
        each.ended = _Sum(written=time.monotonic())
        seconds = max(done.seconds, 1e-9)
        self._log.write(
            "shard-ends",
            worker=worker,
            stage=stage or each.shown[0],
            shards=done.count,
            samples=done.samples,
            seconds=_short(done.seconds),
            samples_per_second=_short(done.samples / seconds),
            passes_per_second=_short(done.cost / seconds),
        )

    def _write_blocks(self) -> None:
        done = self._blocks
        if done.count:
            self._blocks = _Sum(written=time.monotonic())
            seconds = _short(done.seconds)
            self._log.write("block", key=self._block, blocks=done.count, seconds=seconds)


def _short(value: Any) -> Any:
    """Return a number with four digits, anything else as it is."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
