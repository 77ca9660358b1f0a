"""The executor for one machine: this process alone, or a worker for each core or GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.executors.crew_executor import CrewExecutor
from bench.executors.events import Events, NoEvents
from bench.executors.in_process import InProcess
from bench.executors.local import LocalCrew, can_fork
from bench.executors.progress import Progress
from bench.executors.stage import Setup, Stage

LEAST_SAMPLES = 8
"""A core with fewer samples has batches that are too small."""
WORTH_SECONDS = 5.0
"""Expected seconds of work below which starting processes does not pay."""


class ThisMachine:
    """Works here, with as many workers as pay.

    Args:
        workers: how many; None: one for each GPU, or on a CPU one for each core where the work is
            long enough.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._asked = workers
        self._events: Events = NoEvents()
        self._own = InProcess()
        self._crews: dict[tuple[torch.device, ...], CrewExecutor] = {}

    @property
    def workers(self) -> int:
        """How many work at the same time, at most."""
        return self._asked or max(torch.cuda.device_count(), torch.get_num_threads())

    @property
    def device_type(self) -> None:
        """The task's own."""
        return None

    def following(self, events: Events) -> ThisMachine:
        """Return the same processes, whose events are told what they do."""
        other = copy.copy(self)  # they belong to both
        other._events, other._own = events, self._own.following(events)
        return other

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
        devices = self._devices(task, chain, len(rows), expected_seconds)
        if len(devices) == 1:
            return self._own.do(task, chain, rows, finished, report, expected_seconds)
        # What this run has prepared serves its workers, not what an earlier run had.
        crew = self._crew(tuple(devices)).following(self._events, self._own)
        return crew.do(task, chain, rows, finished, report, expected_seconds)

    def ask(self, task: Any, setup: Setup, question: Callable[[Any], Any]) -> Any:
        """Return an answer about what a setup made, in this process."""
        return self._own.ask(task, setup, question)

    def close(self) -> None:
        """End all processes."""
        for crew in self._crews.values():
            crew.close()
        self._crews.clear()

    def _crew(self, devices: tuple[torch.device, ...]) -> CrewExecutor:
        if devices not in self._crews:
            fork = devices[0].type == "cpu" and can_fork()
            self._crews[devices] = CrewExecutor(LocalCrew(devices, fork=fork), self._own)
        return self._crews[devices]

    def _devices(
        self, task: Any, chain: Sequence[Stage], samples: int, expected_seconds: float | None
    ) -> list[torch.device]:
        """Return a device for each worker; one alone: this process."""
        alone = [task.device]
        if any(stage.exactly == 0 for stage in chain):
            return alone
        if task.device.type == "cuda":
            if task.device.index is not None:
                return alone * (self._asked or 1)
            gpus = torch.cuda.device_count()
            return [torch.device("cuda", number % gpus) for number in range(self._asked or gpus)]
        if self._asked is not None:
            return alone * min(self._asked, max(samples, 1))
        cores = torch.get_num_threads()
        busy = min(stage.filled_by for stage in chain)
        count = min(cores, samples // max(LEAST_SAMPLES, busy))
        pays = (expected_seconds or 0.0) >= WORTH_SECONDS and count > max(1, cores // 2)
        return alone * count if pays and can_fork() else alone
