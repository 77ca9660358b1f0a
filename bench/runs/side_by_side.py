"""Runs of several candidates that share the workers of a cluster.

Each run has a thread; `bench.executors.sharing` says how they get along. The next candidate is
loaded once the one before it is, and while the memory of this machine has room for both.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch

from bench.candidates import Candidate, CandidateReference
from bench.candidates.recomputation import differentiable_checkpoints
from bench.executors.crew_executor import CrewExecutor
from bench.executors.sharing import Baton
from bench.memory.allocator import tensor_bytes
from bench.precision import tensor_cores

MOST_AT_ONCE = 32
"""With more candidates workers would mainly load them; see `benchmarks/scaling.py`."""
MEMORY_SHARE = 0.5
"""Share of this machine's memory for loaded candidates."""

Result = TypeVar("Result")
Make = Callable[[CandidateReference, CrewExecutor, Callable[[Candidate], None]], Result]
"""Makes one run. It is given what it must call with the candidate once that is loaded."""


@dataclass(frozen=True)
class _Loaded:
    """A candidate takes so many bytes from now on."""

    place: int
    size: int


@dataclass(frozen=True)
class _Ended(Generic[Result]):
    """A run ended, by a result or by an error."""

    place: int
    result: Result | None = None
    error: BaseException | None = None


def side_by_side(
    references: Sequence[CandidateReference], make: Make[Result], executor: CrewExecutor
) -> Generator[Result]:
    """Make a run of each candidate, and yield the results as runs end.

    Whatever ends this generator early, such as Ctrl-C, stops all runs in order.
    """
    baton = Baton()
    runs = _Runs(references, make, baton)
    # Each run would set and restore these by itself, while others compute.
    with tensor_cores(False), differentiable_checkpoints():
        try:
            with executor.shared(baton) as shared:
                try:
                    yield from runs.results(shared)
                finally:
                    baton.stop()
        finally:
            runs.join()


class _Runs(Generic[Result]):
    """The threads of runs."""

    def __init__(
        self,
        references: Sequence[CandidateReference],
        make: Make[Result],
        baton: Baton,
    ) -> None:
        self._references = references
        self._make = make
        self._baton = baton
        self._news: SimpleQueue[_Loaded | _Ended[Result]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._held: dict[int, int] = {}
        """Bytes of the candidates under way, by their places; 0: it is being loaded."""

    def results(self, executor: CrewExecutor) -> Iterator[Result]:
        """Begin runs, no more at once than workers, and yield what becomes of them."""
        while self._held or len(self._threads) < len(self._references):
            # There may be more workers than at the last look.
            while self._may_begin(min(MOST_AT_ONCE, executor.workers)):
                self._begin(executor)
            news = self._news.get()
            if isinstance(news, _Loaded):
                self._held[news.place] = news.size
                continue
            del self._held[news.place]
            if news.error is not None:
                raise news.error
            assert news.result is not None
            with self._baton.held():  # what is made of the result must not disturb others
                yield news.result

    def join(self) -> None:
        """Wait until all threads have ended."""
        for thread in self._threads:
            thread.join()

    def _may_begin(self, at_once: int) -> bool:
        if len(self._threads) == len(self._references) or 0 in self._held.values():
            return False
        sizes = list(self._held.values())
        return not sizes or (
            len(sizes) < at_once and sum(sizes) + max(sizes) <= MEMORY_SHARE * _memory()
        )

    def _begin(self, executor: CrewExecutor) -> None:
        place = len(self._threads)
        self._held[place] = 0
        name = self._references[place].name
        thread = threading.Thread(target=self._run, args=(place, executor), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, place: int, executor: CrewExecutor) -> None:
        def holds(candidate: Candidate) -> None:
            self._baton.check()
            self._news.put(_Loaded(place, max(1, tensor_bytes(candidate.module))))

        try:
            with self._baton.held():
                result = self._make(self._references[place], executor, holds)
        except BaseException as error:  # the thread that waits for this one raises it
            self._news.put(_Ended(place, error=error))
        else:
            self._news.put(_Ended(place, result))


def _memory() -> int:
    """Return the bytes of memory where candidates are loaded: of the GPU, or of this machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
