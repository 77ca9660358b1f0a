"""Workers that are actors of a Ray cluster, one for each GPU, or for each core without GPUs.

The cluster keeps the candidate's weights once a node. Workers are added as nodes join, and started
anew where they are lost; a node that comes back is a new one. All of this needs the extra `ray`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import bench
from bench.errors import EvaluationError, InputError, raised
from bench.executors.crew import Brief, Event, Joined, Lost, Order, Question
from bench.executors.hand import Hand, answer_of, failure
from bench.executors.in_process import InProcess
from bench.executors.library import Library
from bench.executors.shipment import on_device, pack, unpack

SECONDS_BETWEEN_COUNTS = 5.0
"""After so long the crew looks whether the cluster has grown."""
SECONDS_TO_FIND_A_WORKER = 300.0
"""Without any worker for so long, the run ends."""
SECONDS_TO_ANSWER = 10.0
"""How long to wait for an answer at a given address."""
_LOOPBACK = "127.0.0.1"
_KNOWS_NOTHING = b"-"
"""The answer of an actor that was told of another task or chain than it is asked about."""


class RayWorker:
    """What runs in an actor.

    The driver does not wait for `take` and `follow`, so they may be lost on their way. Hence tasks
    and chains have numbers, and what is to be done says which it is about.
    """

    def __init__(self, versions: tuple[str, str]) -> None:
        self._hand = Hand()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._task = self._chain = 0
        self._problem = ""
        """What went wrong with the task at hand; empty: nothing."""
        self._other_version = ""
        ours = _versions()
        if ours != versions:
            self._other_version = (
                f"expected Python {versions[0]} and tradeoff-bench {versions[1]} on every node, as "
                f"where the run was started; got {ours[0]} and {ours[1]}"
            )

    def ready(self) -> bool:
        """Answer, once the actor runs."""
        return True

    def take(self, number: int, data: bytes, *buffers: Any) -> None:
        """Work for another task from now on."""
        self._problem, self._task, self._chain = self._other_version, 0, 0
        self._hand = Hand()  # the last candidate must not take the memory that this one needs
        if self._problem:
            return
        try:
            self._hand.take(on_device(unpack(data, buffers), self._device), 1)
            self._task = number
        except Exception as error:  # what fails here is told with the first shard
            self._problem = f"the candidate cannot be unpacked on a worker: {raised(error)}"

    def follow(self, number: int, data: bytes) -> None:
        """Take orders of this chain from now on."""
        if self._problem:
            return
        try:
            self._hand.follow(unpack(data))
            self._chain = number
        except Exception as error:
            self._problem = f"the work cannot be unpacked on a worker: {raised(error)}"

    def do(self, task: int, chain: int, data: bytes, *buffers: Any) -> bytes:
        """Do a shard, or answer a question; see `bench.executors.hand.answer_of`."""
        if self._problem:
            return failure(self._problem)
        if (task, chain) != (self._task, self._chain):
            return _KNOWS_NOTHING
        return self._hand.do(unpack(data, buffers))


@dataclass
class _Actor:
    """An actor, and what it was asked to do.

    Attributes:
        handle: Ray's.
        is_ready: whether it runs.
        task, chain: numbers of those that it was told of.
        reached: what it answers before it begins what it was given last.
    """

    handle: Any
    is_ready: bool = False
    task: int = 0
    chain: int = 0
    reached: Any = None


class RayCrew:
    """Actors of a Ray cluster.

    Args:
        address: of the cluster; "": the one that RAY_ADDRESS names, or one that is started on this
            machine alone, and reached from it alone.
        workers: how many; None: as many as the cluster has room for, at any time.
        gpus_per_worker: GPUs of each, fractions too; None: one where the cluster has any.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self, address: str = "", workers: int | None = None, gpus_per_worker: float | None = None
    ) -> None:
        self._ray = _connected(address)
        self._asked_workers = workers
        total = self._ray.cluster_resources()
        has_gpus = float(total.get("GPU", 0)) > 0
        self._gpus = gpus_per_worker if gpus_per_worker is not None else float(has_gpus)
        if self._gpus and not has_gpus:
            raise InputError(
                f"--gpus-per-worker: expected a cluster with GPUs, which {self._gpus:g} for each "
                "worker needs; got one without"
            )
        self._actors: dict[str, _Actor] = {}
        self._waiting: dict[Any, str] = {}
        """What is to come, by its reference: the name of the actor that was asked."""
        self._library = Library(self._put_task, lambda chain: [self._ray.put(pack(chain))])
        self._started = 0
        self._counted = -SECONDS_BETWEEN_COUNTS
        self._seen = time.monotonic()

    @property
    def device_type(self) -> str:
        """The kind of device that workers have."""
        return "cuda" if self._gpus else "cpu"

    @property
    def size(self) -> int:
        """How many workers there are now."""
        # A copy, since the thread that speaks to the crew may start another one meanwhile.
        return max(1, sum(each.is_ready for each in list(self._actors.values())))

    @property
    def most(self) -> int:
        """How many were asked for, or how many the cluster has room for now."""
        return self._asked_workers or self._room()

    def begin(self, brief: Brief, own: InProcess) -> None:
        """Keep the candidate in the cluster's memory."""
        with self._in_touch():
            self._library.add(brief)
        self._seen = time.monotonic()

    def give(self, worker: str, brief: Brief, work: Order | Question) -> None:
        """Send an actor something to do."""
        packed = self._library.packed(brief)
        actor = self._actors[worker]
        with self._in_touch():
            actor.reached = actor.handle.ready.remote()
            if actor.task != packed.task:
                actor.handle.take.remote(packed.task, *packed.task_parts)
                actor.task, actor.chain = packed.task, 0
            if actor.chain != packed.chain:
                actor.handle.follow.remote(packed.chain, *packed.chain_parts)
                actor.chain = packed.chain
            parts = _in_parts(work, own_code=False)
            self._waiting[actor.handle.do.remote(packed.task, packed.chain, *parts)] = worker

    def events(self, seconds: float) -> list[Event]:
        """Return what workers answered, and which of them are lost; others take their places.

        Raises:
            EvaluationError: there was no worker for long, or the cluster is lost.
        """
        with self._in_touch():
            self._grow()
            now = time.monotonic()
            if any(each.is_ready for each in self._actors.values()):
                self._seen = now
            elif now - self._seen > SECONDS_TO_FIND_A_WORKER:
                raise _no_worker()
            if not self._waiting:
                time.sleep(seconds)
                return []
            ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=seconds)
            return [event for ref in ready if (event := self._event(ref)) is not None]

    def end(self, brief: Brief, busy: Collection[str]) -> Collection[str]:
        """Forget the brief; an actor that is at work ends with it."""
        self._library.remove(brief)
        for name in busy:
            self._drop(name)
        return busy

    def close(self) -> None:
        """Let all actors go, and leave the cluster."""
        self._waiting = {}
        for name in list(self._actors):
            self._drop(name)
        self._ray.shutdown()

    def _put_task(self, task: Any) -> list[Any]:
        """Return a task's parts, as the cluster's memory has them."""
        return [self._ray.put(each) for each in _in_parts(task)]

    def _grow(self) -> None:
        """Start the actors that are missing."""
        now = time.monotonic()
        if now - self._counted < SECONDS_BETWEEN_COUNTS:
            return
        self._counted = now
        wanted = self._asked_workers or self._room()
        while len(self._actors) < wanted:
            self._start()

    def _room(self) -> int:
        """Return how many workers the cluster has room for, at least one."""
        total = self._ray.cluster_resources()
        if self._gpus:
            return max(1, int(float(total.get("GPU", 0)) / self._gpus + 1e-9))
        return max(1, int(float(total.get("CPU", 0))))

    def _start(self) -> None:
        name = f"worker-{self._started}"
        self._started += 1
        options = {
            "num_gpus": self._gpus,
            "num_cpus": 1 if not self._gpus else 0,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        handle = self._ray.remote(**options)(RayWorker).remote(_versions())
        self._actors[name] = _Actor(handle)
        self._waiting[handle.ready.remote()] = name

    def _event(self, ref: Any) -> Event | None:
        name = self._waiting.pop(ref)
        actor = self._actors.get(name)
        if actor is None:
            return None
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return self._lost(name, _in_a_line(error))
        if answer is True:
            actor.is_ready = True
            return Joined(name)
        if answer == _KNOWS_NOTHING:
            return self._lost(name, "what it was sent did not arrive")
        return answer_of(name, answer)

    def _lost(self, name: str, reason: str) -> Lost:
        began = self._has_begun(self._actors[name])
        self._drop(name)
        self._counted = -SECONDS_BETWEEN_COUNTS
        return Lost(name, reason, began)

    def _has_begun(self, actor: _Actor) -> bool:
        """Return whether an actor that is lost lived when it got what it was given."""
        if actor.reached is None:
            return False
        try:
            return bool(self._ray.get(actor.reached, timeout=0))
        except self._ray.exceptions.RayError:
            return False

    def _drop(self, name: str) -> None:
        """End an actor, if it is still there, and wait for nothing that it was asked."""
        actor = self._actors.pop(name)
        self._waiting = {ref: each for ref, each in self._waiting.items() if each != name}
        with contextlib.suppress(Exception):  # it, or the whole cluster, may be no more
            self._ray.kill(actor.handle)

    @contextlib.contextmanager
    def _in_touch(self) -> Iterator[None]:
        """Say in one line that the cluster is lost."""
        try:
            yield
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise EvaluationError(
                f"the Ray cluster is lost: {_in_a_line(error)}; start it again, then the same "
                "command goes on with what is finished"
            ) from error


def _in_parts(thing: Any, *, own_code: bool = True) -> list[Any]:
    """Return an object as bytes, and then the data of its tensors and arrays, which Ray shares."""
    buffers: list[Any] = []
    data = pack(
        thing,
        lambda buffer: buffers.append(np.frombuffer(buffer.raw(), dtype=np.uint8)),
        own_code=own_code,
    )
    return [data, *buffers]


def _no_worker() -> EvaluationError:
    return EvaluationError(
        f"no worker came within {SECONDS_TO_FIND_A_WORKER:g} seconds: the cluster has no room for "
        "one, or its nodes are lost; `ray status` shows them"
    )


def _versions() -> tuple[str, str]:
    return platform.python_version(), bench.__version__


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _connected(address: str) -> Any:
    """Return Ray, connected to a cluster.

    A cluster that is started here can be reached from this machine alone.
    """
    try:
        with _own_signals():
            ray = importlib.import_module("ray")
    except ImportError as error:
        raise InputError(
            "--executor ray: expected the package ray; install it by "
            "`pip install tradeoff-bench[ray]`"
        ) from error
    if ray.is_initialized():
        return ray
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    given = address or os.environ.get("RAY_ADDRESS", "")
    _check_reachable(given)
    try:
        if given:
            with _own_signals():
                ray.init(address=given, **options)
        else:
            with _own_signals(), _on_loopback():
                ray.init(
                    address="local",  # else Ray would join one that somebody started here
                    include_dashboard=False,
                    _node_ip_address=_LOOPBACK,
                    **options,
                )
    except Exception as error:  # Ray raises many kinds
        raise InputError(
            f"--executor: expected a Ray cluster at {given or 'this machine'}: {_in_a_line(error)}"
        ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Refuse HOST:PORT where nothing answers, for which Ray would wait longer than a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # such as "auto": Ray knows where
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--executor: expected a Ray cluster at {address}, where nothing answers ({error}); "
            "start one there by `ray start --head`, or correct --executor or RAY_ADDRESS"
        ) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray replaces by an exit."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # Ray's own answer was there already
        if callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a cluster that starts now listen on the loopback interface alone.

    Ray replaces the address 127.0.0.1 by the machine's own, and then listens on all interfaces,
    unless it is told that this system takes part in no cluster of several machines.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    name = constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = os.environ.get(name), constants.ENABLE_RAY_CLUSTER
    os.environ[name], constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before[1]
        if before[0] is None:
            del os.environ[name]
        else:
            os.environ[name] = before[0]
