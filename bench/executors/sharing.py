"""Several runs, each in a thread of its own, that use one crew at the same time.

Threads take turns with all that they compute here, as if they were one: only the thread with the
baton goes on, and it lays the baton down while it waits for workers. So nothing that belongs to the
process, such as PyTorch's random numbers and settings, is used by two runs at once. One more
thread, which computes nothing for a run, keeps the workers busy.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from bench.executors.dispatcher import Dispatcher
from bench.executors.in_process import InProcess
from bench.executors.jobs import Job, Update

SECONDS_TO_WAIT = 0.1
"""Between two looks at a crew that says nothing: other runs may have something new to do."""


class Stopped(BaseException):
    """The runs of all threads are to end; foreign code lets it pass, as it does Ctrl-C."""


class Baton:
    """What a thread must hold to go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_stopped = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the baton, and hold it within this context.

        Raises:
            Stopped: `stop` was called.
        """
        with self._lock:
            self.check()
            yield

    @contextlib.contextmanager
    def laid_down(self) -> Iterator[None]:
        """Let other threads go on within this context."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def check(self) -> None:
        """Raise `Stopped` if `stop` was called."""
        if self._is_stopped:
            raise Stopped

    def stop(self) -> None:
        """Let no run begin any more; those that wait for workers are ended by their desk."""
        self._is_stopped = True


class SharedDesk:
    """Where runs in threads of their own hand in jobs; see `bench.executors.dispatcher.Desk`.

    Args:
        dispatcher: no other thread uses it meanwhile.
        baton: the run's thread holds it, and lays it down to wait.
    """

    def __init__(self, dispatcher: Dispatcher, baton: Baton) -> None:
        self._dispatcher = dispatcher
        self._baton = baton
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = True
        self._error: BaseException = Stopped()
        """What ended the dispatcher's thread."""
        self._is_ending = threading.Event()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Keep the workers busy within this context; jobs that are left at its end are stopped."""
        thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_ending.set()
            thread.join()

    @contextlib.contextmanager
    def working(self, job: Job, own: InProcess) -> Iterator[Iterator[Update]]:
        """Let the crew do a job beside those of other runs."""
        self._dispatcher.prepare(job, own)
        if not self._call(lambda: self._dispatcher.begin(job)):
            raise copy.copy(self._error)
        try:
            yield self._updates(job)
        finally:
            self._call(lambda: self._dispatcher.end(job))

    def _updates(self, job: Job) -> Iterator[Update]:
        while True:
            with self._baton.laid_down():
                update = job.updates.get()
            if update is None:
                return
            yield update

    def _call(self, function: Callable[[], None]) -> bool:
        """Let the dispatcher's thread call something; return whether it still runs."""
        with self._lock:
            if self._is_open:
                self._calls.put(function)
            return self._is_open

    def _run(self) -> None:
        try:
            while not self._is_ending.is_set():
                self._take_calls()
                if self._dispatcher.has_jobs:
                    self._dispatcher.step(SECONDS_TO_WAIT)
                else:
                    self._is_ending.wait(SECONDS_TO_WAIT)
        except BaseException as error:  # whatever it is, the runs' threads must not wait for ever
            self._error = error
        with self._lock:
            self._is_open = False
        try:
            self._take_calls()
        finally:
            self._dispatcher.fail(self._error)

    def _take_calls(self) -> None:
        while not self._calls.empty():
            self._calls.get()()
