"""Workers that are processes of this machine: forked on a CPU, new ones for GPUs.

The operations of a small network are so short that several cores that work on the same operation
are hardly faster than one. So on a CPU each core has a worker of its own, forked when everything is
prepared. A GPU cannot be shared with a forked process; its workers are new processes, which get the
candidate as bytes (`shipment.py`) and never run the user's script.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess, SpawnProcess
from typing import Any, cast

import torch

from bench.executors.crew import Brief, Event, Joined, Lost, Order, Question
from bench.executors.hand import Hand, answer_of
from bench.executors.in_process import InProcess
from bench.executors.library import Library
from bench.executors.shipment import on_device, pack, unpack

_PARENT_DEATH_SIGNAL = 1
"""An option of `prctl`, as in <sys/prctl.h>."""
_TASK, _CHAIN, _ORDER = b"T", b"C", b"O"
"""The first byte of a message to a worker."""
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_SECONDS_TO_TRY = 5.0
_SECONDS_TO_END = 5.0
_ORIGIN = ("__file__", "__spec__")
"""Where multiprocessing finds the main module, to run it in new processes as well."""
_hiding = threading.Lock()


@dataclass
class _Process:
    """A worker's process, and the ways to and from it."""

    process: ForkProcess | SpawnProcess
    orders: Connection
    answers: Connection
    place: int
    task: int = 0
    chain: int = 0
    """The numbers of the task and of the chain that it was told of."""


