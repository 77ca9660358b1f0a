"""A real Ray cluster of several nodes on this machine, each of which can be stopped by itself."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

SECONDS_TO_START = 180.0
RAY = f"""
import sys, time
import ray._private.services as services
from ray.scripts.scripts import main

get_node = services.get_node

def patient_get_node(*arguments, **options):
    end = time.monotonic() + {SECONDS_TO_START}
    while True:
        try:
            return get_node(*arguments, **options)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)

services.get_node = patient_get_node
sys.argv[0] = "ray"
main()
"""
"""The command `ray`; its own patience of 30 s with a node that starts is too short for a busy
machine."""
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 4,
}
"""A node that does not answer is dead after about ten seconds, instead of Ray's minute."""


@dataclass
class Node:
    """A node of the cluster.

    Attributes:
        command: the process of `ray start --block`.
        processes: all that it has started, when they were last looked for.
    """

    command: subprocess.Popen[bytes]
    processes: list[psutil.Process]

    def look(self) -> list[psutil.Process]:
        """Return the processes of the node that live; those of lost parents too."""
        found = {each.pid: each for each in self.processes}
        for each in list(found.values()):
            try:
                found |= {child.pid: child for child in each.children(recursive=True)}
            except psutil.NoSuchProcess:
                continue
        self.processes = [each for each in found.values() if _lives(each)]
        return self.processes

    @property
    def lives(self) -> bool:
        """Whether it is part of the cluster, as far as its own machine can say."""
        return any(_name(each) == "raylet" for each in self.look())

    @property
    def raylet(self) -> psutil.Process:
        """The process that stands for the node in the cluster."""
        return next(each for each in self.look() if _name(each) == "raylet")

    @property
    def actors(self) -> list[psutil.Process]:
        """The processes of its workers."""
        return [each for each in self.look() if "ray::RayWorker" in _line(each)]

    def send(self, number: signal.Signals) -> None:
        """Send all its processes a signal."""
        for each in self.look():
            _send(each, number)

    def kill(self) -> None:
        """End all its processes at once, as if its machine lost power."""
        self.send(signal.SIGSTOP)  # nothing is to notice what ends first
        for each in self.look():
            _send(each, signal.SIGKILL)
        psutil.wait_procs(self.processes, 10)
        self.command.wait(10)


class Cluster:
    """A cluster whose nodes have addresses of the loopback network; ports are free ones.

    Attributes:
        nodes: those that were not removed; the first one is the head.
        address: what drivers connect to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self.nodes: list[Node] = []
        self.address = ""
        self.add()

    def add(self) -> Node:
        """Start a node with one core, and wait until it has joined.

        Raises:
            RuntimeError: it did not start.
        """
        self._started += 1
        own = ["--node-ip-address", f"127.0.0.{self._started}"]
        if not self.nodes:
            port = _free_port()
            self.address = f"127.0.0.{self._started}:{port}"
            own += ["--head", "--port", str(port), "--include-dashboard", "false"]
            own += ["--ray-client-server-port", str(_free_port())]
            own += ["--temp-dir", str(self._folder), "--system-config", json.dumps(HEALTH)]
        else:
            own += ["--address", self.address]
        command = [
            sys.executable, "-c", RAY, "start", "--block", *own,
            "--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", "100000000",
            "--min-worker-port", "0", "--max-worker-port", "0",
            "--dashboard-agent-listen-port", str(_free_port()), "--disable-usage-stats",
        ]  # fmt: skip
        log = self._folder / f"node-{self._started}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        node = Node(process, [psutil.Process(process.pid)])
        end = time.monotonic() + SECONDS_TO_START
        while "Ray runtime started" not in log.read_text():
            node.look()
            if process.poll() is not None or time.monotonic() > end:
                node.kill()
                raise RuntimeError(f"no node came up: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        self.nodes.append(node)
        return node

    def stop(self) -> None:
        """End all nodes, and no other cluster's."""
        for node in reversed(self.nodes):
            node.kill()

    def remove(self, node: Node) -> None:
        """Let a node vanish."""
        self.nodes.remove(node)
        node.kill()


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Start a cluster of two nodes with a core each, and stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-ray-"))  # sockets need a short path
    cluster = Cluster(folder)
    try:
        cluster.add()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def environment() -> Mapping[str, str]:
    """Return the variables of this process without those that name another cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # With a token of this user's in its place Ray would ask for it.
    return {
        **kept,
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
    }


def _end_with_parent() -> None:
    """Let the command stop its node when this process ends, even if it is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
