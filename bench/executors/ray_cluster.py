"""Workers that are actors of a Ray cluster, one for each GPU, or for each core without GPUs.

The cluster keeps the candidate's weights once a node. Workers are added as nodes join, and started
anew where they are lost; a node that comes back is a new one. All of this needs the extra `ray`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import bench
from bench.errors import EvaluationError, InputError, raised
from bench.executors.crew import Brief, Event, Failed, Finished, Joined, Lost, Order
from bench.executors.hand import Hand
from bench.executors.in_process import InProcess
from bench.executors.shipment import on_device, pack, unpack
from bench.executors.stage import Setup

SECONDS_BETWEEN_COUNTS = 5.0
"""After so long the crew looks whether the cluster has grown."""
SECONDS_TO_FIND_A_WORKER = 300.0
"""Without any worker for so long, the run ends."""
_LOOPBACK = "127.0.0.1"


class RayWorker:
    """What runs in an actor."""

    def __init__(self, name: str, versions: tuple[str, str]) -> None:
        self._hand = Hand(name)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._problem = ""
        ours = _versions()
        if ours != versions:
            self._problem = (
                f"expected Python {versions[0]} and tradeoff-bench {versions[1]} on every node, as "
                f"where the run was started; got {ours[0]} and {ours[1]}"
            )

    def ready(self) -> bool:
        """Answer, once the actor runs."""
        return True

    def take(self, data: bytes, *buffers: Any) -> None:
        """Work for another task from now on."""
        if self._problem:
            return
        try:
            self._hand.take(on_device(unpack(data, buffers), self._device), 1)
        except Exception as error:  # what fails here is told with the first shard
            self._problem = f"the candidate cannot be unpacked on a worker: {raised(error)}"

    def follow(self, data: bytes) -> None:
        """Take orders of this chain from now on."""
        if not self._problem:
            self._hand.follow(unpack(data))

    def do(self, data: bytes) -> bytes:
        """Return what came of an order: a letter, and blocks or a text."""
        if self._problem:
            return b"!" + self._problem.encode()
        answer = self._hand.do(unpack(data))
        if isinstance(answer, Finished):
            return b"+" + answer.data
        return (b"?" if answer.is_input else b"!") + answer.text.encode()

    def ask(self, data: bytes) -> bytes:
        """Return the answer to a question about a setup, as JSON."""
        if self._problem:
            return b"!" + self._problem.encode()
        setup, question = unpack(data)
        return self._hand.answer(setup, question)


@dataclass
class _Actor:
    """An actor, and what it was asked to do."""

    handle: Any
    is_ready: bool = False
    knows: list[Any] = field(default_factory=list)
    """The module and the chain that it was told of."""


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
        self._asked = workers
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
        self._task: tuple[Any, tuple[Any, ...]] | None = None
        self._chain: tuple[Any, Any] | None = None
        self._started = 0
        self._counted = -SECONDS_BETWEEN_COUNTS

    @property
    def device_type(self) -> str:
        """The kind of device that workers have."""
        return "cuda" if self._gpus else "cpu"

    @property
    def size(self) -> int:
        """How many workers there are now."""
        return max(1, sum(each.is_ready for each in self._actors.values()))

    def begin(self, brief: Brief, own: InProcess) -> None:
        """Keep the candidate in the cluster, and tell all workers."""
        self._learn(brief.task)
        self._chain = brief.chain, self._ray.put(pack(brief.chain))
        self._grow()
        self._waiting = {
            ref: name for ref, name in self._waiting.items() if not self._actors[name].is_ready
        }
        for name, actor in self._actors.items():
            if actor.is_ready:
                self._tell(name)
                self._expect(actor.handle.ready.remote(), name)

    def give(self, worker: str, order: Order) -> None:
        """Send an order."""
        self._expect(self._actors[worker].handle.do.remote(pack(order)), worker)

    def events(self, seconds: float) -> list[Event]:
        """Return what workers answered, and which of them are lost; others take their places."""
        self._grow()
        if not self._waiting:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=seconds)
        return [event for ref in ready if (event := self._event(ref)) is not None]

    def ask(self, task: Any, setup: Setup, question: Callable[[Any], Any]) -> Any:
        """Return a worker's answer."""
        self._learn(task)
        data = pack((setup, question))
        deadline = time.monotonic() + SECONDS_TO_FIND_A_WORKER
        while time.monotonic() < deadline:
            name = self._any_worker(deadline)
            self._tell(name)
            try:
                answer = self._ray.get(self._actors[name].handle.ask.remote(data))
            except self._ray.exceptions.RayActorError as error:
                self._lose(name, error)
                continue
            kind, text = answer[:1], answer[1:].decode()
            if kind == b"+":
                return json.loads(text)
            raise (InputError if kind == b"?" else EvaluationError)(text)
        raise _no_worker()

    def end(self) -> None:
        """Forget shards that are under way; an actor at work ends with them."""
        for ref, name in list(self._waiting.items()):
            done, _ = self._ray.wait([ref], timeout=0)
            if not done and self._actors[name].is_ready:
                self._ray.kill(self._actors.pop(name).handle)
        self._waiting = {ref: name for ref, name in self._waiting.items() if name in self._actors}

    def close(self) -> None:
        """Let all actors go, and leave the cluster."""
        for actor in self._actors.values():
            self._ray.kill(actor.handle)
        self._actors.clear()
        self._ray.shutdown()

    def _learn(self, task: Any) -> None:
        if self._task is not None and self._task[0] is task.module:
            return
        buffers: list[Any] = []
        data = pack(
            task, lambda buffer: buffers.append(np.frombuffer(buffer.raw(), dtype=np.uint8))
        )
        self._task = task.module, tuple(self._ray.put(each) for each in (data, *buffers))

    def _tell(self, name: str) -> None:
        """Tell an actor of the task and of the chain, in order, if it does not know them."""
        actor = self._actors[name]
        assert self._task is not None
        module, parts = self._task
        if not actor.knows or actor.knows[0] is not module:
            actor.handle.take.remote(*parts)
            actor.knows = [module]
        if self._chain is not None and (
            len(actor.knows) < 2 or actor.knows[1] is not self._chain[0]
        ):
            actor.handle.follow.remote(self._chain[1])
            actor.knows = [module, self._chain[0]]

    def _expect(self, ref: Any, name: str) -> None:
        self._waiting[ref] = name

    def _grow(self) -> None:
        """Start the actors that are missing."""
        now = time.monotonic()
        if now - self._counted < SECONDS_BETWEEN_COUNTS:
            return
        self._counted = now
        wanted = self._asked or self._room()
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
        handle = self._ray.remote(**options)(RayWorker).remote(name, _versions())
        self._actors[name] = _Actor(handle)
        self._expect(handle.ready.remote(), name)

    def _event(self, ref: Any) -> Event | None:
        name = self._waiting.pop(ref)
        actor = self._actors.get(name)
        if actor is None:
            return None
        try:
            answer = self._ray.get(ref)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as error:
            return self._lose(name, error)
        if answer is True:
            actor.is_ready = True
            if self._task is not None:
                self._tell(name)
            return Joined(name)
        kind, rest = answer[:1], answer[1:]
        if kind == b"+":
            return Finished(name, rest)
        return Failed(name, kind == b"?", rest.decode())

    def _lose(self, name: str, error: BaseException) -> Lost:
        del self._actors[name]
        self._waiting = {ref: each for ref, each in self._waiting.items() if each != name}
        self._counted = -SECONDS_BETWEEN_COUNTS
        return Lost(name, _in_a_line(error))

    def _any_worker(self, deadline: float) -> str:
        while time.monotonic() < deadline:
            for name, actor in self._actors.items():
                if actor.is_ready:
                    return name
            self.events(1.0)
        raise _no_worker()


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


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray replaces by an exit."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
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