class LocalCrew:
    """So many processes of this machine.

    Args:
        devices: one for each worker; workers on the same device share it.
        fork: whether processes are forked, with what this one has prepared; only on a CPU. Such
            processes live for one chain.
    """

    def __init__(self, devices: Sequence[torch.device], *, fork: bool) -> None:
        self._devices = list(devices)
        self._fork = fork
        self._library = Library(lambda task: [pack(task)], lambda chain: [pack(chain)])
        self._hand: Hand | None = None
        """What forked processes begin with."""
        self._processes: dict[str, _Process] = {}
        self._joined: list[str] = []
        self._started = 0

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._devices)

    @property
    def most(self) -> int:
        """The same: workers that are lost are replaced."""
        return self.size

    @property
    def device_type(self) -> None:
        """The task's own."""
        return None

    def begin(self, brief: Brief, own: InProcess) -> None:
        """Start the processes that are missing; forked ones know the brief."""
        if self._fork:
            self.close()
            # What is prepared before the fork is prepared once.
            worker = own.worker(brief.task)
            for stage in brief.chain:
                if stage.setup is not None:
                    worker.prepared(stage.setup)
            self._hand = Hand(worker)
            self._hand.follow(brief.chain)
        else:
            self._library.add(brief)
        for place in range(len(self._devices)):
            if not any(each.place == place for each in self._processes.values()):
                self._start(place)

    def give(self, worker: str, brief: Brief, work: Order | Question) -> None:
        """Send a process something to do; one that has died is noticed by `events`."""
        if not self._fork:
            self._tell(self._processes[worker], brief)
        self._send(self._processes[worker], _ORDER, pack(work, own_code=False))

    def events(self, seconds: float) -> list[Event]:
        """Return what workers answered, and which of them ended; new ones take their places."""
        found: list[Event] = [Joined(name) for name in self._joined]
        self._joined = []
        if found:
            return found
        ways = {each.answers: name for name, each in self._processes.items()}
        for way in wait(list(ways), seconds):
            name = ways[cast(Connection, way)]
            try:
                found.append(answer_of(name, cast(Connection, way).recv_bytes()))
            except (EOFError, OSError):  # it ended, perhaps in the middle of its answer
                found.append(self._replaced(name))
        return found

    def end(self, brief: Brief, busy: Collection[str]) -> Collection[str]:
        """End the processes that are forked, or at work."""
        self._library.remove(brief)
        gone = list(self._processes) if self._fork else list(busy)
        self._close(gone)
        return gone

    def close(self) -> None:
        """End all processes."""
        self._close(self._processes)

    def _close(self, names: Iterable[str]) -> None:
        ending = [self._processes.pop(name) for name in list(names) if name in self._processes]
        for each in ending:
            each.orders.close()
            each.process.terminate()
        for each in ending:
            each.process.join(_SECONDS_TO_END)
            if each.process.is_alive():
                each.process.kill()
                each.process.join()
            each.answers.close()
        self._joined = [name for name in self._joined if name in self._processes]

    def _start(self, place: int) -> None:
        name = f"worker-{self._started}"
        self._started += 1
        context: Any = multiprocessing.get_context("fork" if self._fork else "spawn")
        theirs, orders = context.Pipe(duplex=False)
        answers, their_answers = context.Pipe(duplex=False)
        share = self._devices.count(self._devices[place])
        process: Any
        if self._fork:
            ours = (orders, answers, *self._ways())
            process = context.Process(
                target=_forked,
                args=(theirs, their_answers, self._hand, share, ours, os.getpid()),
                daemon=True,
            )
        else:
            where = str(self._devices[place]), share, os.getpid()
            process = context.Process(
                target=_spawned, args=(theirs, their_answers, *where), daemon=True
            )
        with _without_signals(), _without_main():
            process.start()
        theirs.close()
        their_answers.close()
        self._processes[name] = _Process(process, orders, answers, place)
        self._joined.append(name)

    def _ways(self) -> list[Connection]:
        return [way for each in self._processes.values() for way in (each.orders, each.answers)]

    def _tell(self, process: _Process, brief: Brief) -> None:
        """Tell a process of the task and of the chain, in order, if it does not know them."""
        packed = self._library.packed(brief)
        if process.task != packed.task:
            self._send(process, _TASK, packed.task_parts[0])
            process.task, process.chain = packed.task, 0
        if process.chain != packed.chain:
            self._send(process, _CHAIN, packed.chain_parts[0])
            process.chain = packed.chain

    def _send(self, process: _Process, kind: bytes, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.orders.send_bytes(kind + data)

    def _replaced(self, name: str) -> Lost:
        """Start another worker in the place of one that ended."""
        ended = self._processes.pop(name)
        self._joined = [each for each in self._joined if each != name]
        ended.orders.close()
        ended.process.join(_SECONDS_TO_END)
        if ended.process.is_alive():
            ended.process.kill()
            ended.process.join()
        code = ended.process.exitcode
        ended.answers.close()
        self._start(ended.place)
        memory = " (out of memory?)" if code == -signal.SIGKILL else ""
        return Lost(name, f"its process ended with exit code {code}{memory}")


def _serve(
    hand: Hand, orders: Connection, answers: Connection, device: torch.device, share: int
) -> None:
    """Do orders until there are no more."""
    try:
        while True:
            message = orders.recv_bytes()
            kind, data = message[:1], message[1:]
            if kind == _TASK:
                hand.take(on_device(unpack(data), device), share)
            elif kind == _CHAIN:
                hand.follow(unpack(data))
            else:
                answers.send_bytes(hand.do(unpack(data)))
    except (EOFError, BrokenPipeError):
        os._exit(0)


def _forked(
    orders: Connection,
    answers: Connection,
    hand: Hand,
    share: int,
    ours: Sequence[Connection],
    parent: int,
) -> None:
    for way in ours:
        way.close()  # the parent's ends, else a worker's end would not be noticed
    _end_with_parent(parent)
    torch.set_num_threads(1)  # OpenMP cannot start more of them in a forked process
    hand.share_cores(share)
    _serve(hand, orders, answers, torch.device("cpu"), share)


def _spawned(
    orders: Connection,
    answers: Connection,
    device: str,
    share: int,
    parent: int,
) -> None:
    _end_with_parent(parent)
    place = torch.device(device)
    if place.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // share))
    _serve(Hand(), orders, answers, place, share)


def _end_with_parent(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it ends, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """Start processes that signals reach only once they have handlers of their own.

    Until then a process that is forked would raise what this one's handlers raise.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        with warnings.catch_warnings():
            # Displays have threads; a forked process never touches what they hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start new processes that do not run the main module, which may be a script without a guard.

    They need nothing of it: a shipment carries its code by value.
    """
    main = vars(sys.modules["__main__"])
    with _hiding:  # another thread would take what is hidden for what was there before
        before = {name: main[name] for name in _ORIGIN if name in main}
        main.update(dict.fromkeys(_ORIGIN))
        try:
            yield
        finally:
            for name in _ORIGIN:
                del main[name]
            main.update(before)


def can_fork() -> bool:
    """Return whether processes forked off now can work.

    PyTorch refuses gradients in them after gradients on a GPU, and after some uses of its compiler.
    """
    if (
        sys.platform != "linux"
        or multiprocessing.current_process().daemon
        # Beside a thread that forks, others may hold locks which the child then waits for.
        or threading.current_thread() is not threading.main_thread()
    ):
        return False
    child = multiprocessing.get_context("fork").Process(target=_take_gradient, daemon=True)
    with _without_signals():
        child.start()
    child.join(_SECONDS_TO_TRY)
    child.kill()
    child.join()
    return child.exitcode == 0


def _take_gradient() -> None:
    value = torch.ones(1, requires_grad=True)
    try:
        torch.autograd.grad(value.sum(), value)
    except RuntimeError:
        os._exit(1)
