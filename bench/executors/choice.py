"""From what users write to an executor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import InputError

if TYPE_CHECKING:
    from bench.executors.stage import Executor

LOCAL, RAY = "local", "ray"


@dataclass(frozen=True)
class ExecutorChoice:
    """Which executor is asked for.

    Attributes:
        kind: `LOCAL` or `RAY`.
        address: of a Ray cluster; "": see `RayCrew`.
        workers: how many; None: as many as pay.
        gpus_per_worker: see `RayCrew`.
    """

    kind: str = LOCAL
    address: str = ""
    workers: int | None = None
    gpus_per_worker: float | None = None


def executor_choice(
    text: str = LOCAL, workers: int | None = None, gpus_per_worker: float | None = None
) -> ExecutorChoice:
    """Return what `local`, `local:4`, `ray` or `ray:HOST:PORT` asks for.

    Raises:
        InputError: no such executor, or options that contradict each other.
    """
    kind, _, rest = text.partition(":")
    if kind == LOCAL:
        if gpus_per_worker is not None:
            raise InputError("--gpus-per-worker can only be used with --executor ray")
        if rest and not (rest.isdecimal() and int(rest) > 0):
            raise InputError(f"--executor: expected local:N with N >= 1, got {text!r}")
        if rest and workers not in (None, int(rest)):
            raise InputError(f"--workers {workers} contradicts --executor {text}")
        return ExecutorChoice(LOCAL, workers=int(rest) if rest else workers)
    if kind == RAY:
        address = f"ray:{rest}" if rest.startswith("//") else rest
        return ExecutorChoice(RAY, address, workers, gpus_per_worker)
    raise InputError(f"--executor: expected local, local:N, ray or ray:HOST:PORT, got {text!r}")


@contextlib.contextmanager
def executing(choice: ExecutorChoice) -> Iterator[Executor]:
    """Return an executor, which lets its workers go after this context.

    Raises:
        InputError: its cluster cannot be reached.
    """
    if choice.kind == LOCAL:
        from bench.executors.here import ThisMachine  # torch: slow to import

        machine = ThisMachine(choice.workers)
        try:
            yield machine
        finally:
            machine.close()
        return
    from bench.executors.crew_executor import CrewExecutor
    from bench.executors.in_process import InProcess
    from bench.executors.ray_cluster import RayCrew

    crew = RayCrew(choice.address, choice.workers, choice.gpus_per_worker)
    cluster = CrewExecutor(crew, InProcess())
    try:
        yield cluster
    finally:
        cluster.close()
