"""Samples shared out among processes, one for each core.

The operations of a small network are so short that several cores that work on the same operation
are hardly faster than one. Samples are independent, so on a CPU each core attacks its own samples,
in a process that is forked when everything is prepared. The blocks are those of one process, in
another grouping; the parent process gives them their keys.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import cast

import torch
from torch import Tensor

from bench.engines.engine import AttackTask
from bench.engines.progress import Progress
from bench.errors import FOREIGN_ERRORS, BenchError, EvaluationError, raised
from bench.store.records import AttackBlock

LEAST_SAMPLES = 8
"""A process with fewer samples has batches that are too small."""
WORTH_SECONDS = 5.0
"""Expected seconds of work below which starting processes does not pay."""

Work = Callable[[AttackTask, Tensor, Callable[[Progress], None]], Iterator[AttackBlock]]
"""Blocks of attacks on a task's samples, of which those in a mask (N,) stand."""

_SECONDS_TO_TRY = 5.0
_PARENT_DEATH_SIGNAL = 1
"""An option of `prctl`, as in <sys/prctl.h>."""


def processes(task: AttackTask, standing: int, expected_seconds: float) -> int:
    """Return how many processes share a task's samples; 1: this one alone.

    Args:
        task: to be done.
        standing: samples to attack.
        expected_seconds: of the whole work in this process.
    """
    possible = (
        sys.platform == "linux"
        and task.device.type == "cpu"
        # A random candidate's draws belong to its batch; convergence is judged on all samples.
        and not (task.randomized or task.until_converged)
        and not multiprocessing.current_process().daemon
        # Beside a thread that forks, others may hold locks which the child then waits for.
        and threading.current_thread() is threading.main_thread()
    )
    cores = torch.get_num_threads()
    count = min(cores, standing // LEAST_SAMPLES)
    # Each has one thread: OpenMP cannot start more of them in a forked process.
    pays = expected_seconds >= WORTH_SECONDS and count > max(1, cores // 2)
    return count if possible and pays and _forked_take_gradients() else 1


def _forked_take_gradients() -> bool:
    """Return whether a process forked off now can differentiate.

    PyTorch refuses it after gradients on a GPU, and after some uses of its compiler.
    """
    child = multiprocessing.get_context("fork").Process(target=_take_gradient, daemon=True)
    _start(child)
    child.join(_SECONDS_TO_TRY)
    child.kill()
    return child.exitcode == 0


def _take_gradient() -> None:
    value = torch.ones(1, requires_grad=True)
    try:
        torch.autograd.grad(value.sum(), value)
    except RuntimeError:
        os._exit(1)


def _start(child: ForkProcess) -> None:
    with warnings.catch_warnings():
        # Displays have threads; the child never touches what they hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()


def share_out(
    task: AttackTask,
    standing: Tensor,
    count: int,
    finished: Mapping[str, AttackBlock],
    report: Callable[[Progress], None],
    work: Work,
) -> Iterator[AttackBlock]:
    """Do the work in `count` processes, and yield their blocks as they come.

    Args:
        task: all samples.
        standing: (N,) bool, which of them are attacked.
        count: of the processes, at least 1.
        finished: blocks of an earlier, interrupted run: their keys are taken.
        report: called with the progress of all processes together.
        work: what each does with its part of the task.

    Raises:
        BenchError: what the work raised in a process; for errors of other kinds, and for a process
            that ended too early, an EvaluationError.
    """
    rows = standing.nonzero().flatten()
    batch_size = max(1, task.batch_size // count)  # all together take no more memory than one
    together = _Together(len(standing), int(standing.sum()), count)
    context = multiprocessing.get_context("fork")
    connections: dict[Connection, int] = {}
    children = []
    try:
        for number in range(count):
            part = replace(task.part(rows[number::count]), batch_size=batch_size)
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_run, args=(theirs, work, part), daemon=True)
            _start(child)
            theirs.close()
            children.append(child)
            connections[ours] = number
        keys = _Keys(finished)
        while connections:
            for ready in wait(list(connections)):
                connection = cast(Connection, ready)
                number = connections[connection]
                try:
                    message = connection.recv()
                except EOFError as error:
                    children[number].join()
                    raise EvaluationError(
                        f"a process that attacked a share of the samples ended with exit code "
                        f"{children[number].exitcode} before its work was done (out of memory?); "
                        "the same command goes on"
                    ) from error
                if message is None:
                    del connections[connection]
                elif isinstance(message, BaseException):
                    raise message
                elif isinstance(message, Progress):
                    report(together.with_news(number, message))
                else:
                    yield _timed(keys.renamed(message), count)
    finally:
        for child in children:
            child.terminate()
            child.join()


def _run(connection: Connection, work: Work, task: AttackTask) -> None:
    """Do a process's part, until it is finished or the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent terminates this process
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    torch.set_num_threads(1)
    try:
        standing = torch.ones(len(task.labels), dtype=torch.bool)
        for block in work(task, standing, connection.send):
            connection.send(block)
        connection.send(None)
    except BrokenPipeError:
        os._exit(1)
    except BenchError as error:
        connection.send(error)
    except FOREIGN_ERRORS as error:
        connection.send(EvaluationError(f"failed: {raised(error)}"))


def _timed(block: AttackBlock, count: int) -> AttackBlock:
    """Return a block with its share of the time that passed: `count` processes ran at once."""
    attempts = block.attempts
    if attempts is not None:
        attempts = replace(attempts, seconds=attempts.seconds / count)
    return replace(block, seconds=block.seconds / count, attempts=attempts)


class _Keys:
    """Numbers blocks anew: all processes begin from the same number."""

    def __init__(self, finished: Mapping[str, AttackBlock]) -> None:
        self._next: dict[str, int] = {}
        for key in finished:
            stage, _, number = key.rpartition("-")
            self._next[stage] = max(self._next.get(stage, 0), int(number) + 1)

    def renamed(self, block: AttackBlock) -> AttackBlock:
        stage, _, _ = block.key.rpartition("-")
        number = self._next.get(stage, 0)
        self._next[stage] = number + 1
        return replace(block, key=f"{stage}-{number:05d}")


class _Together:
    """The progress of all processes as one."""

    def __init__(self, examples: int, standing: int, count: int) -> None:
        self._examples = examples
        self._latest: list[dict[str, Progress]] = [{} for _ in range(count)]
        self._standing = standing

    def with_news(self, number: int, progress: Progress) -> Progress:
        """Return the progress of the stage that the last of the processes is in."""
        self._latest[number][progress.stage] = progress
        begun = [each for each in self._latest if each]
        stages = list(dict.fromkeys(stage for each in begun for stage in each))
        behind = min((list(each)[-1] for each in begun), key=stages.index)
        there = [each[behind] for each in begun if behind in each]
        now = [list(each.values())[-1] for each in begun]
        left = [each.seconds_left for each in now if each.seconds_left is not None]
        unheard = self._standing - sum(each.examples for each in now)
        return Progress(
            behind,
            sum(each.done for each in there),
            sum(each.total for each in there),
            sum(each.robust for each in now) + unheard,
            self._examples,
            max(left, default=None),
        )
