"""Workers beyond this process: what they are given, and what is heard of them.

How workers are started and spoken to is up to a crew: forked or new processes of this machine
(`local.py`), or actors of a Ray cluster (`ray_cluster.py`). Which of them gets what is the same for
all (`dispatcher.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.executors.in_process import InProcess
from bench.executors.stage import Setup, Stage


@dataclass(frozen=True, eq=False)
class Brief:
    """What a worker must know before it is given shards or questions.

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
class Question:
    """A question for a worker about what a setup made; see `Executor.ask`."""

    setup: Setup
    question: Callable[[Any], Any]


@dataclass(frozen=True)
class Finished:
    """A worker did what it was given; `data` is of `pack_blocks`, or an answer as JSON."""

    worker: str
    data: bytes


@dataclass(frozen=True)
class Failed:
    """What a worker was given raised an error; the worker goes on.

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
    """A worker is no more.

    Attributes:
        worker: its name.
        reason: for the user.
        began: whether it may have begun what it was given last.
    """

    worker: str
    reason: str
    began: bool = True


@dataclass(frozen=True)
class Joined:
    """A worker is ready; it is said once of each."""

    worker: str


Event = Finished | Failed | Lost | Joined


class Crew(Protocol):
    """Workers, each of which does one thing at a time."""

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
        """Make ready for a brief; start workers that are missing.

        Args:
            brief: what will be worked on.
            own: the driver's own worker, from which others may take what is prepared.
        """

    def give(self, worker: str, brief: Brief, work: Order | Question) -> None:
        """Give a worker that has nothing to do something; tell it first what it must know."""

    def events(self, seconds: float) -> list[Event]:
        """Return what happened since the last call; wait so long for something to happen."""

    def end(self, brief: Brief, busy: Collection[str]) -> Collection[str]:
        """Forget a brief: nothing waits any more for those workers that are busy with it.

        Returns:
            the workers that are no more.
        """

    def close(self) -> None:
        """Let all workers go."""
