"""An own Ray cluster listens on the loopback interface alone; an unreachable one is reported."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

SCRIPT = """
import json, os, signal
import psutil, torch
from bench.executors.ray_cluster import RayCrew

before = signal.getsignal(signal.SIGTERM), dict(os.environ)
crew = RayCrew(workers=1)
assert signal.getsignal(signal.SIGTERM) == before[0]
assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in set(os.environ) - set(before[1])
while not any(event for event in crew.events(1.0)):
    pass  # until a worker has joined
found = []
own = psutil.Process()
for process in [own, *own.children(recursive=True)]:
    try:
        found += [
            (process.name(), each.laddr.ip)
            for each in process.net_connections("inet")
            if each.status == psutil.CONN_LISTEN
        ]
    except psutil.NoSuchProcess:
        pass
crew.close()
print(json.dumps(found))
"""


def test_an_address_where_nothing_answers_is_said_at_once() -> None:
    script = "from bench.executors.ray_cluster import RayCrew; RayCrew('127.0.0.1:1')"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)  # Ray: over a minute
    assert "expected a Ray cluster at 127.0.0.1:1, where nothing answers" in done.stderr


@pytest.mark.slow
def test_all_ports_of_an_own_cluster_are_on_the_loopback_interface() -> None:
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    names = {name for name, _ in found}
    assert {"gcs_server", "raylet"} <= names, "else the wrong processes were looked at"
    assert [(name, ip) for name, ip in found if not _is_loopback(ip)] == []


def _is_loopback(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
