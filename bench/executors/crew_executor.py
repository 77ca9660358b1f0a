"""The executor whose workers are a crew's."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from bench.executors.crew import Crew
from bench.executors.dispatcher import Desk, Dispatcher
from bench.executors.events import Events, NoEvents
from bench.executors.in_process import InProcess
from bench.executors.jobs import ChainJob, QuestionJob
from bench.executors.progress import Progress
from bench.executors.sharing import Baton, SharedDesk
from bench.executors.stage import Setup, Stage


class CrewExecutor:
    """Hands in a run's work, and yields its blocks as workers finish them."""

    def __init__(self, crew: Crew, own: InProcess) -> None:
        self._crew = crew
        self._own = own
        self._dispatcher = Dispatcher(crew)
        self._desk: Desk = self._dispatcher
        self._events: Events = NoEvents()

    @property
    def workers(self) -> int:
        """How many workers the crew can have."""
        return self._crew.most

    @property
    def device_type(self) -> str | None:
        """The kind of device that the crew's workers have."""
        return self._crew.device_type

    def following(self, events: Events, own: InProcess | None = None) -> CrewExecutor:
        """Return the same crew, whose events are told what it does.

        Args:
            events: of a run.
            own: the run's own worker, if it has prepared what others may take; None: as before.
        """
        other = copy.copy(self)  # the workers belong to both
        other._events, other._own = events, own or self._own
        return other

    @contextlib.contextmanager
    def shared(self, baton: Baton) -> Iterator[CrewExecutor]:
        """Return an executor for several runs at the same time, within this context.

        Args:
            baton: each run has a thread, which holds it whenever it calls the executor.
        """
        desk = SharedDesk(self._dispatcher, baton)
        with desk.open():
            other = copy.copy(self)
            other._desk = desk
            yield other

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
        job = ChainJob(task, chain, rows, finished, report, self._events)
        if job.is_over:
            return
        self._events.work_begins([stage.name for stage in chain], self._crew.size)
        with self._desk.working(job, self._own) as updates:
            for update in updates:
                yield from update()

    def ask(self, task: Any, setup: Setup, question: Callable[[Any], Any]) -> Any:
        """Return a worker's answer about what a setup made."""
        with self._desk.working(QuestionJob(task, setup, question), self._own) as updates:
            return next(answer for update in updates for answer in update())

    def close(self) -> None:
        """Let all workers go."""
        self._crew.close()
